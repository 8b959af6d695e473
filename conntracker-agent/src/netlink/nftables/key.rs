//! Numbers of include/uapi/linux/netfilter/nf_tables.h that expressions have: what they load, compare and do. The
//! names are those of the header without `NFT_`.

/// `enum nft_meta_keys`.
pub mod meta {
    #![expect(missing_docs, reason = "names of the kernel's header")]
    pub const LEN: u32 = 0;
    pub const PROTOCOL: u32 = 1;
    pub const PRIORITY: u32 = 2;
    pub const MARK: u32 = 3;
    pub const IIF: u32 = 4;
    pub const OIF: u32 = 5;
    pub const IIFNAME: u32 = 6;
    pub const OIFNAME: u32 = 7;
    pub const IIFTYPE: u32 = 8;
    pub const OIFTYPE: u32 = 9;
    pub const SKUID: u32 = 10;
    pub const SKGID: u32 = 11;
    pub const NFTRACE: u32 = 12;
    pub const NFPROTO: u32 = 15;
    pub const L4PROTO: u32 = 16;
    pub const PKTTYPE: u32 = 19;
    pub const IIFGROUP: u32 = 21;
    pub const OIFGROUP: u32 = 22;
    pub const PRANDOM: u32 = 24;
    pub const SECPATH: u32 = 25;
    pub const IIFKIND: u32 = 26;
    pub const OIFKIND: u32 = 27;
    pub const TIME_NS: u32 = 30;
    pub const TIME_DAY: u32 = 31;
    pub const TIME_HOUR: u32 = 32;
    pub const SDIF: u32 = 33;
    pub const SDIFNAME: u32 = 34;
}

/// `enum nft_ct_keys`.
pub mod ct {
    #![expect(missing_docs, reason = "names of the kernel's header")]
    pub const STATE: u32 = 0;
    pub const DIRECTION: u32 = 1;
    pub const STATUS: u32 = 2;
    pub const MARK: u32 = 3;
    pub const EXPIRATION: u32 = 5;
    pub const HELPER: u32 = 6;
    pub const L3PROTOCOL: u32 = 7;
    pub const SRC: u32 = 8;
    pub const DST: u32 = 9;
    pub const PROTOCOL: u32 = 10;
    pub const PROTO_SRC: u32 = 11;
    pub const PROTO_DST: u32 = 12;
    pub const LABELS: u32 = 13;
    pub const PKTS: u32 = 14;
    pub const BYTES: u32 = 15;
    pub const AVGPKT: u32 = 16;
    pub const ZONE: u32 = 17;
    pub const SRC_IP: u32 = 19;
    pub const DST_IP: u32 = 20;
    pub const SRC_IP6: u32 = 21;
    pub const DST_IP6: u32 = 22;
}

/// `enum nft_payload_bases`.
pub mod base {
    #![expect(missing_docs, reason = "names of the kernel's header")]
    pub const LL_HEADER: u32 = 0;
    pub const NETWORK_HEADER: u32 = 1;
    pub const TRANSPORT_HEADER: u32 = 2;
    pub const INNER_HEADER: u32 = 3;
}

/// `enum nft_cmp_ops`.
pub mod cmp {
    #![expect(missing_docs, reason = "names of the kernel's header")]
    pub const EQ: u32 = 0;
    pub const NEQ: u32 = 1;
    pub const LT: u32 = 2;
    pub const LTE: u32 = 3;
    pub const GT: u32 = 4;
    pub const GTE: u32 = 5;
}

/// `enum nft_bitwise_ops`.
pub mod bitwise {
    #![expect(missing_docs, reason = "names of the kernel's header")]
    pub const MASK_XOR: u32 = 0;
    pub const LSHIFT: u32 = 1;
    pub const RSHIFT: u32 = 2;
    pub const AND: u32 = 3;
    pub const OR: u32 = 4;
    pub const XOR: u32 = 5;
}

/// `enum nft_exthdr_op`.
pub mod exthdr {
    #![expect(missing_docs, reason = "names of the kernel's header")]
    pub const IPV6: u32 = 0;
    pub const TCPOPT: u32 = 1;
    pub const IPV4: u32 = 2;
    pub const SCTP: u32 = 3;
    pub const DCCP: u32 = 4;
}

/// `enum nft_fib_result`, and NFTA_FIB_F_ flags.
pub mod fib {
    #![expect(missing_docs, reason = "names of the kernel's header")]
    pub const OIF: u32 = 1;
    pub const OIFNAME: u32 = 2;
    pub const ADDRTYPE: u32 = 3;
    pub const SADDR: u32 = 1;
    pub const DADDR: u32 = 2;
    pub const MARK: u32 = 4;
    pub const IIF: u32 = 8;
    pub const OIF_FLAG: u32 = 16;
    pub const PRESENT: u32 = 32;
}

/// `enum nft_nat_types`.
pub mod nat {
    #![expect(missing_docs, reason = "names of the kernel's header")]
    pub const SNAT: u32 = 0;
    pub const DNAT: u32 = 1;
}

/// `enum nft_set_flags` and `enum nft_set_elem_flags`.
pub mod set {
    #![expect(missing_docs, reason = "names of the kernel's header")]
    pub const ANONYMOUS: u32 = 1;
    pub const CONSTANT: u32 = 2;
    pub const INTERVAL: u32 = 4;
    pub const MAP: u32 = 8;
    pub const TIMEOUT: u32 = 0x10;
    pub const EVAL: u32 = 0x20;
    pub const OBJECT: u32 = 0x40;
    pub const CONCAT: u32 = 0x80;
    pub const ELEM_INTERVAL_END: u32 = 1;
    pub const ELEM_CATCHALL: u32 = 2;
}
