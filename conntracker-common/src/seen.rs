//! Keys and values of the kernel's deduplication maps (`SEEN_FLOWS`, `SEEN_DROPS`).

/// Key of a flow (or of a drop) that was reported already.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenKey {
    /// Network namespace cookie.
    pub netns_cookie: u64,
    /// Source address; IPv4 as `::ffff:a.b.c.d`.
    pub src: [u8; 16],
    /// Destination address; IPv4 as `::ffff:a.b.c.d`.
    pub dst: [u8; 16],
    /// As in [`crate::record::Tuple4::src_l4`], folded when folding is on.
    pub src_l4: [u8; 2],
    /// As in [`crate::record::Tuple4::dst_l4`].
    pub dst_l4: [u8; 2],
    /// Conntrack zone id.
    pub zone: u16,
    /// IP protocol number.
    pub proto: u8,
    /// [`CLASS_CONNTRACK`] or [`CLASS_HEADERS`].
    pub class: u8,
}

/// The key was taken from a conntrack entry's original tuple.
pub const CLASS_CONNTRACK: u8 = 0;
/// The key was taken from the headers of a packet without a conntrack entry.
pub const CLASS_HEADERS: u8 = 1;

/// What is remembered of a key.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenValue {
    /// When this entry was made (nanoseconds since boot); names this life of the entry.
    pub since_ns: u64,
    /// When it was last counted (nanoseconds since boot).
    pub last_ns: u64,
    /// Flows (or dropped packets) counted.
    pub count: u64,
    /// 1 once the reply was reported.
    pub replied: u64,
}

/// Value of [`Mode::report`]: each flow has a record of its own (`--no-fold`, and while the first dump runs).
pub const REPORT_EACH: u32 = 0;
/// Value of [`Mode::report`]: a folded key has one record, then only a count.
pub const REPORT_FOLDED: u32 = 1;

/// The one value of map `MODE`: what the agent may change while the programs run.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// [`REPORT_EACH`] or [`REPORT_FOLDED`].
    pub report: u32,
    /// 1: deduplication keys are folded; 0: they are the tuples as they are.
    pub fold: u32,
}

const _: () = {
    assert!(size_of::<SeenKey>() == 48);
    assert!(size_of::<SeenValue>() == 32);
};
