//! The ABI between conntracker's BPF programs and its agent.
//!
//! Everything here is `repr(C)`, has no padding that is not named, and is checked by the constant
//! assertions at the end of each module: the two halves are compiled by different compilers and
//! must agree to the byte. [`ABI_VERSION`] changes with any of it and is compared at load.
#![no_std]

pub mod conntrack;
pub mod counters;
pub mod end;
pub mod hook;
pub mod kernel_memory;
pub mod loops;
pub mod offsets;
pub mod owner;
pub mod path;
pub mod plan;
pub mod probes;
pub mod record;
pub mod seen;
pub mod table;

/// Version of everything in this crate. The BPF object carries it in section [`ABI_SECTION`] and
/// each ring record in its header.
pub const ABI_VERSION: u8 = 8;

/// ELF section of the BPF object that holds [`ABI_VERSION`] (one byte).
pub const ABI_SECTION: &str = ".conntracker.abi";

/// First source port that is not privileged. Folding replaces it and every higher source port by
/// this number, as the original conntracker did (`formats`: "Source port above 1023").
pub const FOLDED_PORT: u16 = 1024;

/// IPPROTO_ICMP.
pub const IPPROTO_ICMP: u8 = 1;
/// IPPROTO_TCP.
pub const IPPROTO_TCP: u8 = 6;
/// IPPROTO_UDP.
pub const IPPROTO_UDP: u8 = 17;
/// IPPROTO_DCCP.
pub const IPPROTO_DCCP: u8 = 33;
/// IPPROTO_GRE.
pub const IPPROTO_GRE: u8 = 47;
/// IPPROTO_ICMPV6.
pub const IPPROTO_ICMPV6: u8 = 58;
/// IPPROTO_SCTP.
pub const IPPROTO_SCTP: u8 = 132;
/// IPPROTO_UDPLITE.
pub const IPPROTO_UDPLITE: u8 = 136;

/// Whether the protocol's conntrack tuple holds a source and a destination port.
#[must_use]
pub const fn has_ports(proto: u8) -> bool {
    matches!(proto, IPPROTO_TCP | IPPROTO_UDP | IPPROTO_DCCP | IPPROTO_SCTP | IPPROTO_UDPLITE)
}

/// Whether the protocol's conntrack tuple holds an ICMP type, code and identifier.
#[must_use]
pub const fn is_icmp(proto: u8) -> bool {
    matches!(proto, IPPROTO_ICMP | IPPROTO_ICMPV6)
}
