//! The BPF object: embedded at build time, loaded in two steps.
//!
//! aya loads the maps and the tracepoint program. It has no netfilter program type, so the same
//! bytes are parsed once more, relocated against aya's maps, and loaded by [`super::sys`].

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf},
    programs::RawTracePoint,
};
use aya_obj::generated::bpf_insn;
use conntracker_common::{
    ABI_SECTION, ABI_VERSION,
    counters::{COUNTERS, Counter},
    hooks::FUNCTIONS,
    seen::Mode,
};
use object::{Object as _, ObjectSection as _};

use super::{
    offsets::Layout,
    record::{Seen, SeenKeyBytes, SeenValueBytes},
    sys,
};
use crate::kernel::netns::Netns;

/// The BPF object, or nothing in a build without an eBPF toolchain (see build.rs).
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/conntracker.bpf.o"));

/// Name of the netfilter program.
const FLOW_END: &str = "flow_end";
/// Name of the program that lists hook functions.
const LIST_HOOKS: &str = "list_hooks";
/// Name of the tracepoint program, and of its tracepoint.
const NETFILTER_DROP: (&str, &str) = ("netfilter_drop", "kfree_skb");

/// Sizes of the kernel side.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of the ring buffer; rounded up to a power of two of pages.
    pub ring_bytes: u32,
    /// Entries of each deduplication map.
    pub seen_entries: u32,
}

impl Default for Sizes {
    /// 16 MiB hold 160,000 IPv4 records; the maps take about 20 MiB each.
    fn default() -> Self {
        Self { ring_bytes: 16 << 20, seen_entries: 131_072 }
    }
}

/// Which deduplication map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeenMap {
    /// Flows.
    Flows,
    /// Drops.
    Drops,
}

/// The loaded programs and maps.
pub struct Programs {
    ebpf: Ebpf,
    flow_end: OwnedFd,
    list_hooks: OwnedFd,
    #[cfg(feature = "bpf-log")]
    logger: aya_log::EbpfLogger<&'static dyn log::Log>,
}

impl Programs {
    /// Loads everything; attaches nothing.
    pub fn load(layout: &Layout, sizes: Sizes) -> Result<Self> {
        check_abi(OBJECT)?;
        let offsets = layout.offsets.to_array();
        // Woken four times per ring: early enough to drain, seldom enough to cost nothing.
        let wake_bytes = (u64::from(sizes.ring_bytes) / 4).next_power_of_two();
        let mut ebpf = EbpfLoader::new()
            .override_global("OFFSETS", offsets.as_slice(), true)
            .override_global("DROP_REASON", &layout.drop_reason, true)
            .override_global("WAKE_BYTES", &wake_bytes, true)
            .map_max_entries("RECORDS", sizes.ring_bytes)
            .map_max_entries("SEEN_FLOWS", sizes.seen_entries)
            .map_max_entries("SEEN_DROPS", sizes.seen_entries)
            .load(OBJECT)
            .context("cannot create the BPF maps")?;
        let raw = RawObject::relocated(&ebpf)?;
        let flow_end = raw.load(FLOW_END, sys::load_netfilter)?;
        let list_hooks = raw.load(LIST_HOOKS, sys::load_syscall)?;
        let program: &mut RawTracePoint = ebpf
            .program_mut(NETFILTER_DROP.0)
            .context("the BPF object has no drop program")?
            .try_into()?;
        program.load().context("the kernel refused the drop program")?;
        Ok(Self {
            #[cfg(feature = "bpf-log")]
            logger: aya_log::EbpfLogger::init(&mut ebpf)
                .context("the BPF programs do not log: build with `cargo xtask build --bpf-log`")?,
            ebpf,
            flow_end,
            list_hooks,
        })
    }

    /// The netfilter program, to be attached by [`super::links`].
    #[must_use]
    pub fn flow_end(&self) -> BorrowedFd<'_> {
        self.flow_end.as_fd()
    }

    /// Attaches the drop program; it is detached when `self` is dropped.
    pub fn attach_drops(&mut self) -> Result<()> {
        let program: &mut RawTracePoint = self
            .ebpf
            .program_mut(NETFILTER_DROP.0)
            .context("the BPF object has no drop program")?
            .try_into()?;
        program.attach(NETFILTER_DROP.1).context("cannot attach to tracepoint kfree_skb")?;
        Ok(())
    }

    /// Reports drops of the namespace with this cookie.
    pub fn trace_netns(&mut self, cookie: u64) -> Result<()> {
        let mut traced: HashMap<_, u64, u8> = HashMap::try_from(self.map_mut("TRACED_NETNS")?)?;
        traced.insert(cookie, 1, 0)?;
        Ok(())
    }

    /// Changes what is reported from now on.
    pub fn set_mode(&mut self, mode: Mode) -> Result<()> {
        let Mode { report, fold } = mode;
        let mut map: Array<_, [u32; 2]> = Array::try_from(self.map_mut("MODE")?)?;
        map.set(0, [report, fold], 0)?;
        Ok(())
    }

    /// Takes the ring; there is one.
    pub fn take_ring(&mut self) -> Result<RingBuf<MapData>> {
        let map = self.ebpf.take_map("RECORDS").context("the ring was taken already")?;
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
        Ok(Counters(values))
    }

    /// All entries of a deduplication map that were counted. Entries that come or go meanwhile may
    /// be missed; undecodable ones are left out.
    pub fn seen(&self, which: SeenMap) -> Result<Vec<Seen>> {
        let name = match which {
            SeenMap::Flows => "SEEN_FLOWS",
            SeenMap::Drops => "SEEN_DROPS",
        };
        let map: HashMap<_, SeenKeyBytes, SeenValueBytes> = HashMap::try_from(self.map(name)?)?;
        // An entry evicted between its key's and its value's lookup is an error of that entry only.
        Ok(map
            .iter()
            .flatten()
            .filter_map(|(key, value)| Seen::decode(&key, &value).ok())
            .collect())
    }

    /// Addresses of the functions on PREROUTING in `netns`, IPv4's and IPv6's, in order.
    pub fn prerouting_functions(&self, netns: &Netns) -> Result<[Vec<u64>; 2]> {
        let failed = netns.enter(|| sys::run(self.list_hooks.as_fd()))?;
        if failed != 0 {
            bail!("the kernel's hook tables could not be read");
        }
        let map: Array<_, [u64; FUNCTIONS + 1]> = Array::try_from(self.map("HOOK_FUNCTIONS")?)?;
        let list = |family: u32| -> Result<Vec<u64>> {
            let [count, functions @ ..] = map.get(&family, 0)?;
            Ok(functions.into_iter().take(count as usize).collect())
        };
        Ok([list(0)?, list(1)?])
    }

    fn map(&self, name: &str) -> Result<&Map> {
        self.ebpf.map(name).with_context(|| format!("the BPF object has no map {name}"))
    }

    fn map_mut(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf.map_mut(name).with_context(|| format!("the BPF object has no map {name}"))
    }
}

/// Values of all [`Counter`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters([u64; COUNTERS as usize]);

impl Counters {
    /// One counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }
}

/// Refuses an object of another ABI, and a build without an object.
fn check_abi(bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() {
        bail!("this build has no BPF object: run `cargo xtask build`");
    }
    let file = object::File::parse(bytes).context("the BPF object is not an ELF file")?;
    let section = file
        .section_by_name(ABI_SECTION)
        .context("the BPF object does not state its ABI version")?;
    match section.data()? {
        [ABI_VERSION] => Ok(()),
        found => bail!(
            "the BPF object has ABI version {found:?}, the agent [{ABI_VERSION}]: run `cargo xtask build`"
        ),
    }
}

/// The object parsed a second time, for the program types that aya does not have.
struct RawObject(aya_obj::Object);

impl RawObject {
    /// Relocated against the maps that aya has made.
    fn relocated(ebpf: &Ebpf) -> Result<Self> {
        let mut obj = aya_obj::Object::parse(OBJECT)?;
        let maps: Vec<(String, RawFd, aya_obj::Map)> = obj
            .maps
            .drain()
            .map(|(name, map)| {
                let fd = ebpf
                    .map(&name)
                    .and_then(map_fd)
                    .with_context(|| format!("aya did not create map {name}"))?;
                Ok((name, fd, map))
            })
            .collect::<Result<_>>()?;
        let text = obj.functions.keys().map(|(section, _)| *section).collect();
        obj.relocate_maps(maps.iter().map(|(name, fd, map)| (name.as_str(), *fd, map)), &text)?;
        obj.relocate_calls(&text)?;
        obj.sanitize_functions(aya::features());
        Ok(Self(obj))
    }

    /// Loads one program by way of `load`.
    fn load(
        &self,
        name: &str,
        load: impl FnOnce(&str, &[bpf_insn]) -> Result<OwnedFd, sys::LoadError>,
    ) -> Result<OwnedFd> {
        let Self(obj) = self;
        let function = obj
            .programs
            .get(name)
            .and_then(|program| obj.functions.get(&program.function_key()))
            .with_context(|| format!("the BPF object has no program {name}"))?;
        Ok(load(name, &function.instructions)?)
    }
}

/// Descriptor of one of our maps.
fn map_fd(map: &Map) -> Option<RawFd> {
    match map {
        Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::RingBuf(data) => Some(data.fd().as_fd().as_raw_fd()),
        _ => None,
    }
}
