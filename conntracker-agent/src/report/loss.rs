//! What was lost, and how often.

/// A counter of things lost or unusual, with what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Name, as in JSON: lower case and underscores.
    pub name: &'static str,
    /// What was lost, in words.
    pub meaning: &'static str,
    /// How often.
    pub count: u64,
}

/// What dumps can lose.
pub(crate) fn dump_losses(rejected: u64, interrupted: u64) -> Vec<Loss> {
    vec![
        Loss {
            name: "dump_entries_rejected",
            meaning: "dumped entries that could not be decoded",
            count: rejected,
        },
        Loss {
            name: "dumps_interrupted",
            meaning: "dumps during which the table was resized: entries may be missing or double",
            count: interrupted,
        },
    ]
}
