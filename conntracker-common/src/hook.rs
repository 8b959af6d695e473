//! Netfilter's hooks of IPv4 and IPv6 by their numbers: `enum nf_inet_hooks` (include/uapi/linux/netfilter.h).

/// Packets that have come in, before they are routed.
pub const PRE_ROUTING: u8 = 0;
/// Packets for this machine.
pub const LOCAL_IN: u8 = 1;
/// Packets that are passed on.
pub const FORWARD: u8 = 2;
/// Packets of this machine.
pub const LOCAL_OUT: u8 = 3;
/// Packets that go out, routed.
pub const POST_ROUTING: u8 = 4;

/// Number of hooks of IPv4 and IPv6: NF_INET_NUMHOOKS, which does not count ingress.
pub const HOOKS: u8 = 5;
