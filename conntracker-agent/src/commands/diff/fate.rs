//! What becomes of a flow's packets.

use super::rule::sentence;
use crate::model::{Cause, Flow, path::Outcome};

/// What becomes of a flow's packets. A flow of which some packets pass passes: invalid or late packets of it may be
/// dropped at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// They pass.
    Accepted,
    /// Netfilter drops all of them.
    Dropped,
    /// All of them get lost elsewhere in the kernel.
    Lost,
    /// Nothing tells.
    Unknown,
}

impl Fate {
    pub fn of(flow: &Flow) -> Self {
        let passed = flow.confirmed() || flow.merged() > 0;
        match (passed, flow.dropped(), flow.lost()) {
            (true, ..) => Self::Accepted,
            (_, true, _) => Self::Dropped,
            (_, _, true) => Self::Lost,
            _ => Self::Unknown,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Dropped => "dropped",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }
}

/// What decided: the rule that drops most packets of the flow, the reason of the kernel, or the rule that accepts.
pub(super) fn decided_by(flow: &Flow) -> Option<String> {
    match Fate::of(flow) {
        Fate::Accepted => {
            // The last rule of the first packet that passed a hook of a filter.
            let passed = flow.paths.iter().filter(|(path, _)| path.outcome == Outcome::Passed);
            let last = passed.filter_map(|(path, _)| path.steps.iter().rfind(|step| step.placed));
            last.max_by_key(|step| step.site.chain.len()).map(sentence)
        }
        Fate::Dropped => {
            let most = flow.drops.as_ref()?.dropped().max_by_key(|at| at.packets)?;
            Some(match (&most.by, most.place.cause) {
                (Some(step), _) => sentence(step),
                (None, Cause::Conntrack(cause)) => format!("conntrack: {}", cause.name()),
                (None, _) => "a rule that is not known".to_owned(),
            })
        }
        Fate::Lost => {
            let most = flow.drops.as_ref()?.lost().max_by_key(|at| at.packets)?;
            most.place.cause.elsewhere().map(str::to_owned)
        }
        Fate::Unknown => None,
    }
}
