//! Functions that hang at netfilter's hooks, told by their addresses.

use std::{collections::HashMap, fs};

use anyhow::{Context, Result, bail};

/// What a function at a hook does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// Connection tracking, on PREROUTING and OUTPUT.
    Conntrack,
    /// Confirms new connections, on INPUT and POSTROUTING.
    Confirm,
    /// Calls the base chains of NAT.
    Nat,
    /// Evaluates a base chain of nf_tables.
    NfTables,
    /// Evaluates a table of ip_tables or ip6_tables.
    Legacy,
    /// A BPF program: ours, or somebody else's.
    Bpf,
    /// Something else, which has no rules.
    Other,
}

/// What a symbol is, by its name (net/netfilter/nf_conntrack_proto.c, nf_nat_proto.c,
/// nft_chain_filter.c, nft_chain_nat.c, nft_chain_route.c, net/ipv4/netfilter/*.c).
fn classify(name: &str) -> Option<Function> {
    Some(match name {
        "ipv4_conntrack_in"
        | "ipv6_conntrack_in"
        | "ipv4_conntrack_local"
        | "ipv6_conntrack_local" => Function::Conntrack,
        "nf_confirm" | "ipv4_confirm" | "ipv6_confirm" => Function::Confirm,
        "nft_do_chain_ipv4"
        | "nft_do_chain_ipv6"
        | "nft_do_chain_inet"
        | "nft_nat_do_chain"
        | "nf_route_table_hook4"
        | "nf_route_table_hook6"
        | "nf_route_table_inet" => Function::NfTables,
        "ipt_do_table" | "ip6t_do_table" | "iptable_mangle_hook" | "ip6table_mangle_hook" => {
            Function::Legacy
        }
        "nf_hook_run_bpf" => Function::Bpf,
        _ if name.starts_with("nf_nat_ipv4_") || name.starts_with("nf_nat_ipv6_") => Function::Nat,
        _ => return None,
    })
}

/// Addresses of the functions that matter. Worth keeping: /proc/kallsyms takes a tenth of a second to
/// read.
#[derive(Clone, Debug)]
pub struct Symbols(HashMap<u64, Function>);

impl Symbols {
    /// Reads /proc/kallsyms.
    ///
    /// # Errors
    /// It hides addresses (kernel.kptr_restrict).
    pub fn read() -> Result<Self> {
        let symbols = fs::read_to_string("/proc/kallsyms").context("cannot read /proc/kallsyms")?;
        Self::parse(&symbols)
    }

    fn parse(symbols: &str) -> Result<Self> {
        let functions: HashMap<u64, Function> = symbols.lines().filter_map(line).collect();
        if functions.contains_key(&0) {
            bail!("/proc/kallsyms hides addresses (see kernel.kptr_restrict)");
        }
        Ok(Self(functions))
    }

    /// What the function at an address is.
    #[must_use]
    pub fn function(&self, address: u64) -> Function {
        self.0.get(&address).copied().unwrap_or(Function::Other)
    }
}

/// Address and meaning of one line.
fn line(line: &str) -> Option<(u64, Function)> {
    let mut words = line.split_ascii_whitespace();
    let address = words.next()?;
    let function = classify(words.nth(1)?)?;
    Some((u64::from_str_radix(address, 16).ok()?, function))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_known_by_their_whole_names() {
        let symbols = Symbols::parse(
            "ffffffff81000000 T _text\nffffffffc0001230 t ipv4_conntrack_in\t[nf_conntrack]\n\
             ffffffffc0001240 t nf_nat_ipv4_out\t[nf_nat]\nffffffffc0001250 T ipt_do_table_x\n",
        )
        .unwrap();
        assert_eq!(symbols.function(0xffff_ffff_c000_1230), Function::Conntrack);
        assert_eq!(symbols.function(0xffff_ffff_c000_1240), Function::Nat);
        assert_eq!(symbols.function(0xffff_ffff_c000_1250), Function::Other);
        assert_eq!(symbols.function(0xffff_ffff_8100_0000), Function::Other);
    }

    #[test]
    fn hidden_addresses_are_an_error() {
        assert!(Symbols::parse("0000000000000000 t ipt_do_table\n").is_err());
    }
}
