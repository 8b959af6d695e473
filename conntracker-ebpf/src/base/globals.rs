//! Read-only globals that the agent fills in before load. The kernel freezes them, so the verifier
//! takes each for a constant.

use conntracker_common::{
    ABI_VERSION,
    end::EndNumbers,
    loops,
    offsets::{EndOffsets, NftOffsets, Offsets, OwnerOffsets, TableOffsets},
    owner::OwnerNumbers,
    probes::{ABSENT, Arguments},
    table::TableNumbers,
};

/// Checked by the agent before anything is loaded.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".conntracker.abi")]
pub static ABI: u8 = ABI_VERSION;

/// Member offsets of the running kernel.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::ZERO;

/// Offsets that only probes in nf_tables need.
#[unsafe(no_mangle)]
pub static NFT_OFFSETS: NftOffsets = NftOffsets::ZERO;

/// Offsets that only ends of flows need.
#[unsafe(no_mangle)]
pub static END_OFFSETS: EndOffsets = EndOffsets::ZERO;

/// Numbers that ends of flows need.
#[unsafe(no_mangle)]
pub static END_NUMBERS: EndNumbers = EndNumbers::ZERO;

/// Offsets that only owners of sockets need.
#[unsafe(no_mangle)]
pub static OWNER_OFFSETS: OwnerOffsets = OwnerOffsets::ZERO;

/// Numbers that owners of sockets need.
#[unsafe(no_mangle)]
pub static OWNER_NUMBERS: OwnerNumbers = OwnerNumbers::ZERO;

/// Offsets that only reading the table needs.
#[unsafe(no_mangle)]
pub static TABLE_OFFSETS: TableOffsets = TableOffsets::ZERO;

/// Numbers that reading the table needs.
#[unsafe(no_mangle)]
pub static TABLE_NUMBERS: TableNumbers = TableNumbers::ZERO;

/// Where probes find arguments.
#[unsafe(no_mangle)]
pub static ARGUMENTS: Arguments = Arguments::ZERO;

/// 1: programs in functions of the kernel see packets; 0: links do.
#[unsafe(no_mangle)]
pub static PROBES: u32 = 0;

/// `SKB_DROP_REASON_NETFILTER_DROP` of the running kernel; the number differs between kernels. 0: it
/// has none.
#[unsafe(no_mangle)]
pub static DROP_REASON: u32 = 0;

/// Where, without such a reason, the code lies that drops packets for netfilter: pairs of address and
/// length.
#[unsafe(no_mangle)]
pub static DROP_SPANS: [u64; 4] = [0; 4];

/// 1: packets are reported that the kernel drops elsewhere than in netfilter, too.
#[unsafe(no_mangle)]
pub static LOST_PACKETS: u32 = 0;

/// `SKB_DROP_REASON_NOT_SPECIFIED`: the reason of drops that have none of their own.
#[unsafe(no_mangle)]
pub static NO_REASON: u32 = 0;

/// Reasons that are not told: no packet is lost by them. A bit for each of the first 256.
#[unsafe(no_mangle)]
pub static UNTOLD_REASONS: [u64; 4] = [0; 4];

/// Where [`conntracker_common::offsets::STAT_MEMBERS`] are; [`ABSENT`] where BTF does not tell.
#[unsafe(no_mangle)]
pub static STATS: [u32; 4] = [ABSENT; 4];

/// The reader is woken whenever the ring's fill crosses a multiple of this many bytes (a power of
/// two); below that it drains by timer.
#[unsafe(no_mangle)]
pub static WAKE_BYTES: u64 = 1 << 20;

/// How loops of many rounds are run ([`loops`]).
#[unsafe(no_mangle)]
pub static LOOPS: u32 = loops::NONE;

/// Sets of the cache of known paths, a power of two.
#[unsafe(no_mangle)]
pub static PATH_CACHE_SETS: u32 = 1;

/// Key of [`crate::packet::hash`], random.
#[unsafe(no_mangle)]
pub static HASH_KEY: [u64; 2] = [0; 2];

/// Offsets of `task_struct.nvcsw` and `task_struct.nivcsw`; [`ABSENT`] where BTF does not tell.
#[unsafe(no_mangle)]
pub static SWITCHES: [u32; 2] = [ABSENT; 2];

/// 1: rules are traced; 0: the programs that flows need do nothing for it.
#[unsafe(no_mangle)]
pub static TRACE_RULES: u32 = 0;

/// Reads a global the agent filled in. Volatile: the compiler must not fold the value it sees here.
#[inline(always)]
pub fn frozen<T: Copy>(global: &'static T) -> T {
    // SAFETY: a plain read of an initialised static.
    unsafe { core::ptr::read_volatile(global) }
}

/// Offset of one kernel struct member.
macro_rules! offset {
    ($field:ident) => {
        $crate::base::globals::frozen(&$crate::base::globals::OFFSETS.$field) as usize
    };
}
pub(crate) use offset;

/// Offset of a member of nf_tables' structures.
macro_rules! nft_offset {
    ($field:ident) => {
        $crate::base::globals::frozen(&$crate::base::globals::NFT_OFFSETS.$field) as usize
    };
}
pub(crate) use nft_offset;

/// Offset of a member that ends of flows need.
macro_rules! end_offset {
    ($field:ident) => {
        $crate::base::globals::frozen(&$crate::base::globals::END_OFFSETS.$field) as usize
    };
}
pub(crate) use end_offset;

/// A number that ends of flows need.
macro_rules! end_number {
    ($field:ident) => {
        $crate::base::globals::frozen(&$crate::base::globals::END_NUMBERS.$field)
    };
}
pub(crate) use end_number;

/// Offset of a member that owners of sockets need.
macro_rules! owner_offset {
    ($field:ident) => {
        $crate::base::globals::frozen(&$crate::base::globals::OWNER_OFFSETS.$field) as usize
    };
}
pub(crate) use owner_offset;

/// A number that owners of sockets need.
macro_rules! owner_number {
    ($field:ident) => {
        $crate::base::globals::frozen(&$crate::base::globals::OWNER_NUMBERS.$field)
    };
}
pub(crate) use owner_number;

/// Offset of a member that reading the table needs.
macro_rules! table_offset {
    ($field:ident) => {
        $crate::base::globals::frozen(&$crate::base::globals::TABLE_OFFSETS.$field) as usize
    };
}
pub(crate) use table_offset;

/// A number that reading the table needs.
macro_rules! table_number {
    ($field:ident) => {
        $crate::base::globals::frozen(&$crate::base::globals::TABLE_NUMBERS.$field)
    };
}
pub(crate) use table_number;

/// Where an argument is in the context.
macro_rules! argument {
    ($field:ident) => {
        $crate::base::globals::frozen(&$crate::base::globals::ARGUMENTS.$field)
    };
}
pub(crate) use argument;

/// Whether probes are kprobes.
#[inline(always)]
pub fn is_kprobe() -> bool {
    argument!(kprobes) != 0
}

/// [`PROBES`].
#[inline(always)]
pub fn probes() -> bool {
    frozen(&PROBES) != 0
}

/// [`DROP_REASON`].
#[inline(always)]
pub fn drop_reason() -> u32 {
    frozen(&DROP_REASON)
}

/// Whether an address is in [`DROP_SPANS`].
#[inline(always)]
pub fn is_drop_site(address: u64) -> bool {
    let [first, first_len, second, second_len] = &DROP_SPANS;
    address.wrapping_sub(frozen(first)) < frozen(first_len)
        || address.wrapping_sub(frozen(second)) < frozen(second_len)
}

/// [`LOST_PACKETS`].
#[inline(always)]
pub fn tells_lost_packets() -> bool {
    frozen(&LOST_PACKETS) != 0
}

/// Whether a reason is one of [`UNTOLD_REASONS`].
#[inline(always)]
pub fn is_untold(reason: u32) -> bool {
    let [a, b, c, d] = &UNTOLD_REASONS;
    let word = match reason >> 6 {
        0 => frozen(a),
        1 => frozen(b),
        2 => frozen(c),
        3 => frozen(d),
        _ => 0,
    };
    word >> (reason & 63) & 1 != 0
}

/// [`WAKE_BYTES`].
#[inline(always)]
pub fn wake_bytes() -> u64 {
    frozen(&WAKE_BYTES)
}

/// [`PATH_CACHE_SETS`].
#[inline(always)]
pub fn path_cache_sets() -> u32 {
    frozen(&PATH_CACHE_SETS)
}

/// [`LOOPS`].
#[inline(always)]
pub fn how_to_loop() -> u32 {
    frozen(&LOOPS)
}

/// [`TRACE_RULES`].
#[inline(always)]
pub fn trace_rules() -> bool {
    frozen(&TRACE_RULES) != 0
}
