//! Is conntrack active in a namespace? It is where its hook functions are registered, which the
//! kernel does when a rule needs them, and undoes when the last such rule goes.

use std::fs;

use anyhow::{Context, Result, bail};

use super::object::Programs;
use crate::kernel::netns::Netns;

/// conntrack's functions on PREROUTING (net/netfilter/nf_conntrack_proto.c).
const FUNCTIONS: [&str; 2] = ["ipv4_conntrack_in", "ipv6_conntrack_in"];

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
    /// The hooks cannot be read, or /proc/kallsyms hides addresses (kernel.kptr_restrict).
    pub fn of(programs: &Programs, netns: &Netns) -> Result<Self> {
        let [v4, v6] = programs.prerouting_functions(netns)?;
        let symbols = fs::read_to_string("/proc/kallsyms").context("cannot read /proc/kallsyms")?;
        let [conntrack_v4, conntrack_v6] = FUNCTIONS.map(|name| address(&symbols, name));
        match (conntrack_v4, conntrack_v6) {
            // Not loaded at all, so certainly not active.
            (None, None) => Ok(Self { v4: false, v6: false }),
            (Some(0), _) | (_, Some(0)) => {
                bail!("/proc/kallsyms hides addresses (see kernel.kptr_restrict)")
            }
            (at_v4, at_v6) => Ok(Self {
                v4: at_v4.is_some_and(|at| v4.contains(&at)),
                v6: at_v6.is_some_and(|at| v6.contains(&at)),
            }),
        }
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
