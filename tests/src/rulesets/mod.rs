//! Rulesets by number, always the same ones, for the packets of [`crate::burst`]: what the tracer
//! says of them is compared with what the kernel says of them ([`crate::oracle`]).
//!
//! They are not sensible firewalls. They are made so that most packets match many rules, and that
//! over a few hundred of them every kind of rule, hook and chain meets a packet.

mod feature;
mod iptables;
mod nft;
mod random;

use std::fmt;

use anyhow::{Context, Result};

pub use feature::{FEATURES, features};
pub use random::Random;

use crate::lab::Host;

/// What a ruleset is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// nft, a counter in each rule, where it moves exactly when the rule matches.
    Nft,
    /// The same rules; some have no counter, some have it where it moves too often.
    NftMixed,
    /// The same rules without counters.
    NftBare,
    /// iptables-nft and ip6tables-nft.
    IptablesNft,
    /// iptables-legacy and ip6tables-legacy.
    IptablesLegacy,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Nft, Self::NftMixed, Self::NftBare, Self::IptablesNft, Self::IptablesLegacy];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft with counters",
            Self::NftMixed => "nft, some counters",
            Self::NftBare => "nft without counters",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
        })
    }
}

/// A chain of a ruleset, as it was written.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Family of its table, by its name in nft.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// `type … hook … priority …; policy …` of a base chain; the policy alone for iptables.
    pub base: Option<String>,
    /// Its rules.
    pub rules: Vec<String>,
}

/// A ruleset.
#[derive(Clone, Debug)]
pub struct Ruleset {
    /// Kind.
    pub kind: Kind,
    /// Number, from 0.
    pub number: u32,
    /// Programs to run, and what each of them reads.
    pub loads: Vec<(&'static str, String)>,
    /// All chains.
    pub chains: Vec<Chain>,
}

/// The table that makes the kernel trace. Nothing of it counts as ruleset.
pub const ORACLE_TABLE: &str = "ct_oracle";

/// Where the tracing begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    /// Before every chain and before conntrack.
    First,
    /// After conntrack's hook: there is no chain before it, so that the tracer need not care for
    /// packets before that.
    AfterConntrack,
}

/// The table that makes the kernel trace from the first moment on, for rulesets from elsewhere.
#[must_use]
pub fn tracing() -> String {
    oracle_table(Begin::First)
}

fn oracle_table(begin: Begin) -> String {
    let priority = match begin {
        Begin::First => -450,
        Begin::AfterConntrack => -198,
    };
    format!(
        "table inet {ORACLE_TABLE} {{\n\
         \tchain pre {{ type filter hook prerouting priority {priority}; meta nftrace set 1; }}\n\
         \tchain out {{ type filter hook output priority {priority}; meta nftrace set 1; }}\n}}\n"
    )
}

impl Ruleset {
    /// The ruleset of this number.
    #[must_use]
    pub fn generate(kind: Kind, number: u32) -> Self {
        match kind {
            Kind::Nft | Kind::NftMixed | Kind::NftBare => nft::generate(kind, number),
            Kind::IptablesNft | Kind::IptablesLegacy => iptables::generate(kind, number),
        }
    }

    /// Replaces whatever the namespace has.
    pub fn load(&self, host: &Host) -> Result<()> {
        for (program, text) in &self.loads {
            let args: &[&str] = match *program {
                "nft" => &["nft", "-f", "-"],
                restore => &[restore],
            };
            host.run_with_input(args, text).with_context(|| format!("loading {self}"))?;
        }
        Ok(())
    }

    /// A rule by its place, positions counted from 1.
    #[must_use]
    pub fn rule(&self, family: &str, table: &str, chain: &str, position: u32) -> Option<&str> {
        let same = |c: &&Chain| c.family == family && c.table == table && c.name == chain;
        let found = self.chains.iter().find(same)?;
        found.rules.get(position.checked_sub(1)? as usize).map(String::as_str)
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ruleset {} of kind «{}»:", self.number, self.kind)?;
        for (program, text) in &self.loads {
            write!(f, "\n# {program}\n{text}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
