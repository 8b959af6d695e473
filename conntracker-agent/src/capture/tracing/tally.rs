//! Counters about the tracing of rules.

/// Counts of failures, and of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleTally {
    /// Epochs that began.
    pub epochs: u64,
    /// When the last one began (nanoseconds since boot).
    pub epoch_began_ns: u64,
    /// Rulesets that changed again before they were joined.
    pub races: u64,
    /// Rulesets that could not be listed or read.
    pub failed: u64,
    /// Records of a forgotten epoch, or with references that their epoch lacks.
    pub unresolved: u64,
    /// Records in which counters and listed rules contradict each other.
    pub contradictions: u64,
    /// Records that are not exact because other packets moved the same counters.
    pub nested: u64,
}
