//! Where the members are that the index reads.

use aya::util::nr_cpus;
use conntracker_common::plan::RANGE_SHARED;

use super::super::offsets::LayoutError;

/// Finds the offset of (struct, member path).
pub type Find<'a> = dyn Fn(&str, &str) -> Result<u32, LayoutError> + 'a;

macro_rules! layout {
    ($(#[$doc:meta])* $name:ident { $($field:ident = $strukt:literal . $path:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $name {
            $(pub $field: u64,)*
        }

        impl $name {
            fn find(find: &Find<'_>) -> Result<Self, LayoutError> {
                Ok(Self { $($field: find($strukt, $path)?.into(),)* })
            }
        }
    };
}

layout! {
    /// Hooks of a namespace.
    Hooks {
        net_v4 = "net"."nf.hooks_ipv4";
        net_v6 = "net"."nf.hooks_ipv6";
        number = "nf_hook_entries"."num_hook_entries";
        entries = "nf_hook_entries"."hooks";
        function = "nf_hook_entry"."hook";
        private = "nf_hook_entry"."priv";
        priority = "nf_hook_ops"."priority";
    }
}

layout! {
    /// The second level of hooks that NAT base chains hang at.
    Nat {
        entries = "nf_nat_lookup_hook_priv"."entries";
    }
}

layout! {
    /// nf_tables since Linux 5.17 (rule blobs).
    NfTables {
        cursor = "net"."nft.gencursor";
        chain_blob_0 = "nft_chain"."blob_gen_0";
        chain_blob_1 = "nft_chain"."blob_gen_1";
        chain_list = "nft_chain"."list";
        chain_table = "nft_chain"."table";
        chain_handle = "nft_chain"."handle";
        table_list = "nft_table"."list";
        table_chains = "nft_table"."chains";
        table_handle = "nft_table"."handle";
        blob_size = "nft_rule_blob"."size";
        blob_data = "nft_rule_blob"."data";
        expr_ops = "nft_expr"."ops";
        expr_data = "nft_expr"."data";
        ops_size = "nft_expr_ops"."size";
        ops_type = "nft_expr_ops"."type";
        type_name = "nft_expr_type"."name";
        counter_pointer = "nft_counter_percpu_priv"."counter";
    }
}

layout! {
    /// ip_tables and ip6_tables.
    Legacy {
        table_private = "xt_table"."private";
        table_name = "xt_table"."name";
        info_size = "xt_table_info"."size";
        info_hooks = "xt_table_info"."hook_entry";
        info_entries = "xt_table_info"."entries";
        v4_target = "ipt_entry"."target_offset";
        v4_next = "ipt_entry"."next_offset";
        v4_counters = "ipt_entry"."counters";
        v6_target = "ip6t_entry"."target_offset";
        v6_next = "ip6t_entry"."next_offset";
        v6_counters = "ip6t_entry"."counters";
    }
}

/// Where nf_tables counts its commits.
#[derive(Clone, Copy, Debug)]
pub(super) enum BaseSeq {
    /// In `struct net` (Linux 6.17+), at this offset.
    Net(u64),
    /// In nf_tables' own part of the namespace, which is found through its list of tables.
    PerNet {
        /// `net.gen`.
        net_gen: u64,
        /// `net_generic.ptr`, and of its length.
        gen_ptr: u64,
        gen_len: u64,
        /// `nftables_pernet.tables` and `.base_seq`.
        tables: u64,
        base_seq: u64,
    },
}

impl BaseSeq {
    fn find(find: &Find<'_>) -> Result<Self, LayoutError> {
        if let Ok(offset) = find("net", "nft.base_seq") {
            return Ok(Self::Net(offset.into()));
        }
        Ok(Self::PerNet {
            net_gen: find("net", "gen")?.into(),
            gen_ptr: find("net_generic", "ptr")?.into(),
            gen_len: find("net_generic", "s.len")?.into(),
            tables: find("nftables_pernet", "tables")?.into(),
            base_seq: find("nftables_pernet", "base_seq")?.into(),
        })
    }
}

/// All of it. Parts that the kernel does not have (modules that are not loaded, or older layouts) are
/// errors that say so; they matter once there are such rules.
#[derive(Clone, Debug)]
pub struct IndexLayout {
    pub(super) hooks: Hooks,
    pub(super) nat: Option<Nat>,
    pub(super) nf_tables: Result<(NfTables, BaseSeq), String>,
    pub(super) counter_packets: u64,
    pub(super) legacy: Result<Legacy, String>,
    pub(super) xt_packets: u64,
    /// There can be but one CPU: ip_tables counts in its entries.
    pub(super) one_cpu: bool,
}

impl IndexLayout {
    /// Resolves every offset.
    pub fn find(find: &Find<'_>) -> Result<Self, LayoutError> {
        let text = |error: LayoutError| error.to_string();
        Ok(Self {
            hooks: Hooks::find(find)?,
            nat: Nat::find(find).ok(),
            nf_tables: NfTables::find(find)
                .and_then(|tables| Ok((tables, BaseSeq::find(find)?)))
                .map_err(text),
            // `struct nft_counter` was `nft_counter_tot` for some versions; both words are u64.
            counter_packets: find("nft_counter", "packets").map_or(8, u64::from),
            legacy: Legacy::find(find).map_err(text),
            xt_packets: find("xt_counters", "pcnt").map_or(0, u64::from),
            one_cpu: nr_cpus().is_ok_and(|number| number == 1),
        })
    }

    /// `Range::word` of counters, of nf_tables and of ip_tables.
    #[must_use]
    pub fn words(&self) -> (u16, u16) {
        let legacy = (self.xt_packets / 8) as u16;
        let shared = if self.one_cpu { RANGE_SHARED } else { 0 };
        ((self.counter_packets / 8) as u16, legacy | shared)
    }
}
