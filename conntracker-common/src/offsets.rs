//! Offsets of kernel struct members, resolved from the running kernel's BTF by the agent and
//! handed to the programs as frozen globals.

macro_rules! offsets {
    (
        $(#[$what:meta])*
        $name:ident { $($(#[$doc:meta])* $field:ident = $strukt:literal . $path:literal;)* }
    ) => {
        $(#[$what])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$doc])* pub $field: u32,)*
        }

        impl $name {
            /// All zero: what the object carries until the agent fills it in.
            pub const ZERO: Self = Self { $($field: 0,)* };

            /// (struct, member path) of each field, in the order of the fields.
            pub const MEMBERS: &'static [(&'static str, &'static str)] = &[$(($strukt, $path),)*];

            /// Builds the table from one offset per entry of [`Self::MEMBERS`].
            #[must_use]
            pub fn from_array(values: &[u32; Self::MEMBERS.len()]) -> Self {
                let [$($field,)*] = *values;
                Self { $($field,)* }
            }

            /// The offsets in the order of the fields, which is their layout in memory.
            #[must_use]
            pub fn to_array(self) -> [u32; Self::MEMBERS.len()] {
                let Self { $($field,)* } = self;
                [$($field,)*]
            }
        }
    };
}

offsets! {
    /// Byte offsets into kernel structures that every program needs.
    Offsets {
        /// `nf_hook_state.hook`.
        state_hook = "nf_hook_state"."hook";
        /// `nf_hook_state.pf`.
        state_pf = "nf_hook_state"."pf";
        /// `nf_hook_state.in`.
        state_in = "nf_hook_state"."in";
        /// `nf_hook_state.out`.
        state_out = "nf_hook_state"."out";
        /// `nf_hook_state.net`.
        state_net = "nf_hook_state"."net";
        /// `net.net_cookie`.
        net_cookie = "net"."net_cookie";
        /// `sk_buff._nfct`.
        skb_nfct = "sk_buff"."_nfct";
        /// `sk_buff.mark`.
        skb_mark = "sk_buff"."mark";
        /// `sk_buff.skb_iif`.
        skb_iif = "sk_buff"."skb_iif";
        /// `sk_buff.dev`.
        skb_dev = "sk_buff"."dev";
        /// `sk_buff.sk`.
        skb_sk = "sk_buff"."sk";
        /// `sk_buff._skb_refdst`.
        skb_refdst = "sk_buff"."_skb_refdst";
        /// `sk_buff.protocol`.
        skb_protocol = "sk_buff"."protocol";
        /// `sk_buff.head`.
        skb_head = "sk_buff"."head";
        /// `sk_buff.network_header`.
        skb_network_header = "sk_buff"."network_header";
        /// `sk_buff.data`.
        skb_data = "sk_buff"."data";
        /// `sk_buff.tail`.
        skb_tail = "sk_buff"."tail";
        /// `net_device.ifindex`.
        dev_ifindex = "net_device"."ifindex";
        /// `net_device.name`.
        dev_name = "net_device"."name";
        /// `net_device.nd_net.net`.
        dev_net = "net_device"."nd_net.net";
        /// `sock.__sk_common.skc_net.net`.
        sk_net = "sock"."__sk_common.skc_net.net";
        /// `dst_entry.dev`.
        dst_dev = "dst_entry"."dev";
        /// `nf_conn.status`.
        ct_status = "nf_conn"."status";
        /// `nf_conn.mark` (CONFIG_NF_CONNTRACK_MARK).
        ct_mark = "nf_conn"."mark";
        /// `nf_conn.zone` (CONFIG_NF_CONNTRACK_ZONES).
        ct_zone = "nf_conn"."zone";
        /// `nf_conn.ct_net.net`.
        ct_net = "nf_conn"."ct_net.net";
        /// `nf_conn.tuplehash[IP_CT_DIR_ORIGINAL].tuple`.
        ct_orig = "nf_conn"."tuplehash[0].tuple";
        /// `nf_conn.tuplehash[IP_CT_DIR_REPLY].tuple`.
        ct_reply = "nf_conn"."tuplehash[1].tuple";
        /// `nf_conn.master`: the entry whose helper expected this one.
        ct_master = "nf_conn"."master";
        /// `rtable.rt_flags`: RTCF_LOCAL tells local delivery.
        rt_flags = "rtable"."rt_flags";
        /// `rt6_info.rt6i_flags`: RTF_LOCAL tells local delivery.
        rt6_flags = "rt6_info"."rt6i_flags";
        /// `task_struct.nsproxy`.
        task_nsproxy = "task_struct"."nsproxy";
        /// `nsproxy.net_ns`.
        nsproxy_net = "nsproxy"."net_ns";
        /// `bpf_array.pptrs`: per-CPU pointers of a per-CPU array's values.
        array_pptrs = "bpf_array"."pptrs";
    }
}

offsets! {
    /// Those that probes need in nf_tables.
    NftOffsets {
        /// `nft_pktinfo.skb`.
        pkt_skb = "nft_pktinfo"."skb";
        /// `nft_pktinfo.state`.
        pkt_state = "nft_pktinfo"."state";
        /// `nft_regs.verdict.code`.
        regs_code = "nft_regs"."verdict.code";
        /// `nft_regs.verdict.chain`.
        regs_chain = "nft_regs"."verdict.chain";
        /// `nft_expr.ops`.
        expr_ops = "nft_expr"."ops";
        /// `nft_expr_ops.size`.
        ops_size = "nft_expr_ops"."size";
    }
}

offsets! {
    /// Those that the end of a flow needs.
    EndOffsets {
        /// `nf_conn.ext`.
        ct_ext = "nf_conn"."ext";
        /// `nf_conn.timeout`.
        ct_timeout = "nf_conn"."timeout";
        /// `nf_conn.proto.tcp.state`.
        ct_tcp_state = "nf_conn"."proto.tcp.state";
        /// `nf_ct_ext.offset`: a byte for each extension, 0 where the entry has none.
        ext_offset = "nf_ct_ext"."offset";
        /// `nf_conn_acct.counter[IP_CT_DIR_ORIGINAL].packets`.
        acct_packets = "nf_conn_acct"."counter[0].packets";
        /// `nf_conn_acct.counter[IP_CT_DIR_ORIGINAL].bytes`.
        acct_bytes = "nf_conn_acct"."counter[0].bytes";
        /// `nf_conn_acct.counter[IP_CT_DIR_REPLY].packets`.
        acct_reply_packets = "nf_conn_acct"."counter[1].packets";
        /// `nf_conn_acct.counter[IP_CT_DIR_REPLY].bytes`.
        acct_reply_bytes = "nf_conn_acct"."counter[1].bytes";
        /// `nf_conn_tstamp.start`.
        tstamp_start = "nf_conn_tstamp"."start";
    }
}

offsets! {
    /// Those that tell the owner of a socket.
    OwnerOffsets {
        /// `sock.__sk_common.skc_state`.
        sk_state = "sock"."__sk_common.skc_state";
        /// `sock.__sk_common.skc_family`.
        sk_family = "sock"."__sk_common.skc_family";
        /// `sock.__sk_common.skc_num`: the port, host byte order.
        sk_num = "sock"."__sk_common.skc_num";
        /// `sock.__sk_common.skc_listener`, of `struct request_sock`.
        sk_listener = "sock"."__sk_common.skc_listener";
        /// `sock.sk_protocol`.
        sk_protocol = "sock"."sk_protocol";
        /// `sock.sk_uid`.
        sk_uid = "sock"."sk_uid";
        /// `sock.sk_cgrp_data.cgroup` (CONFIG_SOCK_CGROUP_DATA).
        sk_cgroup = "sock"."sk_cgrp_data.cgroup";
        /// `sock.sk_socket`.
        sk_socket = "sock"."sk_socket";
        /// `socket.file`.
        socket_file = "socket"."file";
        /// `socket_alloc.socket`.
        alloc_socket = "socket_alloc"."socket";
        /// `socket_alloc.vfs_inode`.
        alloc_inode = "socket_alloc"."vfs_inode";
        /// `inode.i_ino`.
        inode_ino = "inode"."i_ino";
        /// `cgroup.kn`.
        cgroup_kn = "cgroup"."kn";
        /// `kernfs_node.id`.
        kn_id = "kernfs_node"."id";
        /// `task_struct.stack`.
        task_stack = "task_struct"."stack";
        /// `task_struct.flags`.
        task_flags = "task_struct"."flags";
        /// `task_struct.tgid`.
        task_tgid = "task_struct"."tgid";
        /// `task_struct.group_leader`.
        task_leader = "task_struct"."group_leader";
        /// `task_struct.cred`.
        task_cred = "task_struct"."cred";
        /// `task_struct.comm`.
        task_comm = "task_struct"."comm";
    }
}

offsets! {
    /// Those that reading conntrack's hash table needs.
    TableOffsets {
        /// `nf_conn.tuplehash[IP_CT_DIR_ORIGINAL].hnnode`.
        ct_node = "nf_conn"."tuplehash[0].hnnode";
        /// `nf_conn.ct_general.use`: how many refer to it.
        ct_use = "nf_conn"."ct_general.use";
        /// `nf_conn.ext`.
        ct_ext = "nf_conn"."ext";
        /// `nf_ct_ext.offset`: a byte for each extension, 0 where the entry has none.
        ext_offset = "nf_ct_ext"."offset";
        /// `nf_ct_ext.len`: its bytes.
        ext_len = "nf_ct_ext"."len";
        /// `nf_conn_help.helper`.
        help_helper = "nf_conn_help"."helper";
        /// `nf_conntrack_helper.name`.
        helper_name = "nf_conntrack_helper"."name";
    }
}

/// (struct, member path) of what tells that conntrack itself dropped a packet: the statistics of a namespace, per
/// CPU, and in them the counters that conntrack moves when it drops one (`struct ip_conntrack_stat`).
pub const STAT_MEMBERS: [(&str, &str); 4] = [
    ("net", "ct.stat"),
    ("ip_conntrack_stat", "insert_failed"),
    ("ip_conntrack_stat", "chaintoolong"),
    ("ip_conntrack_stat", "drop"),
];

/// Members whose place the programs take for granted, because they copy the whole structure:
/// (struct, member path, offset). The agent refuses to load when the kernel's BTF disagrees.
pub const ASSUMED: &[(&str, &str, u32)] = &[
    ("nf_conntrack_tuple", "src.u3", 0),
    ("nf_conntrack_tuple", "src.u", 16),
    ("nf_conntrack_tuple", "src.l3num", 18),
    ("nf_conntrack_tuple", "dst.u3", 20),
    ("nf_conntrack_tuple", "dst.u", 36),
    ("nf_conntrack_tuple", "dst.protonum", 38),
    ("nf_conntrack_zone", "id", 0),
    ("nf_conntrack_zone", "dir", 3),
];

/// As [`ASSUMED`], for the program that reads the table.
pub const TABLE_ASSUMED: &[(&str, &str, u32)] = &[
    ("nf_conntrack_tuple", "dst.dir", 39),
    ("nf_conntrack_tuple_hash", "hnnode", 0),
    ("nf_conntrack_tuple_hash", "tuple", 16),
    ("nf_conntrack_zone", "flags", 2),
];
