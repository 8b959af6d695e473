//! What becomes of one packet under one set of rules.

use super::path::{self, ExplainedStep, Path};
use crate::{
    firewall::{
        evaluate::{
            Firewall, Origin, Packet, evaluate, routes::Routes, state::Fate, unknown::UnknownSet,
        },
        model::Table,
        rules::Rules,
    },
    model::{hook::Hook, path::Verdict},
    report::path::{chain, described},
};

/// Rules, ready to be asked.
pub(super) struct Judge {
    firewall: Firewall,
    /// The text of rules.
    listed: Vec<Table>,
}

impl Judge {
    pub fn new(rules: Rules) -> Self {
        Self { firewall: rules.firewall(), listed: rules.listed }
    }

    /// What becomes of a packet.
    pub fn ask(&self, packet: Packet, origin: Origin, routes: &dyn Routes) -> Answer {
        let evaluation = evaluate(&self.firewall, packet, origin, routes);
        let path = |end| path::path(end, &self.firewall, &self.listed);
        Answer { fate: evaluation.fate(), paths: evaluation.endings.iter().map(path).collect() }
    }
}

/// What becomes of a packet.
pub(super) struct Answer {
    /// Decided, or why not.
    pub fate: Result<Fate, UnknownSet>,
    /// The possible paths, at least one.
    pub paths: Vec<Path>,
}

impl Answer {
    /// Whether the packet gets through; `None` if that is not decided.
    pub fn passes(&self) -> Option<bool> {
        match self.fate {
            Ok(Fate::Accept | Fate::Stolen) => Some(true),
            Ok(Fate::Drop | Fate::Reject | Fate::NoRoute | Fate::Expired) => Some(false),
            Ok(Fate::Queue | Fate::Unknown) | Err(_) => None,
        }
    }

    /// The rule or policy that drops the packet, if that is decided.
    fn dropper(&self) -> Option<&ExplainedStep> {
        let dropped = matches!(self.fate, Ok(Fate::Drop | Fate::Reject));
        let [path] = self.paths.as_slice() else { return None };
        path.steps.last().filter(|_| dropped)
    }

    /// The rule or policy that drops the packet or, where rules may filter, accepts it last; with its text.
    pub fn decider(&self) -> Option<String> {
        let accepts = |step: &&ExplainedStep| {
            step.verdict == Verdict::Accept
                && matches!(step.hook, Hook::Input | Hook::Forward | Hook::Output)
        };
        let accepter = || match self.paths.as_slice() {
            [path] => path.steps.iter().rfind(accepts),
            _ => None,
        };
        let step = self.dropper().or_else(accepter)?;
        Some(format!("{} `{}`", chain(&step.site, 0), described(&step.site, &step.verdict)))
    }

    /// The verdict, what is to blame, and why, in one sentence.
    pub fn sentence(&self) -> String {
        let (word, reason) = verdict(self.fate);
        let by = self.dropper().map(|step| format!(" by {}", chain(&step.site, 0)));
        let by = by.unwrap_or_default();
        let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("{word}{by}{why}")
    }
}

/// The verdict in one word, and what there is to say about it.
pub(super) fn verdict(fate: Result<Fate, UnknownSet>) -> (&'static str, Option<String>) {
    match fate {
        Ok(Fate::Accept) => ("accept", None),
        Ok(Fate::Stolen) => ("accept", Some("a rule sends it elsewhere".to_owned())),
        Ok(Fate::Drop) => ("drop", None),
        Ok(Fate::Reject) => ("reject", None),
        Ok(Fate::NoRoute) => ("drop", Some("no route".to_owned())),
        Ok(Fate::Expired) => ("drop", Some("its TTL ends here".to_owned())),
        Ok(Fate::Queue) => ("undecided", Some("a program decides (queue)".to_owned())),
        Ok(Fate::Unknown) => ("undecided", None),
        Err(why) => ("undecided", Some(why.to_string())),
    }
}
