//! Keys and values of the maps in which the programs count: `SEEN_FLOWS`, `DROPS_0` and `DROPS_1`.

/// Key of a flow that was reported already.
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
    /// Zero.
    pub reserved: u8,
}

/// Key of dropped packets that are counted together.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropKey {
    /// Network namespace cookie.
    pub netns_cookie: u64,
    /// Hash of the path on which the packet was dropped ([`crate::path::PathBody::path_hash`]); 0: it was
    /// not traced.
    pub path_hash: u64,
    /// Source address; IPv4 as `::ffff:a.b.c.d`.
    pub src: [u8; 16],
    /// Destination address; IPv4 as `::ffff:a.b.c.d`.
    pub dst: [u8; 16],
    /// As in [`crate::record::Tuple4::src_l4`]; folded when folding is on and the tuple is a conntrack
    /// entry's. Headers do not say which direction they are of, so they are never folded.
    pub src_l4: [u8; 2],
    /// As in [`crate::record::Tuple4::dst_l4`].
    pub dst_l4: [u8; 2],
    /// Interface index of the packet's input, 0 for none.
    pub iif: u32,
    /// Interface index of the packet's output, 0 for none.
    pub oif: u32,
    /// Conntrack zone id.
    pub zone: u16,
    /// IP protocol number.
    pub proto: u8,
    /// Netfilter hook number, or [`crate::record::HOOK_UNKNOWN`].
    pub hook: u8,
    /// [`crate::record::FLAG_FROM_HEADERS`] and [`crate::record::FLAG_LOST`].
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// Of lost packets: `enum skb_drop_reason` (Linux 5.17+). Of those that netfilter dropped: one of
    /// `CONNTRACK_` ([`crate::record`]).
    pub reason: u32,
    /// Of lost packets without a reason of their own: the address to which the function returns that dropped
    /// them; else 0.
    pub location: u64,
}

/// What is counted of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropValue {
    /// When the first packet was dropped (nanoseconds since boot).
    pub first_ns: u64,
    /// When the last packet was dropped (nanoseconds since boot).
    pub last_ns: u64,
    /// Packets.
    pub count: u64,
}

/// What is remembered of a key.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenValue {
    /// When this entry was made (nanoseconds since boot); names this life of the entry.
    pub since_ns: u64,
    /// When it was last counted (nanoseconds since boot).
    pub last_ns: u64,
    /// Flows counted.
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
    /// 0: drops are counted in map `DROPS_0`; 1: in `DROPS_1`. The agent empties the other one.
    pub drops: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<SeenKey>() == 48);
    assert!(size_of::<SeenValue>() == 32);
    assert!(size_of::<DropKey>() == 80);
    assert!(size_of::<DropValue>() == 24);
    assert!(size_of::<Mode>() == 16);
};
