//! What to observe and how.

use std::{collections::HashSet, sync::Arc};

use anyhow::Result;

use super::tracing::RuleOptions;
use crate::{
    bpf::{probes::Method, sizes::Sizes},
    model::filter::Filter,
    os::netns::Netns,
    recording,
};

/// Which network namespaces to observe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NetnsChoice {
    /// The agent's own.
    #[default]
    Current,
    /// These.
    Named(Vec<String>),
    /// All namespaces, also those that are created later.
    All,
}

impl NetnsChoice {
    /// Opens them, and warns about those that cannot be opened.
    pub fn open(&self) -> Result<Vec<Arc<Netns>>> {
        let (opened, refused) = self.open_or_refuse()?;
        for why in refused {
            log::warn!("a namespace is left out: {why}");
        }
        Ok(opened)
    }

    /// Opens them, and returns a line for each that cannot be opened.
    pub(crate) fn open_or_refuse(&self) -> Result<(Vec<Arc<Netns>>, Vec<String>)> {
        let mut refused = Vec::new();
        let opened = match self {
            Self::Current => vec![Netns::current()?],
            Self::Named(names) => {
                let mut seen = HashSet::new();
                let all: Vec<Netns> =
                    names.iter().map(|name| Netns::named(name)).collect::<Result<_>>()?;
                all.into_iter().filter(|netns| seen.insert(netns.inode)).collect()
            }
            Self::All => {
                let opened;
                (opened, refused) = Netns::all()?;
                opened
            }
        };
        Ok((opened.into_iter().map(Arc::new).collect(), refused))
    }
}

/// `--backend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// The most exact one that works.
    #[default]
    Auto,
    /// Netfilter BPF links (Linux 6.4+).
    Links,
    /// Probes in functions of the kernel.
    Probes,
    /// Conntrack dumps and events.
    Netlink,
}

/// What to observe and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespaces.
    pub netns: NetnsChoice,
    /// Backend.
    pub backend: BackendChoice,
    /// How probes are attached; `None`: by fentry, or by kprobes where that fails.
    pub attach: Option<Method>,
    /// Functions of the kernel that probes must not use; alternatives are taken.
    pub avoid: Vec<String>,
    /// Which flows.
    pub filter: Filter,
    /// The filters as the user wrote them, for the report's header.
    pub filter_text: Vec<String>,
    /// Merge flows by their folded key.
    pub fold: bool,
    /// How to trace rules; `None` for flows only (`-c`).
    pub rules: Option<RuleOptions>,
    /// Whether to report packets that another part of the kernel than netfilter drops.
    pub lost: bool,
    /// Room for flows: those that nothing told of for the longest time are summed up.
    pub max_flows: usize,
    /// Flows that have ended leave the table once a report with their lines is written; they are summed up.
    pub leave_written: bool,
    /// Where to record what is seen, if that is wanted.
    pub record: Option<recording::Options>,
    /// Sizes of the kernel side.
    pub sizes: Sizes,
    /// Receive buffer of the event sockets in bytes.
    pub event_buffer: usize,
}

impl Config {
    /// Whether flows are folded as they are seen, in the programs and in the flow table. If the filter needs more
    /// than the folded key, they are folded when the report is made.
    pub(crate) fn folds_at_once(&self) -> bool {
        self.fold && self.filter.folded_key_decides()
    }
}
