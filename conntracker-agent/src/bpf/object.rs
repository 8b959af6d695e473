//! The programs that see packets, and their maps.

use std::{
    collections::HashMap as StdHashMap,
    hash::{BuildHasher, RandomState},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use aya::{
    maps::{
        Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues, RingBuf,
    },
    util::nr_cpus,
};
use conntracker_common::{
    counters::COUNTERS,
    loops,
    offsets::NftOffsets,
    plan::{ChainKey, HookedChain, SEGMENT_EARLY, Tracing},
    probes::Arguments,
    seen::{Mode, REPORT_EACH},
};

use super::{
    callbacks,
    counts::{Counters, DropCount, Seen, SeenKeyBytes, SeenValueBytes},
    drops::DropSign,
    end::EndLayout,
    kernel_memory::KernelMemory,
    loader::{self, Loader, long_words, words},
    offsets::Layout,
    owner::OwnerLayout,
    reasons::Reasons,
    sizes::Sizes,
    sys,
};
use crate::netlink::ctnetlink::stats::CpuStats;

/// Name of the netfilter program.
const FLOW_END: &str = "flow_end";
/// Name of the program that reads kernel memory.
pub(super) const READ_MEMORY: &str = "read_memory";
/// Name of the program at tracepoint kfree_skb.
const PACKET_DROPPED: &str = "packet_dropped";

/// Longer than any program runs.
const PROGRAMS_RUN: Duration = Duration::from_millis(50);

/// Which programs see packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeing {
    /// Netfilter programs.
    Links,
    /// Programs in functions of the kernel.
    Probes {
        /// Where they find arguments.
        arguments: Arguments,
        /// Where they find members of nf_tables' structures.
        nft: NftOffsets,
    },
}

/// The loaded programs and maps.
pub struct Programs {
    maps: StdHashMap<String, Map>,
    loader: loader::Programs,
    netfilter: Option<NetfilterPrograms>,
    /// The program at tracepoint kfree_skb, and what keeps it attached there.
    packet_dropped: OwnedFd,
    drops: Option<OwnedFd>,
    memory: KernelMemory,
    /// How they run loops ([`loops`]).
    loops: u32,
    /// Which flows they report.
    mode: Mode,
    #[cfg(feature = "bpf-log")]
    logger: aya_log::EbpfLogger<&'static dyn log::Log>,
}

/// What a link around the base chains of a hook does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Before the first base chain.
    Open,
    /// Between two.
    Gap,
    /// Behind the last one.
    Close,
}

/// Netfilter programs.
struct NetfilterPrograms {
    flow_end: OwnedFd,
    rules: Option<RulePrograms>,
}

/// Netfilter programs around base chains, by role: of the main segment, and of the early one.
struct RulePrograms {
    main: [OwnedFd; 3],
    early: [OwnedFd; 3],
}

impl NetfilterPrograms {
    fn load(programs: &loader::Programs, trace_rules: bool) -> Result<Self> {
        let flow_end = programs.load(FLOW_END, sys::load_netfilter)?;
        let rules = if trace_rules { Some(RulePrograms::load(programs)?) } else { None };
        Ok(Self { flow_end, rules })
    }
}

impl RulePrograms {
    fn load(programs: &loader::Programs) -> Result<Self> {
        let load = |name| programs.load(name, sys::load_netfilter);
        Ok(Self {
            main: [load("hook_open")?, load("hook_gap")?, load("hook_close")?],
            early: [load("early_open")?, load("early_gap")?, load("early_close")?],
        })
    }
}

impl Programs {
    /// Loads the programs for flows and, if wanted, for rules and for packets that another part of the kernel drops
    /// (`lost`); attaches nothing.
    pub fn load(
        layout: &Layout,
        drops: DropSign,
        lost: Option<&Reasons>,
        sizes: Sizes,
        trace_rules: bool,
        seeing: Seeing,
    ) -> Result<Self> {
        // The programs wake the agent four times per ring, which is early enough to drain it and rare enough to cost
        // nothing.
        let wake_bytes = (u64::from(sizes.ring_bytes) / 4).next_power_of_two();
        let loops = match layout.has_loop {
            true => loops::BY_NUMBER,
            false if trace_rules && callbacks::work() => loops::BY_ELEMENT,
            false => loops::NONE,
        };
        let untold = lost.map_or([0; 4], Reasons::untold);
        let (probes, arguments, nft, ends) = match seeing {
            Seeing::Links => (0u32, Arguments::ZERO, NftOffsets::ZERO, EndLayout::NONE),
            Seeing::Probes { arguments, nft } => {
                (1, arguments, nft, *layout.ends.as_ref().unwrap_or(&EndLayout::NONE))
            }
        };
        let owners = layout.owners.as_ref().unwrap_or(&OwnerLayout::NONE);
        let one = |number: u32| words(&[number]);
        let by_element = loops == loops::BY_ELEMENT;
        let (programs, maps) = sizes
            .apply(Loader::new()?, trace_rules, by_element)?
            .constants(&[
                ("OFFSETS", words(&layout.offsets.to_array())),
                ("NFT_OFFSETS", words(&nft.to_array())),
                ("ARGUMENTS", words(&arguments.to_array())),
                ("END_OFFSETS", words(&ends.offsets.to_array())),
                ("END_NUMBERS", words(&ends.numbers.to_array())),
                ("OWNER_OFFSETS", words(&owners.offsets.to_array())),
                ("OWNER_NUMBERS", words(&owners.numbers.to_array())),
                ("PROBES", one(probes)),
                ("LOOPS", one(loops)),
                ("PATH_CACHE_SETS", one(sizes.path_cache_sets(trace_rules))),
                ("HASH_KEY", long_words(&random_key())),
                ("SWITCHES", words(&layout.switches)),
                ("TRACE_RULES", one(trace_rules.into())),
                ("DROP_REASON", one(drops.reason())),
                ("DROP_SPANS", long_words(&drops.spans())),
                ("LOST_PACKETS", one(lost.is_some().into())),
                ("NO_REASON", one(lost.map_or(0, Reasons::not_specified))),
                ("UNTOLD_REASONS", long_words(&untold)),
                ("STATS", words(&layout.stats)),
                ("WAKE_BYTES", long_words(&[wake_bytes])),
            ])?
            .load()?;
        let netfilter = match seeing {
            Seeing::Links => Some(NetfilterPrograms::load(&programs, trace_rules)?),
            Seeing::Probes { .. } => None,
        };
        let memory = KernelMemory::new(
            programs.load(READ_MEMORY, sys::load_syscall)?,
            maps.fd("MEMORY_REQUEST")?,
            maps.fd("MEMORY")?,
        )
        .context("cannot map the maps of program read_memory")?;
        let packet_dropped = programs.load(PACKET_DROPPED, sys::load_raw_tracepoint)?;
        Ok(Self {
            #[cfg(feature = "bpf-log")]
            logger: aya_log::EbpfLogger::init_from_id(sys::program_id(packet_dropped.as_fd())?)
                .context("the BPF programs do not log: build with `cargo xtask build --bpf-log`")?,
            maps: maps.into_typed()?,
            loader: programs,
            netfilter,
            packet_dropped,
            drops: None,
            memory,
            loops,
            mode: Mode { report: REPORT_EACH, fold: 0, drops: 0, reserved: 0 },
        })
    }

    /// The netfilter program, to be attached by [`super::links`]; `None` with probes.
    #[must_use]
    pub fn flow_end(&self) -> Option<BorrowedFd<'_>> {
        Some(self.netfilter.as_ref()?.flow_end.as_fd())
    }

    /// Why the programs cannot read counters of rules; `None` if they can, as on nearly all kernels.
    #[must_use]
    pub fn without_counters(&self) -> Option<&'static str> {
        (self.loops == loops::NONE).then_some(
            "this kernel calls wrong functions of programs back (mended in Linux 5.15.55)",
        )
    }

    /// Loads one of the programs for functions of the kernel.
    pub fn load_probe(
        &self,
        name: &str,
        load: impl FnOnce(&str, sys::Code<'_>) -> Result<OwnedFd, sys::LoadError>,
    ) -> Result<OwnedFd> {
        self.loader.load(name, load)
    }

    /// A program around base chains; `None` if rules are not traced, and with probes.
    #[must_use]
    pub fn rule_program(&self, segment: u8, role: Role) -> Option<BorrowedFd<'_>> {
        let RulePrograms { main, early } = self.netfilter.as_ref()?.rules.as_ref()?;
        let programs = if segment == SEGMENT_EARLY { early } else { main };
        Some(programs[role as usize].as_fd())
    }

    /// Attaches the drop program; it is detached when `self` is dropped.
    pub fn attach_drops(&mut self) -> Result<()> {
        let attached = sys::attach_tracepoint(self.packet_dropped.as_fd(), c"kfree_skb")
            .context("cannot attach to tracepoint kfree_skb")?;
        self.drops = Some(attached);
        Ok(())
    }

    /// Reports drops of the namespace with this cookie, and traces its rules under this number. `stats` are
    /// conntrack's present counters there.
    pub fn trace_netns(&mut self, cookie: u64, number: u32, stats: &[CpuStats]) -> Result<()> {
        let mut counted = vec![[0u32; 3]; nr_cpus().map_err(|(_, error)| error)?];
        for cpu in stats {
            if let Some(counted) = counted.get_mut(usize::from(cpu.cpu)) {
                *counted =
                    [cpu.insert_failed, cpu.chain_toolong, cpu.drop].map(Option::unwrap_or_default);
            }
        }
        let mut known: PerCpuHashMap<_, u64, [u32; 3]> =
            PerCpuHashMap::try_from(self.map_mut("CONNTRACK_STATS")?)?;
        known.insert(cookie, PerCpuValues::try_from(counted)?, 0)?;
        let mut traced: HashMap<_, u64, u32> = HashMap::try_from(self.map_mut("TRACED_NETNS")?)?;
        traced.insert(cookie, number, 0)?;
        Ok(())
    }

    /// The namespace with this cookie is gone.
    pub fn forget_netns(&mut self, cookie: u64) -> Result<()> {
        let mut traced: HashMap<_, u64, u32> = HashMap::try_from(self.map_mut("TRACED_NETNS")?)?;
        let removed = traced.remove(&cookie);
        let mut known: PerCpuHashMap<_, u64, [u32; 3]> =
            PerCpuHashMap::try_from(self.map_mut("CONNTRACK_STATS")?)?;
        // The namespace may never have been observed.
        if_there(known.remove(&cookie))?;
        Ok(if_there(removed)?)
    }

    /// Sets which flows the programs report, each one or each folded key once ([`Mode::report`]), and whether they
    /// fold keys.
    pub fn report(&mut self, report: u32, fold: bool) -> Result<()> {
        self.set_mode(Mode { report, fold: u32::from(fold), ..self.mode })
    }

    fn set_mode(&mut self, mode: Mode) -> Result<()> {
        let Mode { report, fold, drops, reserved } = mode;
        let mut map: Array<_, [u32; 4]> = Array::try_from(self.map_mut("MODE")?)?;
        map.set(0, [report, fold, drops, reserved], 0)?;
        self.mode = mode;
        Ok(())
    }

    /// Takes the counts of dropped packets. The programs count in the other map from now on, and this call waits for
    /// those that are running, so that no packet is missed or counted twice.
    pub fn take_drops(&mut self) -> Result<Vec<DropCount>> {
        let full = if self.mode.drops == 0 { "DROPS_0" } else { "DROPS_1" };
        self.set_mode(Mode { drops: self.mode.drops ^ 1, ..self.mode })?;
        if sys::wait_for_programs().is_err() {
            // membarrier(2) fails with nohz_full and in some sandboxes. Programs run for microseconds.
            thread::sleep(PROGRAMS_RUN);
        }
        let Map::HashMap(map) = self.map(full)? else { bail!("{full} is no hash map") };
        let taken = sys::take_all(map.fd().as_fd()).context("cannot read the counts of drops")?;
        Ok(taken.iter().map(|(key, value)| DropCount::decode(key, value)).collect())
    }

    /// Takes the ring; there is one.
    pub fn take_ring(&mut self) -> Result<RingBuf<MapData>> {
        let map = self.maps.remove("RECORDS").context("the ring was taken already")?;
        Ok(RingBuf::try_from(map)?)
    }

    /// Prints what the programs have logged.
    #[cfg(feature = "bpf-log")]
    pub fn print_log(&mut self) {
        self.logger.flush();
    }

    /// The programs' counters, summed over the CPUs.
    pub fn counters(&self) -> Result<Counters> {
        let map: PerCpuArray<_, u64> = PerCpuArray::try_from(self.map("COUNTERS")?)?;
        let mut values = [0; COUNTERS as usize];
        for (index, value) in (0..).zip(&mut values) {
            *value = map.get(&index, 0)?.iter().sum();
        }
        Ok(Counters::new(values))
    }

    /// All entries of the map of flows. Entries that are added or evicted meanwhile may be missed.
    pub fn seen(&self) -> Result<Vec<Seen>> {
        let map: HashMap<_, SeenKeyBytes, SeenValueBytes> =
            HashMap::try_from(self.map("SEEN_FLOWS")?)?;
        // An entry that was evicted between the lookups of its key and its value is skipped.
        Ok(map.iter().flatten().map(|(key, value)| Seen::decode(&key, &value)).collect())
    }

    /// Changes what is traced from now on.
    pub fn set_tracing(&mut self, tracing: Tracing) -> Result<()> {
        let Tracing { generation, sample, first_netns, sampling, reserved: _ } = tracing;
        let mut map: Array<_, [u64; 3]> = Array::try_from(self.map_mut("TRACING")?)?;
        let first = u64::from(generation) | u64::from(sample) << 32;
        map.set(0, [first, first_netns, u64::from(sampling)], 0)?;
        Ok(())
    }

    /// Sets the hook point of a base chain; `None` removes it.
    pub fn set_chain(&mut self, key: ChainKey, hooked: Option<HookedChain>) -> Result<()> {
        let mut map: HashMap<_, [u64; 2], [u32; 4]> = HashMap::try_from(self.map_mut("CHAINS")?)?;
        let ChainKey { chain, family, hook } = key;
        let key = [chain, u64::from(family) | u64::from(hook) << 32];
        match hooked {
            Some(HookedChain { plan, hook_point, number, first }) => {
                map.insert(key, [plan, hook_point, number, first], 0)?;
            }
            // The entry may have been removed before, for another chain that had the same memory.
            None => if_there(map.remove(&key))?,
        }
        Ok(())
    }

    /// What reads kernel memory.
    pub fn kernel_memory(&mut self) -> &mut KernelMemory {
        &mut self.memory
    }

    pub(super) fn map(&self, name: &str) -> Result<&Map> {
        self.maps.get(name).with_context(|| loader::no_map(name))
    }

    pub(super) fn map_mut(&mut self, name: &str) -> Result<&mut Map> {
        self.maps.get_mut(name).with_context(|| loader::no_map(name))
    }
}

/// A hash key that senders of packets cannot know.
fn random_key() -> [u64; 2] {
    // The standard library seeds its hashers from the kernel's random numbers.
    let word = || RandomState::new().hash_one(0);
    [word(), word()]
}

/// Ignores that a key to be removed does not exist: ENOENT, which aya does not distinguish from other errors.
fn if_there(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        result => result,
    }
}
