//! How large the maps of the BPF programs are: by conntrack's table, by the CPUs, and by what is wanted.

use anyhow::Result;
use aya::util::nr_cpus;
use aya_obj::generated::bpf_map_type;
use conntracker_common::plan::{FRAMES, MAX_SLOTS};

use super::loader::Loader;

/// Entries of one set of the path cache.
const PATH_CACHE_WAYS: u32 = 4;

/// Entries that conntrack's table may have where nothing tells it: what the kernel allows with 4 GiB of memory and more.
const USUAL_TABLE: u32 = 262_144;

/// Sizes of the kernel side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the ring buffer; rounded up to a power of two of pages.
    pub ring_bytes: u32,
    /// Flows whose folded keys are remembered.
    pub seen_entries: u32,
    /// Entries of each of the two maps of drops.
    pub drop_entries: u32,
    /// Flows whose paths are cached.
    pub known_flows: u32,
}

impl Default for Sizes {
    /// Those for a table of 262,144 entries.
    fn default() -> Self {
        Self::for_table(USUAL_TABLE)
    }
}

impl Sizes {
    /// For a conntrack table of so many entries (nf_conntrack_max; 0 if it is not known). The ring has 32 MiB, which
    /// hold 150,000 new flows of IPv4, each with a path through one hook.
    #[must_use]
    pub fn for_table(max: u32) -> Self {
        let max = if max == 0 { USUAL_TABLE } else { max };
        Self {
            ring_bytes: 32 << 20,
            // Half of the entries of a table fold into others, at least; more are evicted and counted anew.
            seen_entries: (max / 2).clamp(16_384, 131_072),
            drop_entries: (max / 4).clamp(16_384, 65_536),
            known_flows: max.clamp(65_536, 1 << 20),
        }
    }

    /// Sets of the path cache: a power of two.
    #[must_use]
    pub(super) fn path_cache_sets(self, trace_rules: bool) -> u32 {
        if trace_rules { self.known_flows.div_ceil(PATH_CACHE_WAYS).next_power_of_two() } else { 1 }
    }

    /// Sets the sizes of all maps. Those for rules have one entry where no rules are traced; `by_element`: loops of the
    /// programs go through the elements of a map.
    pub(super) fn apply(
        self,
        loader: Loader,
        trace_rules: bool,
        by_element: bool,
    ) -> Result<Loader> {
        let frames =
            if trace_rules { nr_cpus().map_err(|(_, error)| error)? as u32 * FRAMES } else { 1 };
        // The longest loop has a round for each counter.
        let rounds = if by_element { MAX_SLOTS } else { 1 };
        loader
            .max_entries("RECORDS", self.ring_bytes)?
            .max_entries("SEEN_FLOWS", self.seen_entries)?
            .max_entries("DROPS_0", self.drop_entries)?
            .max_entries("DROPS_1", self.drop_entries)?
            .max_entries("PATH_CACHE", self.path_cache_sets(trace_rules))?
            .max_entries("BEFORE", frames)?
            .max_entries("AFTER", frames)?
            .max_entries("PATH_SCRATCH", frames)?
            .max_entries("ROUNDS", rounds)
    }

    /// Bytes of keys and values of each map of a trace, the largest first. What the kernel needs besides (for each entry
    /// of a hash table some 50 bytes) is not in it.
    ///
    /// # Errors
    /// The number of CPUs is not known, or this is a build without the BPF object.
    pub fn maps(self, trace_rules: bool) -> Result<Vec<(String, u64)>> {
        let cpus = nr_cpus().map_err(|(_, error)| error)? as u64;
        let mut maps: Vec<(String, u64)> = self
            .apply(Loader::new()?, trace_rules, false)?
            .maps()
            .map(|(name, map)| {
                let round = |bytes: u32| u64::from(bytes.next_multiple_of(8));
                let value =
                    round(map.value_size()) * if per_cpu(map.map_type()) { cpus } else { 1 };
                let entry = match map.map_type() {
                    ring if ring == bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32 => 1,
                    array if is_array(array) => value,
                    _ => value + round(map.key_size()),
                };
                (name.to_owned(), u64::from(map.max_entries()) * entry)
            })
            .collect();
        maps.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Ok(maps)
    }
}

fn per_cpu(map_type: u32) -> bool {
    [bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY, bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH]
        .iter()
        .any(|&of| of as u32 == map_type)
}

fn is_array(map_type: u32) -> bool {
    [bpf_map_type::BPF_MAP_TYPE_ARRAY, bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY]
        .iter()
        .any(|&of| of as u32 == map_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_table_has_small_maps_and_a_large_one_has_bounds() {
        let small = Sizes::for_table(16_384);
        assert_eq!(
            (small.seen_entries, small.drop_entries, small.known_flows),
            (16_384, 16_384, 65_536)
        );
        let large = Sizes::for_table(u32::MAX);
        assert_eq!(
            (large.seen_entries, large.drop_entries, large.known_flows),
            (131_072, 65_536, 1 << 20)
        );
        assert_eq!(Sizes::for_table(0), Sizes::default());
    }

    #[test]
    fn without_rules_their_maps_take_nothing() {
        let bytes = |trace_rules| -> u64 {
            Sizes::default().maps(trace_rules).unwrap().iter().map(|(_, bytes)| bytes).sum()
        };
        assert!(bytes(true) > bytes(false) + (4 << 20), "{} {}", bytes(true), bytes(false));
        let all = Sizes::default().maps(true).unwrap();
        assert_eq!(all[0], ("RECORDS".to_owned(), 32 << 20));
    }
}
