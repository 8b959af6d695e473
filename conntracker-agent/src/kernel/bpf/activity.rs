//! Is conntrack active in a namespace? It is where its hook functions are registered, which the
//! kernel does when a rule needs them, and undoes when the last such rule goes.

use std::fs;

use anyhow::{Context, Result, bail};

use super::object::Programs;
use crate::kernel::netns::Netns;

/// conntrack's functions on PREROUTING (net/netfilter/nf_conntrack_proto.c).
const FUNCTIONS: [&str; 2] = ["ipv4_conntrack_in", "ipv6_conntrack_in"];

/// Addresses of [`FUNCTIONS`]. Worth keeping: /proc/kallsyms takes a tenth of a second to read.
#[derive(Clone, Copy, Debug)]
pub struct Symbols([Option<u64>; 2]);

impl Symbols {
    /// Reads /proc/kallsyms.
    ///
    /// # Errors
    /// It hides addresses (kernel.kptr_restrict).
    pub fn read() -> Result<Self> {
        let symbols = fs::read_to_string("/proc/kallsyms").context("cannot read /proc/kallsyms")?;
        let found = FUNCTIONS.map(|name| address(&symbols, name));
        if found.contains(&Some(0)) {
            bail!("/proc/kallsyms hides addresses (see kernel.kptr_restrict)");
        }
        Ok(Self(found))
    }
}

/// Where conntrack is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// For IPv4.
    pub v4: bool,
    /// For IPv6.
    pub v6: bool,
}

impl Activity {
    /// Looks at the hooks of `netns`.
    ///
    /// # Errors
    /// The hooks cannot be read.
    pub fn of(programs: &Programs, symbols: &Symbols, netns: &Netns) -> Result<Self> {
        let [on_v4, on_v6] = programs.prerouting_functions(netns)?;
        // A function that does not exist is on no hook: conntrack is not loaded.
        let hangs = |on: &[u64], at: Option<u64>| at.is_some_and(|at| on.contains(&at));
        let Symbols([v4, v6]) = *symbols;
        Ok(Self { v4: hangs(&on_v4, v4), v6: hangs(&on_v6, v6) })
    }
}

/// Address of a symbol in the text of /proc/kallsyms.
fn address(symbols: &str, wanted: &str) -> Option<u64> {
    symbols.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next()?;
        (words.nth(1)? == wanted).then(|| u64::from_str_radix(address, 16).ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_found_by_their_whole_name() {
        let text =
            "ffffffff81000000 T _text\nffffffffc0001230 t ipv4_conntrack_in\t[nf_conntrack]\n";
        assert_eq!(address(text, "ipv4_conntrack_in"), Some(0xffff_ffff_c000_1230));
        assert_eq!(address(text, "conntrack_in"), None);
    }
}
