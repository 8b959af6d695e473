//! Offsets of the members that the index reads.

use aya::util::nr_cpus;
use conntracker_common::plan::RANGE_SHARED;

use super::memory::{u32_at, u64_at};
use crate::bpf::btf::{BtfError, MemberAt, Members, layout};

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
    /// The second level of hooks, which NAT base chains are registered at.
    Nat {
        entries = "nf_nat_lookup_hook_priv"."entries";
    }
}

layout! {
    /// nf_tables, apart from rules.
    NfTables {
        cursor = "net"."nft.gencursor";
        chain_list = "nft_chain"."list";
        chain_table = "nft_chain"."table";
        chain_handle = "nft_chain"."handle";
        table_list = "nft_table"."list";
        table_chains = "nft_table"."chains";
        table_handle = "nft_table"."handle";
        expr_ops = "nft_expr"."ops";
        expr_data = "nft_expr"."data";
        ops_size = "nft_expr_ops"."size";
        ops_type = "nft_expr_ops"."type";
        ops_eval = "nft_expr_ops"."eval";
        type_name = "nft_expr_type"."name";
    }
}

layout! {
    /// Tables of ip_tables and ip6_tables (module x_tables).
    XtTables {
        private = "xt_table"."private";
        name = "xt_table"."name";
        info_size = "xt_table_info"."size";
        info_hooks = "xt_table_info"."hook_entry";
        info_entries = "xt_table_info"."entries";
        target = "xt_entry_target"."u.kernel.target";
        target_function = "xt_target"."target";
    }
}

layout! {
    /// Rules of ip_tables.
    IpEntry {
        target = "ipt_entry"."target_offset";
        next = "ipt_entry"."next_offset";
        counters = "ipt_entry"."counters";
    }
}

layout! {
    /// Rules of ip6_tables.
    Ip6Entry {
        target = "ip6t_entry"."target_offset";
        next = "ip6t_entry"."next_offset";
        counters = "ip6t_entry"."counters";
    }
}

/// ip_tables or ip6_tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Legacy {
    pub table: XtTables,
    pub entry: IpEntry,
}

impl Legacy {
    /// The layouts of IPv4 and IPv6. Each is in a module that may be loaded without the other.
    fn find(members: &dyn Members) -> [Result<Self, BtfError>; 2] {
        let v4 = || Ok(Self { table: XtTables::find(members)?, entry: IpEntry::find(members)? });
        let v6 = || {
            let Ip6Entry { target, next, counters } = Ip6Entry::find(members)?;
            let entry = IpEntry { target, next, counters };
            Ok(Self { table: XtTables::find(members)?, entry })
        };
        [v4(), v6()]
    }
}

/// Where nf_tables counts its commits.
#[derive(Clone, Copy, Debug)]
pub(super) enum BaseSeq {
    /// In `struct net` (Linux 6.17+), at this offset.
    Net(u64),
    /// In nf_tables' own structure of the namespace, which is found through its list of tables.
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
    fn find(members: &dyn Members) -> Result<Self, BtfError> {
        if let Ok(offset) = members.offset("net", "nft.base_seq") {
            return Ok(Self::Net(offset.into()));
        }
        Ok(Self::PerNet {
            net_gen: members.offset("net", "gen")?.into(),
            gen_ptr: members.offset("net_generic", "ptr")?.into(),
            gen_len: members.offset("net_generic", "s.len")?.into(),
            tables: members.offset("nftables_pernet", "tables")?.into(),
            base_seq: members.offset("nftables_pernet", "base_seq")?.into(),
        })
    }
}

/// A bit field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bits {
    /// Offset of the word of 8 bytes that it is in.
    word: u64,
    /// Lowest bit in that word, and number of bits.
    shift: u32,
    len: u32,
}

impl Bits {
    fn find(members: &dyn Members, strukt: &str, path: &str) -> Result<Self, BtfError> {
        let place = members.bit_field(strukt, path)?;
        Ok(Self::at(place))
    }

    fn at(place: MemberAt) -> Self {
        Self { word: u64::from(place.bit / 64 * 8), shift: place.bit % 64, len: place.bits }
    }

    /// The value of the bit field in a structure at an offset of these bytes.
    pub fn get(self, bytes: &[u8], at: u64) -> u64 {
        let mask = 1u64.checked_shl(self.len).map_or(u64::MAX, |end| end - 1);
        u64_at(bytes, at + self.word) >> self.shift & mask
    }
}

/// The header of a rule, before its expressions.
#[derive(Clone, Copy, Debug)]
pub(super) struct RuleHeader {
    pub handle: Bits,
    /// Bytes of expressions.
    pub len: Bits,
    /// Where they begin.
    pub data: u64,
}

impl RuleHeader {
    fn find(members: &dyn Members, strukt: &str) -> Result<Self, BtfError> {
        Ok(Self {
            handle: Bits::find(members, strukt, "handle")?,
            len: Bits::find(members, strukt, "dlen")?,
            data: members.offset(strukt, "data")?.into(),
        })
    }
}

/// How chains store the active rules, one set for each generation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rules {
    /// Linux 5.17+: `nft_chain.blob_gen_X` points to a blob of consecutive rules.
    Blobs {
        chain: [u64; 2],
        size: u64,
        data: u64,
        rule: RuleHeader,
        /// Set in the header behind the last rule.
        is_last: Bits,
    },
    /// Older kernels: `nft_chain.rules_gen_X` points to an array of pointers to rules that ends with a zero.
    Arrays { chain: [u64; 2], rule: RuleHeader },
}

impl Rules {
    fn find(members: &dyn Members) -> Result<Self, BtfError> {
        let pair = |first: &str, second: &str| -> Result<[u64; 2], BtfError> {
            Ok([
                members.offset("nft_chain", first)?.into(),
                members.offset("nft_chain", second)?.into(),
            ])
        };
        if let Ok(chain) = pair("rules_gen_0", "rules_gen_1") {
            return Ok(Self::Arrays { chain, rule: RuleHeader::find(members, "nft_rule")? });
        }
        Ok(Self::Blobs {
            chain: pair("blob_gen_0", "blob_gen_1")?,
            size: members.offset("nft_rule_blob", "size")?.into(),
            data: members.offset("nft_rule_blob", "data")?.into(),
            rule: RuleHeader::find(members, "nft_rule_dp")?,
            is_last: Bits::find(members, "nft_rule_dp", "is_last")?,
        })
    }
}

/// `struct nft_lookup`: the data of an expression that looks up an element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lookup {
    /// The register that gets the element's data.
    register: u64,
    /// `NFT_SET_MAP` if the elements have data.
    flags: u64,
}

impl Lookup {
    fn find(members: &dyn Members) -> Result<Self, BtfError> {
        Ok(Self {
            register: members.offset("nft_lookup", "dreg")?.into(),
            flags: members.offset("nft_lookup", "binding.flags")?.into(),
        })
    }

    /// Whether the lookup yields a verdict; the data of the expression begin at `data` of `rule`.
    pub fn gives_verdict(&self, rule: &[u8], data: u64) -> bool {
        const NFT_REG_VERDICT: u8 = 0;
        const NFT_SET_MAP: u32 = 8;
        rule.get((data + self.register) as usize) == Some(&NFT_REG_VERDICT)
            && u32_at(rule, data + self.flags) & NFT_SET_MAP != 0
    }
}

/// nf_tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct NfTablesLayout {
    pub tables: NfTables,
    pub base_seq: BaseSeq,
    pub rules: Rules,
    /// Offset of the per-CPU pointer in a counter's data.
    pub counter_pointer: u64,
    /// `None`: the layout is unknown, so any lookup may give a verdict.
    pub lookup: Option<Lookup>,
}

impl NfTablesLayout {
    fn find(members: &dyn Members) -> Result<Self, BtfError> {
        Ok(Self {
            tables: NfTables::find(members)?,
            base_seq: BaseSeq::find(members)?,
            rules: Rules::find(members)?,
            // Before Linux 5.18 the structure is in a module of its own, which may be loaded later. This is its only
            // member.
            counter_pointer: members
                .offset("nft_counter_percpu_priv", "counter")
                .map_or(0, u64::from),
            lookup: Lookup::find(members).ok(),
        })
    }
}

/// The whole layout. Parts that the kernel lacks (modules that are not loaded) are errors, which matter only when
/// such rules exist.
#[derive(Clone, Debug)]
pub struct IndexLayout {
    pub(super) hooks: Hooks,
    pub(super) nat: Result<Nat, String>,
    pub(super) nf_tables: Result<NfTablesLayout, String>,
    pub(super) counter_packets: u64,
    /// Of IPv4 and IPv6.
    pub(super) legacy: [Result<Legacy, String>; 2],
    pub(super) xt_packets: u64,
    /// The kernel supports one CPU only, so ip_tables counts in its entries.
    pub(super) one_cpu: bool,
}

impl IndexLayout {
    /// Resolves every offset.
    pub fn find(members: &dyn Members) -> Result<Self, BtfError> {
        let text = |error: BtfError| error.to_string();
        Ok(Self {
            hooks: Hooks::find(members)?,
            nat: Nat::find(members).map_err(text),
            nf_tables: NfTablesLayout::find(members).map_err(text),
            // `struct nft_counter` was `nft_counter_tot` for some versions; both words are u64.
            counter_packets: members.offset("nft_counter", "packets").map_or(8, u64::from),
            legacy: Legacy::find(members).map(|legacy| legacy.map_err(text)),
            xt_packets: members.offset("xt_counters", "pcnt").map_or(0, u64::from),
            one_cpu: nr_cpus().is_ok_and(|number| number == 1),
        })
    }

    /// Whether no module was missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.nf_tables.is_ok() && self.legacy.iter().all(Result::is_ok) && self.nat.is_ok()
    }

    /// `Range::word` of counters of nf_tables and of ip_tables.
    #[must_use]
    pub fn words(&self) -> (u16, u16) {
        let legacy = (self.xt_packets / 8) as u16;
        let shared = if self.one_cpu { RANGE_SHARED } else { 0 };
        ((self.counter_packets / 8) as u16, legacy | shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::btf::fixtures::{KERNELS, kernel, kernel_without};

    #[test]
    fn every_kernel_holds_rules_in_one_of_two_ways() {
        for name in KERNELS {
            let layout = IndexLayout::find(&kernel(name)).unwrap();
            let tables = layout.nf_tables.unwrap();
            let arrays = matches!(tables.rules, Rules::Arrays { chain: [0, 8], .. });
            assert_eq!(arrays, name.contains("5.15"), "{name}");
            // Linux 6.17 moved the number of the last commit to `struct net`, and so did stable updates of older
            // kernels.
            let per_net = matches!(tables.base_seq, BaseSeq::PerNet { .. });
            assert_eq!(per_net, arrays || name == "debian-6.1", "{name}");
            assert_eq!((tables.counter_pointer, layout.counter_packets), (0, 8), "{name}");
            assert!(layout.nat.is_ok(), "{name}");
            for legacy in layout.legacy {
                let XtTables { target, target_function, .. } = legacy.unwrap().table;
                assert_eq!((target, target_function), (8, 48), "{name}");
            }
            // The value that is assumed before x_tables is loaded.
            let data = kernel(name).member_offset("xt_action_param", "targinfo").unwrap();
            assert_eq!(data, 8, "{name}");
        }
    }

    #[test]
    fn bit_fields_are_cut_out_of_their_words() {
        let mut bytes = [0xff; 16].to_vec();
        bytes.extend((1u64 << 56 | 0x30 << 44 | 2 << 42 | 7).to_ne_bytes());
        let value = |bit, bits| Bits::at(MemberAt { bit, bits }).get(&bytes, 0);
        assert_eq!((value(128, 42), value(170, 2), value(172, 12)), (7, 2, 0x30));
        assert_eq!((value(0, 64), value(63, 1)), (u64::MAX, 1));
        // Beyond the end.
        assert_eq!(value(192, 12), 0);
    }

    #[test]
    fn modules_that_are_not_loaded_matter_once_they_are_needed() {
        let btf = kernel_without("debian-6.12", &["nf_tables", "ip6_tables", "nft_compat"]);
        let layout = IndexLayout::find(&btf).unwrap();
        assert_eq!(
            layout.nf_tables.unwrap_err(),
            "the kernel's BTF has no `struct nft_rule_dp`: module nf_tables is not loaded, or has no BTF"
        );
        let [v4, v6] = layout.legacy;
        assert!(v4.is_ok());
        assert_eq!(
            v6.unwrap_err(),
            "the kernel's BTF has no `struct ip6t_entry`: module ip6_tables is not loaded, or has no BTF"
        );
    }
}
