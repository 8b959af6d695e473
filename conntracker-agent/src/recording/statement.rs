//! What a recording says besides events: one JSON document in a block.
//!
//! A reader leaves out members that it does not know, and takes the default for those that a writer did not have.

use serde::{Deserialize, Serialize};

use crate::firewall::objects::KernelObjects;

/// What was observed, where, and with what. Stated again when something of it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Header {
    /// Version of the conntracker that wrote it.
    pub version: String,
    /// Host name.
    pub host: String,
    /// Kernel release.
    pub kernel: String,
    /// Backend.
    pub backend: String,
    /// Why this backend.
    pub backend_reason: String,
    /// Namespaces.
    pub namespaces: Vec<Namespace>,
    /// When the observation began: nanoseconds since the epoch.
    pub start_ns: u64,
    /// The filters as options of the command line. The events are those of the flows that may pass it.
    pub filters: Vec<String>,
    /// Flows are folded.
    pub folded: bool,
    /// They were folded as they were seen. Otherwise the flow table has them one by one, and the report folds them.
    pub folded_at_once: bool,
    /// Epochs of the ruleset, `None` where rules are not traced.
    pub epochs: Option<u64>,
    /// Remarks for the reader.
    pub notes: Vec<String>,
    /// Why the rules are not traced, if they are not.
    pub without_rules: Option<String>,
    /// What was asked for and is missing.
    pub untold: Vec<String>,
}

/// A network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// Number by which events refer to it.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Interfaces: number by which events refer to it, the kernel's index, its name then.
    pub interfaces: Vec<(u32, u32, String)>,
    /// Base chains at hooks where packets are not traced.
    pub untraced: Vec<String>,
}

/// Counts from the beginning of the observation to a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// When they were taken: nanoseconds since boot.
    pub at_ns: u64,
    /// How the time since boot was related to the time of day then: one of each.
    pub clock: (u64, u64),
    /// What the sources delivered, by name.
    pub sources: Vec<(String, u64)>,
    /// What was lost, by the name of the loss.
    pub losses: Vec<(String, u64)>,
}

/// Names for the numbers that processes in events have. Later statements add to earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Owners {
    /// Process ids in events are those of the observer's pid namespace.
    pub same_pids: bool,
    /// Users: number and name.
    pub users: Vec<(u32, String)>,
    /// Sockets, by inode: process id and name, where they are certain.
    pub sockets: Vec<(u64, Option<u32>, Option<String>)>,
    /// Control groups: number and path.
    pub cgroups: Vec<(u64, String)>,
}

impl Owners {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.sockets.is_empty() && self.cgroups.is_empty()
    }
}

/// The ruleset of a namespace in an epoch, as its tools list it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ruleset {
    /// Namespace.
    pub netns: u32,
    /// The epoch.
    pub epoch: u32,
    /// When it began: nanoseconds since boot.
    pub at_ns: u64,
    /// Listings: the command, and what it printed.
    pub listings: Vec<(String, String)>,
    /// What the kernel has; its bytes stand in columns of their own.
    #[serde(flatten)]
    pub objects: KernelObjects,
}

/// Something is missing here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gap {
    /// Events that were not written.
    pub records: u64,
    /// Times of the first and the last of them: nanoseconds since boot.
    pub first_ns: u64,
    /// See `first_ns`.
    pub last_ns: u64,
    /// Why: one sentence.
    pub why: String,
}

/// The end of a part that was ended in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Close {
    /// The recording ends too; otherwise the next part goes on.
    pub last: bool,
}
