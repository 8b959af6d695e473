//! The status of an agent as `conntracker status` gets it. docs/status.md describes it, so a change here needs one there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Now, Published, ReportWritten, StatusBoard};
use crate::{live::assemble::VERSION, model::loss::LossCount, os::memory, report::time};

/// What an agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It attaches, and reads the first rulesets.
    Starting,
    /// It observes.
    Observing,
    /// It makes its last report.
    Finishing,
    /// One that this version does not know.
    #[serde(other)]
    Unknown,
}

/// The status of an agent. Members that are missing have their defaults: an older agent may not have them. Times are
/// RFC 3339.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentStatus {
    /// What it does.
    pub state: State,
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it published what follows; `None` while it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<String>,
    /// How many milliseconds ago that was. Much more than a second: the agent hangs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// Since when it observes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// What it observes with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendStatus>,
    /// Names of the namespaces that it observes now.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Flows in its table.
    #[serde(default)]
    pub flows: u64,
    /// Room for flows.
    #[serde(default)]
    pub max_flows: u64,
    /// Records and events so far.
    #[serde(default)]
    pub records: u64,
    /// The losses that are not zero, by name.
    #[serde(default)]
    pub losses: BTreeMap<String, u64>,
    /// Their sum.
    #[serde(default)]
    pub lost: u64,
    /// What was asked for and is not told at all.
    #[serde(default)]
    pub untold: Vec<String>,
    /// Epochs of the rulesets; `None` while it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<RulesStatus>,
    /// The filters as given on its command line.
    #[serde(default)]
    pub filters: Vec<String>,
    /// Its reports.
    pub report: ReportStatus,
    /// Its memory; `None` without /proc.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryStatus>,
}

/// What an agent observes with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its name.
    pub name: String,
    /// Why it was taken.
    pub reason: String,
}

/// The rulesets that an agent traces.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RulesStatus {
    /// How many epochs began.
    pub epochs: u64,
    /// When the last one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_began: Option<String>,
    /// Why rules are not traced, if they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_traced: Option<String>,
}

/// Reports of an agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportStatus {
    /// The file, `standard output` or `none`.
    pub destination: String,
    /// When the last one was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_written: Option<String>,
    /// Lines of flows in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_flows: Option<u64>,
}

/// Memory of an agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// Bytes that it has now.
    pub resident_bytes: u64,
    /// The most that it had.
    pub peak_bytes: u64,
}

impl AgentStatus {
    /// What the board says now.
    pub(super) fn of(board: &StatusBoard) -> Self {
        let Now { state, published, report } = board.now();
        let time_of_day = board.clock.time_of_day();
        let text = |since_boot_ns| time(time_of_day.of(since_boot_ns)).to_string();
        let mut status = Self {
            state,
            version: VERSION.to_owned(),
            pid: std::process::id(),
            published: None,
            age_ms: None,
            start: None,
            backend: None,
            namespaces: Vec::new(),
            flows: 0,
            max_flows: 0,
            records: 0,
            losses: BTreeMap::new(),
            lost: 0,
            untold: Vec::new(),
            rules: None,
            filters: board.filters.clone(),
            report: ReportStatus {
                destination: board.destination.clone(),
                last_written: report.map(|written| text(written.at_ns)),
                last_flows: report.map(|ReportWritten { flows, .. }| flows),
            },
            memory: memory::resident()
                .map(|memory| MemoryStatus { resident_bytes: memory.now, peak_bytes: memory.most }),
        };
        if let Some(published) = published {
            status.fill(&published, board.clock.since_boot(), text);
        }
        status
    }

    /// Adds what the loop published.
    fn fill(&mut self, published: &Published, now_ns: u64, text: impl Fn(u64) -> String) {
        let Published {
            at_ns,
            start_ns,
            backend,
            backend_reason,
            namespaces,
            flows,
            max_flows,
            records,
            losses,
            untold,
            epochs,
        } = published;
        self.published = Some(text(*at_ns));
        self.age_ms = Some(now_ns.saturating_sub(*at_ns) / 1_000_000);
        self.start = Some(text(*start_ns));
        self.backend =
            Some(BackendStatus { name: (*backend).to_owned(), reason: backend_reason.clone() });
        self.namespaces.clone_from(namespaces);
        self.flows = *flows as u64;
        self.max_flows = *max_flows as u64;
        self.records = *records;
        let some = losses.iter().filter(|lost| lost.count > 0);
        self.losses =
            some.map(|LossCount { loss, count }| (loss.name().to_owned(), *count)).collect();
        self.lost = self.losses.values().sum();
        self.untold.clone_from(untold);
        self.rules = Some(match epochs {
            Ok((epochs, began_ns)) => RulesStatus {
                epochs: *epochs,
                last_began: (*epochs > 0).then(|| text(*began_ns)),
                not_traced: None,
            },
            Err(why) => RulesStatus { epochs: 0, last_began: None, not_traced: Some(why.clone()) },
        });
    }
}
