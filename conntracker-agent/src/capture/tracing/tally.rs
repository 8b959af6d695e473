//! What is counted of rules.

/// Counts of what could not be told, and of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleTally {
    /// Epochs that began.
    pub epochs: u64,
    /// Rulesets that changed again before they were understood.
    pub races: u64,
    /// Rulesets that could not be listed or read.
    pub failed: u64,
    /// Records of an epoch that is gone, or with references that it does not have.
    pub unresolved: u64,
    /// Records in which counters and listed rules contradict each other.
    pub contradictions: u64,
    /// Records that are less than exact because other packets came in between.
    pub nested: u64,
}
