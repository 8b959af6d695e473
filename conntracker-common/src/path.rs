//! Ring record of one packet's way through one hook: a [`PathHead`], as many words of [`event`]s and then
//! [`Moved`] as it says, then the tuples of the header's family: original and reply direction at the end
//! of the hook, and, with [`PATH_NAT`], the reply direction at its beginning; then [`Marks`] for each
//! border between base chains that the packet passed.

use crate::record::{FlowBody, Header};

/// A packet left the last base chain of a hook, or was dropped before ([`PathBody::dropped`]).
pub const KIND_PATH: u8 = 4;

/// Other packets were between the same links meanwhile, and moved counters that count here, too.
pub const PATH_NESTED: u8 = 1;
/// More than [`MAX_MOVED`] counters moved, or events did not fit.
pub const PATH_TRUNCATED: u8 = 2;
/// An address was translated. If none had been before (the status tells), the reply direction was the
/// original one turned round, else the third tuple.
pub const PATH_NAT: u8 = 8;

/// A packet left this machine while this one was at a hook that softirqs alone run (PREROUTING, INPUT,
/// FORWARD): a rule of this hook sent it, a reject as a rule.
pub const PATH_ANSWERED: u8 = 32;

/// Seen by probes in functions of the kernel: [`event`]s tell the base chains that the packet met.
pub const PATH_PROBED: u8 = 16;

/// Counters that one record can name.
pub const MAX_MOVED: usize = 64;

/// Words of 32 bits of the [`event`]s of one record.
pub const MAX_EVENT_WORDS: usize = 118;

/// Both together.
pub const MAX_LIST: usize = MAX_MOVED + MAX_EVENT_WORDS;

/// What probes in the kernel's functions saw of a packet, in order: numbers of 64 bits, low half first.
/// The lowest three bits, which are zero in the address of an expression of nf_tables, tell what a number
/// is; the others are its value.
pub mod event {
    /// A rule of nf_tables gave no verdict, or the one that it has: the address of its last expression.
    pub const RULE: u64 = 0;
    /// A base chain begins: its number among those of the place, shifted by [`SHIFT`].
    pub const ENTER: u64 = 1;
    /// A base chain ends: what its function returned (low 32 bits), shifted by [`SHIFT`].
    pub const LEAVE: u64 = 2;
    /// As [`RULE`], with the verdict in the next number (`nft_verdict.code`), and behind
    /// [`NFT_JUMP`] and [`NFT_GOTO`] the address of the chain.
    pub const VERDICT: u64 = 3;
    /// A target of ip_tables ran: the address of its data; what it returned is the next number.
    pub const TARGET: u64 = 4;

    /// The bits that tell.
    pub const TAG: u64 = 7;
    /// Bits by which numbers are shifted that are no addresses.
    pub const SHIFT: u32 = 8;

    /// `enum nft_verdicts` (include/uapi/linux/netfilter/nf_tables.h).
    pub const NFT_CONTINUE: i32 = -1;
    /// The rule does not match.
    pub const NFT_BREAK: i32 = -2;
    /// To a chain, and back.
    pub const NFT_JUMP: i32 = -3;
    /// To a chain.
    pub const NFT_GOTO: i32 = -4;
    /// Out of the chain.
    pub const NFT_RETURN: i32 = -5;

    /// What targets of xtables return besides netfilter's verdicts
    /// (include/uapi/linux/netfilter/x_tables.h): on to the next rule,
    pub const XT_CONTINUE: u32 = u32::MAX;
    /// and out of the chain.
    pub const XT_RETURN: u32 = (-5i32).cast_unsigned();
}

/// What happened between the links, besides what [`FlowBody`] says of the end.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathBody {
    /// Epoch of the plan.
    pub epoch: u32,
    /// `sk_buff.mark` at the beginning.
    pub packet_mark: u32,
    /// `nf_conn.mark` at the beginning.
    pub ct_mark: u32,
    /// `nf_conn.status` at the beginning: whether NAT was set up then.
    pub status: u32,
    /// `enum ip_conntrack_info` of the packet; 7 is untracked.
    pub info: u8,
    /// 1: the packet was dropped.
    pub dropped: u8,
    /// Segment of the hook.
    pub segment: u8,
    /// Borders between base chains that the packet passed: links, or with [`PATH_PROBED`] the beginning
    /// of each chain but the first.
    pub gaps: u8,
    /// `PATH_` bits.
    pub flags: u8,
    /// Number of counters that moved.
    pub moved: u8,
    /// Words of [`event`]s.
    pub events: u8,
    /// Zero.
    pub reserved: u8,
    /// Name of the interface of input as the hook's functions are told, zero for none.
    /// [`FlowBody`] has its index.
    pub iif_name: DeviceName,
    /// The same of the output.
    pub oif_name: DeviceName,
    /// Hash of the path: what it tells apart from others at the same hook. Dropped packets are counted by
    /// it ([`crate::seen::DropKey::path_hash`]).
    pub path_hash: u64,
}

/// `net_device.name` (IFNAMSIZ), as words: that is how it is copied.
pub type DeviceName = [u64; 2];

/// A counter that moved.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Slot of the counter in its plan.
    pub slot: u16,
    /// Packets that it moved by, at most `u16::MAX`.
    pub packets: u16,
}

/// The marks of a packet at a link between base chains.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// `sk_buff.mark`.
    pub packet: u32,
    /// `nf_conn.mark`, 0 without a conntrack entry.
    pub connection: u32,
}

/// What every record begins with.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathHead {
    /// Header.
    pub header: Header,
    /// The flow, and the packet at the end.
    pub flow: FlowBody,
    /// The way.
    pub path: PathBody,
}

const _: () = {
    assert!(size_of::<PathBody>() == 64);
    assert!(size_of::<Moved>() == 4);
    assert!(size_of::<Marks>() == 8);
    assert!(size_of::<PathHead>() == 24 + 40 + 64);
};
