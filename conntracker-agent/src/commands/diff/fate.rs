//! What becomes of a flow's packets.

use super::{
    rule::sentence,
    traced::{Packets, Traced},
};
use crate::model::{
    Cause, Flow,
    hook::Hook,
    path::{Outcome, SiteKind, Step, Traversal, Verdict},
};

/// What becomes of a flow's packets. A flow of which some packets pass passes: invalid or late packets of it may be
/// dropped at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// They pass.
    Accepted,
    /// Netfilter drops those that begin a flow.
    Dropped,
    /// Those pass, and netfilter drops the replies.
    RepliesDropped,
    /// All of them get lost elsewhere in the kernel.
    Lost,
    /// Nothing tells.
    Unknown,
}

impl Fate {
    /// The fate on one side. Paths say it, if they are all there; `dropped_before`: packets that begin the flow were
    /// dropped on the side before. If they were not, and each one that was traced since is dropped, the rules have
    /// changed. Otherwise some may still pass by a path that the kernel has told before, and the counts of flows
    /// decide, which may be of ten seconds ago.
    pub fn of(flow: &Flow, traced: &Traced<'_>, dropped_before: bool) -> Self {
        let believed = traced.whole || !dropped_before;
        let pass = |packets| traced.pass(packets).filter(|pass| *pass || believed);
        if pass(Packets::First) == Some(false) {
            return Self::Dropped;
        }
        if pass(Packets::Replies) == Some(false) {
            return Self::RepliesDropped;
        }
        let passed = flow.confirmed() || flow.merged() > 0;
        match (passed, flow.dropped(), flow.lost()) {
            (true, ..) => Self::Accepted,
            (_, true, _) => Self::Dropped,
            (_, _, true) => Self::Lost,
            _ if pass(Packets::First).is_some() => Self::Accepted,
            _ => Self::Unknown,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Dropped => "dropped",
            Self::RepliesDropped => "replies dropped",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }

    /// What decides: the rule that drops most packets of the flow, the reason of the kernel, or the rule that accepts.
    pub fn decided_by(self, flow: &Flow, traced: &Traced<'_>) -> Option<String> {
        match self {
            Self::Accepted => {
                let first = traced
                    .paths()
                    .map(|(path, _)| path)
                    .filter(|path| Packets::First.has(path) && path.outcome == Outcome::Passed);
                // The filters decide, not the chains before and behind them, as a rule.
                first.max_by_key(|path| filters(path.hook)).and_then(accepting).map(sentence)
            }
            Self::Dropped | Self::RepliesDropped => {
                let by = |packets| dropping(traced, packets);
                let packets = if self == Self::Dropped { Packets::First } else { Packets::Replies };
                by(packets).or_else(|| counted(flow))
            }
            Self::Lost => {
                let most = flow.drops.as_ref()?.lost().max_by_key(|at| at.packets)?;
                most.place.cause.elsewhere().map(str::to_owned)
            }
            Self::Unknown => None,
        }
    }
}

fn filters(hook: Hook) -> bool {
    matches!(hook, Hook::Input | Hook::Forward | Hook::Output)
}

/// The last rule that accepts; what came last if none does.
fn accepting(path: &Traversal) -> Option<&Step> {
    let placed = || path.steps.iter().filter(|step| step.placed);
    let rule = |step: &&Step| step.site.kind == SiteKind::Rule && step.verdict == Verdict::Accept;
    placed().rfind(rule).or_else(|| placed().next_back())
}

/// The rule that drops most of these packets.
fn dropping(traced: &Traced<'_>, packets: Packets) -> Option<String> {
    let dropped = traced.paths().filter(|(path, _)| packets.has(path));
    let by = dropped.filter_map(|(path, packets)| Some((path.dropped_by()?, packets)));
    by.max_by_key(|(_, packets)| *packets).map(|(step, _)| sentence(step))
}

/// What drops most packets of the flow, by the kernel's counts.
fn counted(flow: &Flow) -> Option<String> {
    let most = flow.drops.as_ref()?.dropped().max_by_key(|at| at.packets)?;
    Some(match (&most.by, most.place.cause) {
        (Some(step), _) => sentence(step),
        (None, Cause::Conntrack(cause)) => format!("conntrack: {}", cause.name()),
        (None, _) => "a rule that is not known".to_owned(),
    })
}
