//! Numbers of conntrack: `enum ip_conntrack_status` and `enum ip_conntrack_info`
//! (include/uapi/linux/netfilter/nf_conntrack_common.h).

/// `nf_conn.status`: an expectation announced the connection (an FTP data connection, say).
pub const IPS_EXPECTED: u32 = 1 << 0;
/// `nf_conn.status`: packets were seen in both directions.
pub const IPS_SEEN_REPLY: u32 = 1 << 1;
/// `nf_conn.status`: conntrack does not evict the entry early when the table is full.
pub const IPS_ASSURED: u32 = 1 << 2;
/// `nf_conn.status`: the entry is in the hash table.
pub const IPS_CONFIRMED: u32 = 1 << 3;
/// `nf_conn.status`: NAT translates the source.
pub const IPS_SRC_NAT: u32 = 1 << 4;
/// `nf_conn.status`: NAT translates the destination.
pub const IPS_DST_NAT: u32 = 1 << 5;
/// `nf_conn.status`: NAT translates an address or a port (IPS_NAT_MASK).
pub const IPS_NAT: u32 = IPS_SRC_NAT | IPS_DST_NAT;
/// `nf_conn.status`: sequence numbers are adjusted.
pub const IPS_SEQ_ADJUST: u32 = 1 << 6;
/// `nf_conn.status`: NAT has decided about the source.
pub const IPS_SRC_NAT_DONE: u32 = 1 << 7;
/// `nf_conn.status`: NAT has decided about the destination.
pub const IPS_DST_NAT_DONE: u32 = 1 << 8;
/// `nf_conn.status`: the entry was taken out of the hash table.
pub const IPS_DYING: u32 = 1 << 9;
/// `nf_conn.status`: packets do not prolong the timeout.
pub const IPS_FIXED_TIMEOUT: u32 = 1 << 10;
/// `nf_conn.status`: this is no entry but a template, which a rule (`ct zone set`, `CT --zone`) attached to the
/// packet before conntrack saw it.
pub const IPS_TEMPLATE: u32 = 1 << 11;
/// `nf_conn.status`: a flowtable forwards the packets.
pub const IPS_OFFLOAD: u32 = 1 << 14;
/// `nf_conn.status`: hardware forwards the packets.
pub const IPS_HW_OFFLOAD: u32 = 1 << 15;

/// `enum ip_conntrack_info`: a packet in the original direction of a connection that was answered.
pub const IP_CT_ESTABLISHED: u8 = 0;
/// `enum ip_conntrack_info`: the first packet of an expected connection, or an ICMP error about one.
pub const IP_CT_RELATED: u8 = 1;
/// `enum ip_conntrack_info`: a packet of a connection that was not answered yet.
pub const IP_CT_NEW: u8 = 2;
/// `enum ip_conntrack_info`: a packet in the reply direction. Numbers from this one on are of that direction.
pub const IP_CT_ESTABLISHED_REPLY: u8 = 3;
/// `enum ip_conntrack_info`: an ICMP error in the reply direction.
pub const IP_CT_RELATED_REPLY: u8 = 4;
/// `enum ip_conntrack_info`: a rule said `notrack`.
pub const IP_CT_UNTRACKED: u8 = 7;
