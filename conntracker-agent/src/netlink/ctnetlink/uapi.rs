//! Numbers of ctnetlink: include/uapi/linux/netfilter/nfnetlink_conntrack.h, nfnetlink.h and
//! nfnetlink_compat.h. Numbers inside attributes are in network byte order unless said otherwise.

/// Subsystem of conntrack entries, the high byte of a message type.
pub const NFNL_SUBSYS_CTNETLINK: u8 = 1;

/// An entry: in dumps, in NEW and UPDATE events, and the request to create or change one.
pub const IPCTNL_MSG_CT_NEW: u8 = 0;
/// Request for one entry, or a dump of all.
pub const IPCTNL_MSG_CT_GET: u8 = 1;
/// The end of an entry, and the request for it.
pub const IPCTNL_MSG_CT_DELETE: u8 = 2;
/// As `IPCTNL_MSG_CT_GET`, and sets the counters back to zero.
pub const IPCTNL_MSG_CT_GET_CTRZERO: u8 = 3;
/// Statistics of each CPU.
pub const IPCTNL_MSG_CT_GET_STATS_CPU: u8 = 4;
/// Statistics of the network namespace: `CTA_STATS_GLOBAL_`.
pub const IPCTNL_MSG_CT_GET_STATS: u8 = 5;
/// Dump of entries that are being deleted.
pub const IPCTNL_MSG_CT_GET_DYING: u8 = 6;
/// Dump of entries that are not in the table yet (until 5.19).
pub const IPCTNL_MSG_CT_GET_UNCONFIRMED: u8 = 7;

/// Subsystem of expectations, the high byte of a message type.
pub const NFNL_SUBSYS_CTNETLINK_EXP: u8 = 2;
/// An expectation: in dumps, in NEW events, and the request to create one.
pub const IPCTNL_MSG_EXP_NEW: u8 = 0;
/// Request for one expectation, or a dump of all, or of those of one entry.
pub const IPCTNL_MSG_EXP_GET: u8 = 1;
/// The end of an expectation, and the request for it.
pub const IPCTNL_MSG_EXP_DELETE: u8 = 2;
/// Statistics of each CPU. The answer comes with the subsystem of entries.
pub const IPCTNL_MSG_EXP_GET_STATS_CPU: u8 = 3;

/// Multicast group of new entries.
pub const NFNLGRP_CONNTRACK_NEW: u32 = 1;
/// Multicast group of changes.
pub const NFNLGRP_CONNTRACK_UPDATE: u32 = 2;
/// Multicast group of ends.
pub const NFNLGRP_CONNTRACK_DESTROY: u32 = 3;
/// Multicast group of new expectations.
pub const NFNLGRP_CONNTRACK_EXP_NEW: u32 = 4;
/// Multicast group of ends of expectations.
pub const NFNLGRP_CONNTRACK_EXP_DESTROY: u32 = 6;

/// Original direction: nested `CTA_TUPLE_`.
pub const CTA_TUPLE_ORIG: u16 = 1;
/// Reply direction: nested `CTA_TUPLE_`.
pub const CTA_TUPLE_REPLY: u16 = 2;
/// IPS_ bits, u32.
pub const CTA_STATUS: u16 = 3;
/// State of the protocol: nested `CTA_PROTOINFO_`.
pub const CTA_PROTOINFO: u16 = 4;
/// Helper: nested `CTA_HELP_`.
pub const CTA_HELP: u16 = 5;
/// Source translation, requests only.
pub const CTA_NAT_SRC: u16 = 6;
/// Seconds until the entry ends, u32.
pub const CTA_TIMEOUT: u16 = 7;
/// Connmark, u32; in events only if not 0 or changed.
pub const CTA_MARK: u16 = 8;
/// Accounting of the original direction: nested `CTA_COUNTERS_`.
pub const CTA_COUNTERS_ORIG: u16 = 9;
/// Accounting of the reply direction: nested `CTA_COUNTERS_`.
pub const CTA_COUNTERS_REPLY: u16 = 10;
/// Reference count, u32.
pub const CTA_USE: u16 = 11;
/// Identifier of the entry, u32.
pub const CTA_ID: u16 = 12;
/// Destination translation, requests only.
pub const CTA_NAT_DST: u16 = 13;
/// Original direction of the flow that expected this one: nested `CTA_TUPLE_`.
pub const CTA_TUPLE_MASTER: u16 = 14;
/// Sequence adjustment of the original direction: nested `CTA_SEQADJ_`.
pub const CTA_SEQ_ADJ_ORIG: u16 = 15;
/// Sequence adjustment of the reply direction: nested `CTA_SEQADJ_`.
pub const CTA_SEQ_ADJ_REPLY: u16 = 16;
/// Security mark, u32; sent by kernels before 2.6.37.
pub const CTA_SECMARK: u16 = 17;
/// Zone of both directions, u16; absent for zone 0.
pub const CTA_ZONE: u16 = 18;
/// Security context: nested `CTA_SECCTX_`.
pub const CTA_SECCTX: u16 = 19;
/// Start and stop: nested `CTA_TIMESTAMP_`.
pub const CTA_TIMESTAMP: u16 = 20;
/// Bits of the mark that a dump compares, requests only.
pub const CTA_MARK_MASK: u16 = 21;
/// Bitmap of 128 labels, in machine words of host byte order.
pub const CTA_LABELS: u16 = 22;
/// Labels to change, requests only.
pub const CTA_LABELS_MASK: u16 = 23;
/// SYN proxy: nested `CTA_SYNPROXY_`.
pub const CTA_SYNPROXY: u16 = 24;
/// Tuple fields that a dump compares, requests only (5.8+).
pub const CTA_FILTER: u16 = 25;
/// Status bits that a dump compares, requests only (5.15+).
pub const CTA_STATUS_MASK: u16 = 26;
/// When an event happened, ns since the epoch, u64 (6.14+).
pub const CTA_TIMESTAMP_EVENT: u16 = 27;

/// Addresses: nested `CTA_IP_`.
pub const CTA_TUPLE_IP: u16 = 1;
/// Protocol: nested `CTA_PROTO_`.
pub const CTA_TUPLE_PROTO: u16 = 2;
/// Zone of this direction alone, u16.
pub const CTA_TUPLE_ZONE: u16 = 3;

/// IPv4 source address.
pub const CTA_IP_V4_SRC: u16 = 1;
/// IPv4 destination address.
pub const CTA_IP_V4_DST: u16 = 2;
/// IPv6 source address.
pub const CTA_IP_V6_SRC: u16 = 3;
/// IPv6 destination address.
pub const CTA_IP_V6_DST: u16 = 4;

/// IP protocol number, u8.
pub const CTA_PROTO_NUM: u16 = 1;
/// Source port or GRE key, u16.
pub const CTA_PROTO_SRC_PORT: u16 = 2;
/// Destination port or GRE key, u16.
pub const CTA_PROTO_DST_PORT: u16 = 3;
/// ICMP identifier, u16.
pub const CTA_PROTO_ICMP_ID: u16 = 4;
/// ICMP type, u8.
pub const CTA_PROTO_ICMP_TYPE: u16 = 5;
/// ICMP code, u8.
pub const CTA_PROTO_ICMP_CODE: u16 = 6;
/// ICMPv6 identifier, u16.
pub const CTA_PROTO_ICMPV6_ID: u16 = 7;
/// ICMPv6 type, u8.
pub const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
/// ICMPv6 code, u8.
pub const CTA_PROTO_ICMPV6_CODE: u16 = 9;

/// Nested `CTA_PROTOINFO_TCP_`.
pub const CTA_PROTOINFO_TCP: u16 = 1;
/// Nested `CTA_PROTOINFO_DCCP_` (until 6.16).
pub const CTA_PROTOINFO_DCCP: u16 = 2;
/// Nested `CTA_PROTOINFO_SCTP_`.
pub const CTA_PROTOINFO_SCTP: u16 = 3;

/// `enum tcp_conntrack`, u8.
pub const CTA_PROTOINFO_TCP_STATE: u16 = 1;
/// Window scale of the original direction, u8.
pub const CTA_PROTOINFO_TCP_WSCALE_ORIGINAL: u16 = 2;
/// Window scale of the reply direction, u8.
pub const CTA_PROTOINFO_TCP_WSCALE_REPLY: u16 = 3;
/// `struct nf_ct_tcp_flags` of the original direction: flags, mask.
pub const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
/// `struct nf_ct_tcp_flags` of the reply direction: flags, mask.
pub const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;

/// `enum ct_dccp_states`, u8.
pub const CTA_PROTOINFO_DCCP_STATE: u16 = 1;
/// `enum ct_dccp_roles`, u8.
pub const CTA_PROTOINFO_DCCP_ROLE: u16 = 2;
/// Sequence number of the handshake, u64.
pub const CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ: u16 = 3;
/// Alignment of a 64-bit attribute.
pub const CTA_PROTOINFO_DCCP_PAD: u16 = 4;

/// `enum sctp_conntrack`, u8.
pub const CTA_PROTOINFO_SCTP_STATE: u16 = 1;
/// Verification tag of the original direction, u32.
pub const CTA_PROTOINFO_SCTP_VTAG_ORIGINAL: u16 = 2;
/// Verification tag of the reply direction, u32.
pub const CTA_PROTOINFO_SCTP_VTAG_REPLY: u16 = 3;

/// Packets, u64.
pub const CTA_COUNTERS_PACKETS: u16 = 1;
/// Bytes, u64.
pub const CTA_COUNTERS_BYTES: u16 = 2;

/// Packets, u32; sent by kernels before 2.6.30 or so.
pub const CTA_COUNTERS32_PACKETS: u16 = 3;
/// Bytes, u32; sent by kernels before 2.6.30 or so.
pub const CTA_COUNTERS32_BYTES: u16 = 4;
/// Alignment of a 64-bit attribute.
pub const CTA_COUNTERS_PAD: u16 = 5;

/// When the entry was confirmed, ns since the epoch, u64.
pub const CTA_TIMESTAMP_START: u16 = 1;
/// When it ended, ns since the epoch, u64.
pub const CTA_TIMESTAMP_STOP: u16 = 2;
/// Alignment of a 64-bit attribute.
pub const CTA_TIMESTAMP_PAD: u16 = 3;

/// Sequence number of the last change, u32.
pub const CTA_SEQADJ_CORRECTION_POS: u16 = 1;
/// Shift before it, i32.
pub const CTA_SEQADJ_OFFSET_BEFORE: u16 = 2;
/// Shift after it, i32.
pub const CTA_SEQADJ_OFFSET_AFTER: u16 = 3;

/// Initial sequence number of the client, u32.
pub const CTA_SYNPROXY_ISN: u16 = 1;
/// Initial timestamp, u32.
pub const CTA_SYNPROXY_ITS: u16 = 2;
/// Shift of timestamps, u32.
pub const CTA_SYNPROXY_TSOFF: u16 = 3;

/// Name, a string.
pub const CTA_HELP_NAME: u16 = 1;
/// Data of a helper in user space.
pub const CTA_HELP_INFO: u16 = 2;

/// The context, a string.
pub const CTA_SECCTX_NAME: u16 = 1;

/// Entries of the namespace, u32.
pub const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
/// nf_conntrack_max, u32 (4.18+).
pub const CTA_STATS_GLOBAL_MAX_ENTRIES: u16 = 2;

/// Lookups that found an entry, u32.
pub const CTA_STATS_FOUND: u16 = 2;
/// Packets that cannot be tracked, u32.
pub const CTA_STATS_INVALID: u16 = 4;
/// Entries inserted, u32.
pub const CTA_STATS_INSERT: u16 = 8;
/// Entries that could not be inserted, u32.
pub const CTA_STATS_INSERT_FAILED: u16 = 9;
/// Packets dropped because an entry could not be made, u32.
pub const CTA_STATS_DROP: u16 = 10;
/// Entries removed early to make room, u32.
pub const CTA_STATS_EARLY_DROP: u16 = 11;
/// Packets that conntrack failed on, u32.
pub const CTA_STATS_ERROR: u16 = 12;
/// Lookups begun anew because the table was resized, u32.
pub const CTA_STATS_SEARCH_RESTART: u16 = 13;
/// Insertions that met an entry of the same flow and took that one, u32 (5.9+).
pub const CTA_STATS_CLASH_RESOLVE: u16 = 14;
/// Insertions given up because the chain of the bucket was too long, u32 (5.15+).
pub const CTA_STATS_CHAIN_TOOLONG: u16 = 15;

/// Expectations made, u32.
pub const CTA_STATS_EXP_NEW: u16 = 1;
/// Expectations inserted, u32.
pub const CTA_STATS_EXP_CREATE: u16 = 2;
/// Expectations removed, u32.
pub const CTA_STATS_EXP_DELETE: u16 = 3;

/// Lowest IPv4 address to translate to.
pub const CTA_NAT_V4_MINIP: u16 = 1;
/// Highest IPv4 address to translate to.
pub const CTA_NAT_V4_MAXIP: u16 = 2;
/// Ports to translate to: nested `CTA_PROTONAT_`.
pub const CTA_NAT_PROTO: u16 = 3;
/// Lowest IPv6 address to translate to.
pub const CTA_NAT_V6_MINIP: u16 = 4;
/// Highest IPv6 address to translate to.
pub const CTA_NAT_V6_MAXIP: u16 = 5;

/// Lowest port to translate to, u16.
pub const CTA_PROTONAT_PORT_MIN: u16 = 1;
/// Highest port to translate to, u16.
pub const CTA_PROTONAT_PORT_MAX: u16 = 2;

/// Fields of the original tuple that a dump compares, u32 in **host** byte order.
pub const CTA_FILTER_ORIG_FLAGS: u16 = 1;
/// Fields of the reply tuple that a dump compares, u32 in **host** byte order.
pub const CTA_FILTER_REPLY_FLAGS: u16 = 2;

/// Source address (net/netfilter/nf_internals.h, as all CTA_FILTER_F_).
pub const CTA_FILTER_F_CTA_IP_SRC: u32 = 1 << 0;
/// Destination address.
pub const CTA_FILTER_F_CTA_IP_DST: u32 = 1 << 1;
/// Protocol.
pub const CTA_FILTER_F_CTA_PROTO_NUM: u32 = 1 << 3;
/// Source port of TCP and UDP.
pub const CTA_FILTER_F_CTA_PROTO_SRC_PORT: u32 = 1 << 4;
/// Destination port of TCP and UDP.
pub const CTA_FILTER_F_CTA_PROTO_DST_PORT: u32 = 1 << 5;
/// ICMP type.
pub const CTA_FILTER_F_CTA_PROTO_ICMP_TYPE: u32 = 1 << 6;
/// ICMP code.
pub const CTA_FILTER_F_CTA_PROTO_ICMP_CODE: u32 = 1 << 7;
/// ICMP identifier.
pub const CTA_FILTER_F_CTA_PROTO_ICMP_ID: u32 = 1 << 8;
/// ICMPv6 type.
pub const CTA_FILTER_F_CTA_PROTO_ICMPV6_TYPE: u32 = 1 << 9;
/// ICMPv6 code.
pub const CTA_FILTER_F_CTA_PROTO_ICMPV6_CODE: u32 = 1 << 10;
/// ICMPv6 identifier.
pub const CTA_FILTER_F_CTA_PROTO_ICMPV6_ID: u32 = 1 << 11;

/// Original direction of the entry that expects: nested `CTA_TUPLE_`.
pub const CTA_EXPECT_MASTER: u16 = 1;
/// What is expected: nested `CTA_TUPLE_`.
pub const CTA_EXPECT_TUPLE: u16 = 2;
/// Bits of it that count: nested `CTA_TUPLE_`.
pub const CTA_EXPECT_MASK: u16 = 3;
/// Seconds until the expectation ends, u32.
pub const CTA_EXPECT_TIMEOUT: u16 = 4;
/// Identifier of the expectation, u32.
pub const CTA_EXPECT_ID: u16 = 5;
/// Name of the helper, a string.
pub const CTA_EXPECT_HELP_NAME: u16 = 6;
/// Zone, u16; requests only.
pub const CTA_EXPECT_ZONE: u16 = 7;
/// NF_CT_EXPECT_ bits, u32.
pub const CTA_EXPECT_FLAGS: u16 = 8;
/// Class of the helper's policy, u32.
pub const CTA_EXPECT_CLASS: u16 = 9;
/// Translation: nested `CTA_EXPECT_NAT_`.
pub const CTA_EXPECT_NAT: u16 = 10;
/// Name of the function called when the expected flow comes, a string.
pub const CTA_EXPECT_FN: u16 = 11;

/// Direction of the master that the translation is for, u32.
pub const CTA_EXPECT_NAT_DIR: u16 = 1;
/// Source address and port before translation: nested `CTA_TUPLE_`.
pub const CTA_EXPECT_NAT_TUPLE: u16 = 2;
