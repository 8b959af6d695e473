//! What the agent looks up, and some more of the same structures: fixtures are not easily made anew when
//! the agent comes to need another member.

/// Structures and unions, with the members that are wanted; none given: all of them.
const STRUCTS: &[(&str, &[&str])] = &[
    ("bpf_array", &[]),
    ("cgroup", &["self", "kn", "level", "root"]),
    ("cgroup_subsys_state", &["cgroup", "id"]),
    ("cred", &["uid", "gid", "euid", "egid", "suid", "fsuid"]),
    ("dst_entry", &[]),
    ("inode", &["i_mode", "i_uid", "i_gid", "i_ino", "i_sb"]),
    ("ip6t_entry", &[]),
    ("ip_ct_tcp", &[]),
    ("ip_ct_tcp_state", &[]),
    ("ipt_entry", &[]),
    ("kernfs_node", &[]),
    ("list_head", &[]),
    ("net", &["nf", "nft", "ct", "gen", "net_cookie", "ns", "ipv4", "loopback_dev"]),
    ("net_device", &["ifindex", "nd_net", "name", "flags", "type", "header_ops"]),
    ("net_generic", &[]),
    ("netns_ct", &[]),
    ("netns_nf", &[]),
    ("netns_nftables", &[]),
    ("nf_conn", &[]),
    ("nf_conn_acct", &[]),
    ("nf_conn_counter", &[]),
    ("nf_conn_tstamp", &[]),
    ("nf_conntrack", &[]),
    ("nf_conntrack_man", &[]),
    ("nf_conntrack_man_proto", &[]),
    ("nf_conntrack_proto", &[]),
    ("nf_conntrack_tuple", &[]),
    ("nf_conntrack_tuple_hash", &[]),
    ("nf_conntrack_zone", &[]),
    ("nf_ct_ext", &[]),
    ("nf_hook_entries", &[]),
    ("nf_hook_entry", &[]),
    ("nf_hook_ops", &[]),
    ("nf_hook_state", &[]),
    ("nf_inet_addr", &[]),
    ("nf_nat_lookup_hook_priv", &[]),
    ("nft_base_chain", &[]),
    ("nft_chain", &[]),
    ("nft_counter", &[]),
    ("nft_counter_percpu_priv", &[]),
    ("nft_counter_tot", &[]),
    ("nft_data", &[]),
    ("nft_expr", &[]),
    ("nft_expr_ops", &[]),
    ("nft_expr_type", &[]),
    ("nft_immediate_expr", &[]),
    ("nft_lookup", &[]),
    ("nft_pktinfo", &[]),
    ("nft_regs", &[]),
    ("nft_rule", &[]),
    ("nft_rule_blob", &[]),
    ("nft_rule_dp", &[]),
    ("nft_table", &[]),
    ("nft_verdict", &[]),
    ("nftables_pernet", &[]),
    ("nsproxy", &[]),
    ("rt6_info", &[]),
    ("rtable", &[]),
    ("sk_buff", &[]),
    (
        "sock",
        &[
            "__sk_common",
            "sk_uid",
            "sk_socket",
            "sk_cgrp_data",
            "sk_mark",
            "sk_type",
            "sk_protocol",
        ],
    ),
    ("sock_cgroup_data", &[]),
    ("sock_common", &[]),
    ("socket", &[]),
    ("socket_alloc", &[]),
    (
        "task_struct",
        &[
            "stack",
            "flags",
            "pid",
            "tgid",
            "comm",
            "group_leader",
            "real_parent",
            "cred",
            "nsproxy",
            "cgroups",
            "start_time",
            "start_boottime",
            "thread_info",
        ],
    ),
    ("thread_info", &[]),
    ("xt_action_param", &[]),
    ("xt_counters", &[]),
    ("xt_entry_match", &[]),
    ("xt_entry_target", &[]),
    ("xt_table", &[]),
    ("xt_table_info", &[]),
    ("xt_target", &[]),
];

/// Functions, beside those that evaluate expressions of nf_tables.
const FUNCTIONS: &[&str] = &[
    "__nf_conntrack_confirm",
    "__nf_conntrack_hash_insert",
    "destroy_conntrack",
    "ip6t_do_table",
    "ipt_do_table",
    "ipv4_confirm",
    "ipv4_conntrack_in",
    "ipv4_conntrack_local",
    "ipv6_confirm",
    "ipv6_conntrack_in",
    "ipv6_conntrack_local",
    "kfree_skb_reason",
    "nf_confirm",
    "nf_conntrack_destroy",
    "nf_conntrack_hash_check_insert",
    "nf_conntrack_in",
    "nf_ct_delete",
    "nf_ct_destroy",
    "nf_hook_slow",
    "nf_nat_inet_fn",
    "nft_do_chain",
    "sk_skb_reason_drop",
];

/// Beginnings of enumerators.
const ENUMERATORS: &[&str] =
    &["SKB_DROP_REASON_NETFILTER_DROP", "NF_CT_EXT_", "TCP_CONNTRACK_", "NF_INET_"];

/// The members that are wanted of a structure; none: all of them.
pub fn members(strukt: &str) -> Option<&'static [&'static str]> {
    STRUCTS.iter().find(|(name, _)| *name == strukt).map(|(_, members)| *members)
}

pub fn function(name: &str) -> bool {
    let evaluates = name.starts_with("nft_") && name.contains("_eval");
    evaluates || FUNCTIONS.contains(&name)
}

pub fn enumerator(name: &str) -> bool {
    ENUMERATORS.iter().any(|begin| name.starts_with(begin))
}
