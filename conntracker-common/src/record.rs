//! Ring buffer records: a [`Header`], a [`FlowBody`], and two tuples of the header's family.
//!
//! A record is as long as it needs to be: [`FlowRecord4`] for IPv4, [`FlowRecord6`] for IPv6.
//! Numbers are in host byte order, addresses and [`Tuple4::src_l4`] in network byte order, as they
//! stand in the kernel's `struct nf_conntrack_tuple` (include/net/netfilter/nf_conntrack_tuple.h).

/// A conntrack entry that no packet of its own had confirmed yet: a new flow.
pub const KIND_NEW: u8 = 1;
/// The first packet of the reply direction of a flow.
pub const KIND_REPLIED: u8 = 2;
/// A packet that netfilter dropped (`SKB_DROP_REASON_NETFILTER_DROP`).
pub const KIND_DROP: u8 = 3;

/// An IP packet that another part of the kernel dropped than netfilter.
pub const KIND_LOST: u8 = 6;

/// A new flow that another one's helper expected: the second tuple is the original direction of that one, its parent.
pub const KIND_PARENT: u8 = 7;

/// AF_INET, family of a record with [`Tuple4`]s.
pub const FAMILY_V4: u8 = 2;
/// AF_INET6, family of a record with [`Tuple6`]s.
pub const FAMILY_V6: u8 = 10;

/// The tuples come from the packet's headers: it had no conntrack entry.
pub const FLAG_FROM_HEADERS: u8 = 1;
/// [`FlowBody::count`] counts all flows of the folded key, not only this one. Of a dropped packet: it is
/// counted in the map of drops, too.
pub const FLAG_COUNTED: u8 = 2;
/// The packet was a fragment without a transport header: ports and ICMP fields are zero.
pub const FLAG_FRAGMENT: u8 = 4;
/// [`FlowBody::iif`] and [`FlowBody::oif`] were known (0 then means "none").
pub const FLAG_INTERFACES: u8 = 8;

/// An [`Owner`] follows the tuples.
///
/// [`Owner`]: crate::owner::Owner
pub const FLAG_OWNER: u8 = 16;

/// Of a key of dropped packets only: they are of [`KIND_LOST`].
pub const FLAG_LOST: u8 = 32;

/// What conntrack's own functions dropped a packet for: nothing, it was another function of netfilter.
pub const CONNTRACK_PASSED: u32 = 0;
/// No entry could be made: the table is full, or there is no memory.
pub const CONNTRACK_FULL: u32 = 1;
/// The entry could not be inserted: another one has its original or its reply tuple (`insert_failed`).
pub const CONNTRACK_INSERT_FAILED: u32 = 2;
/// The entry could not be inserted: too many have its hash (`chaintoolong`, Linux 5.15+).
pub const CONNTRACK_CHAIN_TOO_LONG: u32 = 3;
/// Another reason for which `drop` is counted.
pub const CONNTRACK_OTHER: u32 = 4;

/// [`FlowBody::hook`] of a packet whose netfilter hook is not known.
pub const HOOK_UNKNOWN: u8 = 0xff;

/// Starts every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// One of the `KIND_` constants.
    pub kind: u8,
    /// [`crate::ABI_VERSION`].
    pub version: u8,
    /// Length of the whole record in bytes.
    pub len: u16,
    /// CPU that made the record.
    pub cpu: u32,
    /// `bpf_ktime_get_boot_ns`: nanoseconds since boot, suspended time included.
    pub ktime_ns: u64,
    /// `net->net_cookie` of the packet's network namespace (SO_NETNS_COOKIE, Linux 5.14+).
    pub netns_cookie: u64,
}

/// What is known of the flow besides its tuples.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowBody {
    /// `nf_conn.status` (IPS_ bits), 0 without a conntrack entry.
    pub status: u32,
    /// `nf_conn.mark`, the connmark.
    pub ct_mark: u32,
    /// `sk_buff.mark`, the packet mark.
    pub packet_mark: u32,
    /// Interface index of the packet's input, 0 for locally generated packets.
    pub iif: u32,
    /// Interface index of the packet's output, 0 for locally delivered packets.
    pub oif: u32,
    /// With [`FLAG_COUNTED`]: flows of this key since `since_ns`; `u32::MAX` means that many or more. Of a
    /// dropped or lost packet: [`crate::seen::DropKey::reason`].
    pub count: u32,
    /// With [`FLAG_COUNTED`]: when counting began; tells one life of a kernel map entry from the
    /// next (nanoseconds since boot). Of a dropped packet: [`crate::seen::DropKey::path_hash`];
    /// of a lost one: [`crate::seen::DropKey::location`].
    pub since_ns: u64,
    /// Conntrack zone id.
    pub zone: u16,
    /// `nf_conntrack_zone.dir`: 1 original, 2 reply, 3 both directions.
    pub zone_dir: u8,
    /// IP protocol number.
    pub proto: u8,
    /// Netfilter hook number (`enum nf_inet_hooks`), or [`HOOK_UNKNOWN`].
    pub hook: u8,
    /// `FLAG_` bits.
    pub flags: u8,
    /// AF_INET or AF_INET6: which tuples follow.
    pub family: u8,
    /// IP protocol number of another flow, which the second tuple is of: with [`KIND_PARENT`] the parent; with
    /// [`FLAG_FROM_HEADERS`], of ICMP errors, the flow that they quote. 0: the second tuple is of no other flow.
    pub other_proto: u8,
}

/// One direction of an IPv4 flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple4 {
    /// Source address.
    pub src: [u8; 4],
    /// Destination address.
    pub dst: [u8; 4],
    /// `tuple.src.u`: source port, ICMP identifier or GRE key.
    pub src_l4: [u8; 2],
    /// `tuple.dst.u`: destination port, ICMP type and code, or GRE key.
    pub dst_l4: [u8; 2],
}

/// One direction of an IPv6 flow; fields as in [`Tuple4`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple6 {
    /// Source address.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
    /// See [`Tuple4::src_l4`].
    pub src_l4: [u8; 2],
    /// See [`Tuple4::dst_l4`].
    pub dst_l4: [u8; 2],
}

/// A record of an IPv4 flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRecord4 {
    /// Header.
    pub header: Header,
    /// Body.
    pub body: FlowBody,
    /// Original direction, or the headers of the dropped packet.
    pub orig: Tuple4,
    /// Reply direction, or of another flow ([`FlowBody::other_proto`]), or zero.
    pub reply: Tuple4,
}

/// A record of an IPv6 flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRecord6 {
    /// Header.
    pub header: Header,
    /// Body.
    pub body: FlowBody,
    /// Original direction, or the headers of the dropped packet.
    pub orig: Tuple6,
    /// Reply direction, or of another flow ([`FlowBody::other_proto`]), or zero.
    pub reply: Tuple6,
}

const _: () = {
    assert!(size_of::<Header>() == 24);
    assert!(size_of::<FlowBody>() == 40);
    assert!(size_of::<FlowRecord4>() == 24 + 40 + 2 * 12);
    assert!(size_of::<FlowRecord6>() == 24 + 40 + 2 * 36);
    assert!(size_of::<FlowRecord4>().is_multiple_of(8));
    assert!(size_of::<FlowRecord6>().is_multiple_of(8));
};
