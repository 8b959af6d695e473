//! Numbers of conntrack's that records have as the kernel has them.

/// `enum ip_conntrack_info` (include/uapi/linux/netfilter/nf_conntrack_common.h): of an expectation, or an ICMP
/// error.
pub(super) const CT_RELATED: u8 = 1;
/// No reply was seen yet.
pub(super) const CT_NEW: u8 = 2;
/// A reply; the numbers from here on are of the reply direction.
pub(super) const CT_ESTABLISHED_REPLY: u8 = 3;
/// A related packet in the reply direction.
pub(super) const CT_RELATED_REPLY: u8 = 4;
/// A rule said `notrack`.
pub(super) const CT_UNTRACKED: u8 = 7;

/// `nf_conn.status` bit (`enum ip_conntrack_status`): another flow announced it.
pub(super) const IPS_EXPECTED: u32 = 1;
/// `nf_conn.status` bit: NAT has looked at the source address.
pub(super) const IPS_SRC_NAT_DONE: u32 = 1 << 7;
/// `nf_conn.status` bit: NAT has looked at the destination address.
pub(super) const IPS_DST_NAT_DONE: u32 = 1 << 8;
