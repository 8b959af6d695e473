//! A step of a packet through the firewall, as the oracle and the tracer are compared by it.

use std::fmt;

/// The part of the kernel that holds a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Backend {
    /// nf_tables.
    Nft,
    /// ip_tables and ip6_tables.
    Legacy,
}

impl Backend {
    /// By its name in reports.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "nft" => Some(Self::Nft),
            "legacy" => Some(Self::Legacy),
            _ => None,
        }
    }
}

/// Where a packet is when it meets base chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Everything that came in.
    Prerouting,
    /// For the router.
    Input,
    /// For others.
    Forward,
    /// From the router.
    Output,
    /// Everything that goes out.
    Postrouting,
}

impl Hook {
    /// In the order of the kernel's numbers.
    pub const ALL: [Self; 5] =
        [Self::Prerouting, Self::Input, Self::Forward, Self::Output, Self::Postrouting];

    /// Its name in nft.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }

    /// By its name, in small letters or in capitals.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.name().eq_ignore_ascii_case(name))
    }
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainName {
    /// Who holds its table.
    pub backend: Backend,
    /// Family of its table, by its name in nft.
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backend, family, table, name } = self;
        let legacy = if *backend == Backend::Legacy { " (legacy)" } else { "" };
        write!(f, "{family} {table}{legacy} {name}")
    }
}

/// What stands at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepKind {
    /// A rule.
    Rule,
    /// The policy of a base chain.
    Policy,
    /// The end of a user chain.
    Return,
    /// A base chain of which no more is known. The oracle always knows more.
    Chain,
}

/// What a step did with the packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Passed the base chain.
    Accept,
    /// Dropped.
    Drop,
    /// Dropped, and the sender was told.
    Reject,
    /// Went on to the next rule.
    Continue,
    /// Left the chain.
    Return,
    /// Went to a chain, to come back.
    Jump(String),
    /// Went to a chain for good.
    Goto(String),
    /// Given to a program.
    Queue,
    /// Taken.
    Stolen,
    /// Not known.
    Unknown,
}

impl Verdict {
    /// Whether the base chain ends with it.
    #[must_use]
    pub fn ends(&self) -> bool {
        matches!(self, Self::Accept | Self::Drop | Self::Reject | Self::Queue | Self::Stolen)
    }

    /// By its name in reports.
    #[must_use]
    pub fn parse(name: &str, target: Option<&str>) -> Option<Self> {
        let target = || target.map(str::to_owned);
        Some(match name {
            "accept" => Self::Accept,
            "drop" => Self::Drop,
            "reject" => Self::Reject,
            "continue" => Self::Continue,
            "return" => Self::Return,
            "jump" => Self::Jump(target()?),
            "goto" => Self::Goto(target()?),
            "queue" => Self::Queue,
            "stolen" => Self::Stolen,
            "unknown" => Self::Unknown,
            _ => return None,
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            other => f.write_str(&format!("{other:?}").to_lowercase()),
        }
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Step {
    /// Chain.
    pub chain: ChainName,
    /// What stands there.
    pub kind: StepKind,
    /// Number in the chain from 1; the end of a chain is one more than its last rule. 0 for
    /// [`StepKind::Chain`].
    pub position: u32,
    /// nf_tables' handle of a rule.
    pub handle: Option<u64>,
    /// What became of the packet.
    pub verdict: Verdict,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chain, kind, position, handle, verdict } = self;
        write!(f, "{chain} {} {position}", format!("{kind:?}").to_lowercase())?;
        if let Some(handle) = handle {
            write!(f, " (handle {handle})")?;
        }
        write!(f, ": {verdict}")
    }
}
