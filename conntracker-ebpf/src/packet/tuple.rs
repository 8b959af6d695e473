//! Tuples as conntrack has them.

/// `struct nf_conntrack_tuple`, whose layout the agent checks ([`conntracker_common::offsets::ASSUMED`]). Its
/// alignment spares the compiler from taking it apart by bytes.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KernelTuple {
    /// Source address; IPv4 in the first four bytes.
    pub src: [u8; 16],
    /// Source port, ICMP identifier or GRE key, network byte order.
    pub src_l4: [u8; 2],
    /// AF_INET or AF_INET6.
    pub l3num: u16,
    /// Destination address.
    pub dst: [u8; 16],
    /// Destination port, ICMP type and code, or GRE key, network byte order.
    pub dst_l4: [u8; 2],
    /// IP protocol.
    pub proto: u8,
    /// `enum ip_conntrack_dir`.
    pub dir: u8,
}

impl KernelTuple {
    /// All zero: no tuple.
    pub const NONE: Self = Self {
        src: [0; 16],
        src_l4: [0; 2],
        l3num: 0,
        dst: [0; 16],
        dst_l4: [0; 2],
        proto: 0,
        dir: 0,
    };
}
