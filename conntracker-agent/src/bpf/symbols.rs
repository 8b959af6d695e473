//! Functions at netfilter's hooks, identified by their addresses.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
};

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
    /// A BPF program, of this agent or of another program.
    Bpf,
    /// Another function, which evaluates no rules.
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
        // Linux 5.15 has a function for each table.
        "ipt_do_table"
        | "iptable_filter_hook"
        | "iptable_mangle_hook"
        | "iptable_nat_do_chain"
        | "iptable_raw_hook"
        | "iptable_security_hook"
        | "ip6t_do_table"
        | "ip6table_filter_hook"
        | "ip6table_mangle_hook"
        | "ip6table_nat_do_chain"
        | "ip6table_raw_hook"
        | "ip6table_security_hook" => Function::Legacy,
        "nf_hook_run_bpf" => Function::Bpf,
        _ if name.starts_with("nf_nat_ipv4_") || name.starts_with("nf_nat_ipv6_") => Function::Nat,
        _ => return None,
    })
}

/// /proc/kallsyms as it was read.
pub struct Kallsyms(String);

/// Functions by their addresses. They take some megabytes, which saves reading /proc/kallsyms again while packets
/// wait.
#[derive(Debug, Default)]
pub struct Functions {
    /// The start of each function, and of its name.
    starts: Vec<(u64, u32)>,
    /// The names, a line for each.
    names: String,
}

impl Functions {
    /// The function that an address is in.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<&str> {
        let next = self.starts.partition_point(|(start, _)| *start <= address);
        let &(_, name) = self.starts.get(next.checked_sub(1)?)?;
        self.names.get(name as usize..)?.lines().next()
    }
}

/// Name of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The function.
    pub function: String,
    /// Its module; `None`: vmlinux.
    pub module: Option<String>,
}

impl Kallsyms {
    /// Reads /proc/kallsyms, which takes a tenth of a second.
    ///
    /// # Errors The kernel hides addresses (kernel.kptr_restrict).
    pub fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/kallsyms").context("cannot read /proc/kallsyms")?;
        Self::parse(text)
    }

    /// As [`Kallsyms::read`], of what was read.
    pub(super) fn parse(text: String) -> Result<Self> {
        let symbols = Self(text);
        if symbols.lines().any(|(address, name, _)| address == 0 && classify(name).is_some()) {
            bail!("/proc/kallsyms hides addresses (see kernel.kptr_restrict)");
        }
        Ok(symbols)
    }

    /// Address, name, and module of each symbol.
    fn lines(&self) -> impl Iterator<Item = (u64, &str, Option<&str>)> {
        self.0.lines().filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            let name = words.nth(1)?;
            let module = words.next().map(|module| module.trim_matches(['[', ']']));
            Some((address, name, module))
        })
    }

    /// Names of all functions, and of data.
    #[must_use]
    pub fn names(&self) -> HashSet<&str> {
        self.lines().map(|(_, name, _)| name).collect()
    }

    /// All functions of vmlinux and of the modules that are loaded.
    #[must_use]
    pub fn functions(&self) -> Functions {
        let mut functions = Functions::default();
        for line in self.0.lines() {
            let mut words = line.split_ascii_whitespace();
            let (address, kind, name) = (words.next(), words.next(), words.next());
            let (Some(address), Some("t" | "T" | "w" | "W"), Some(name)) = (address, kind, name)
            else {
                continue;
            };
            let Ok(address) = u64::from_str_radix(address, 16) else { continue };
            functions.starts.push((address, functions.names.len() as u32));
            functions.names.push_str(name);
            functions.names.push('\n');
        }
        functions.starts.sort_unstable();
        functions
    }

    /// Address and length of a function of vmlinux; `None` if there is none of this name, or if addresses are hidden.
    #[must_use]
    pub fn span(&self, function: &str) -> Option<Span> {
        let wanted =
            |(_, name, module): &(u64, &str, Option<&str>)| module.is_none() && *name == function;
        let (start, ..) = self.lines().find(wanted)?;
        let ends = self.lines().map(|(address, ..)| address).filter(|&address| address > start);
        let len = ends.min()? - start;
        (start != 0).then_some(Span { start, len })
    }

    /// The names of the symbols at these addresses. An address may have several, because the memory of a module's
    /// initial code is freed and reused.
    #[must_use]
    pub fn at(&self, wanted: &BTreeSet<u64>) -> HashMap<u64, Vec<Name>> {
        let mut found: HashMap<u64, Vec<Name>> = HashMap::new();
        for (address, name, module) in self.lines() {
            if wanted.contains(&address) {
                let (function, module) = (name.to_owned(), module.map(str::to_owned));
                found.entry(address).or_default().push(Name { function, module });
            }
        }
        found
    }
}

/// Where a function lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its address.
    pub start: u64,
    /// Bytes up to the next symbol.
    pub len: u64,
}

/// Addresses of the functions that matter.
#[derive(Clone, Debug)]
pub struct Symbols {
    known: HashMap<u64, Function>,
    /// Addresses that were looked up and are of no interest.
    others: HashSet<u64>,
}

impl Symbols {
    /// Those that the kernel has now.
    #[must_use]
    pub fn of(symbols: &Kallsyms) -> Self {
        let known = symbols.lines().filter_map(|(at, name, _)| Some((at, classify(name)?)));
        Self { known: known.collect(), others: HashSet::new() }
    }

    /// What the function at an address is.
    #[must_use]
    pub fn function(&self, address: u64) -> Function {
        self.known.get(&address).copied().unwrap_or(Function::Other)
    }

    /// Reads the symbols again if one of these addresses was not looked up before, because a module was loaded since.
    /// True if one of them is a function of interest.
    ///
    /// # Errors
    /// As [`Kallsyms::read`].
    pub fn learn(&mut self, addresses: impl Iterator<Item = u64>) -> Result<bool> {
        let seen = |at: &u64| self.known.contains_key(at) || self.others.contains(at);
        let new: Vec<u64> = addresses.filter(|at| !seen(at)).collect();
        if new.is_empty() {
            return Ok(false);
        }
        self.known = Self::of(&Kallsyms::read()?).known;
        let (found, others): (Vec<u64>, Vec<u64>) =
            new.into_iter().partition(|at| self.known.contains_key(at));
        self.others.extend(others);
        Ok(!found.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_the_function_that_begins_before_it() {
        let text = "ffffffff81000100 T second\nffffffff81000000 t first\nffffffff81000180 d data\n\
                    ffffffffc0000000 t third\t[module]\n";
        let functions = Kallsyms::parse(text.to_owned()).unwrap().functions();
        let at = |address| functions.at(address);
        assert_eq!([at(0xffff_ffff_8100_0000), at(0xffff_ffff_8100_00ff)], [Some("first"); 2]);
        assert_eq!(
            [at(0xffff_ffff_8100_0190), at(0xffff_ffff_c000_0001)],
            [Some("second"), Some("third")]
        );
        assert_eq!(at(1), None);
    }

    #[test]
    fn symbols_are_known_by_their_whole_names() {
        let symbols = Kallsyms::parse(
            "ffffffff81000000 T _text\nffffffffc0001230 t ipv4_conntrack_in\t[nf_conntrack]\n\
             ffffffffc0001240 t nf_nat_ipv4_out\t[nf_nat]\nffffffffc0001250 T ipt_do_table_x\n"
                .to_owned(),
        )
        .unwrap();
        let names = symbols.at(&BTreeSet::from([0xffff_ffff_c000_1240, 5]));
        let nat = Name { function: "nf_nat_ipv4_out".into(), module: Some("nf_nat".into()) };
        assert_eq!(names, HashMap::from([(0xffff_ffff_c000_1240, vec![nat])]));
        assert!(symbols.names().contains("ipt_do_table_x"));
        let symbols = Symbols::of(&symbols);
        assert_eq!(symbols.function(0xffff_ffff_c000_1230), Function::Conntrack);
        assert_eq!(symbols.function(0xffff_ffff_c000_1240), Function::Nat);
        assert_eq!(symbols.function(0xffff_ffff_c000_1250), Function::Other);
        assert_eq!(symbols.function(0xffff_ffff_8100_0000), Function::Other);
    }

    #[test]
    fn functions_reach_to_the_next_symbol_wherever_that_is_listed() {
        let symbols = Kallsyms::parse(
            "ffffffff81000100 t next\nffffffffc0000000 t f\t[module]\nffffffff81000000 T f\n\
             ffffffff81000000 T alias\n0000000000000000 A per_cpu\n0000000000000010 A hidden\n"
                .to_owned(),
        )
        .unwrap();
        assert_eq!(symbols.span("f"), Some(Span { start: 0xffff_ffff_8100_0000, len: 0x100 }));
        assert_eq!(symbols.span("per_cpu"), None);
        assert_eq!(symbols.span("g"), None);
    }

    #[test]
    fn hidden_addresses_are_an_error() {
        assert!(Kallsyms::parse("0000000000000000 t ipt_do_table\n".to_owned()).is_err());
    }
}
