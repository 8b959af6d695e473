//! The prediction for a flow. Flows whose packets are equal are evaluated once.

use std::{collections::HashMap, rc::Rc};

use super::{
    check::is_exact,
    compare::{Fated, Prediction, compare},
    outlook::{FlowFate, Outlook},
    rulesets::Sides,
};
use crate::{
    commands::diff::{
        rule::sentence,
        traced::{self, Packets, Traced},
    },
    firewall::packets::{Recorded, Sample},
    model::{
        Flow, NetnsId,
        path::{Direction, Verdict},
    },
};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Question {
    /// About flows that begin under the rules.
    New,
    /// About flows that exist when the rules are loaded.
    Established,
}

impl Question {
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
        }
    }
}

/// Packets that are all that rules know of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Of one that begins, and whether somebody answers.
    Begins(Box<Sample>, bool),
    GoesOn(Box<[Option<Sample>; 2]>),
}

/// What becomes of all flows of a class.
struct Class {
    old: Outlook,
    new: Outlook,
    prediction: Prediction,
}

/// Classes that are remembered at once.
const REMEMBERED: usize = 200_000;

/// Classes of flows.
#[derive(Default)]
pub(super) struct Classes {
    known: HashMap<(NetnsId, Key), Rc<Class>>,
    made: u64,
}

impl Classes {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.made
    }

    /// What differs for a flow; `None` if it is not asked about.
    pub fn predict(
        &mut self,
        flow: &Flow,
        recorded: &Recorded<'_>,
        sides: &Sides<'_>,
        question: Question,
    ) -> Option<Prediction> {
        let key = match question {
            Question::New => {
                let mut first = recorded.first(&*sides.old.routes)?;
                sides.classes.stand_in(&mut first.packet);
                // Who does not answer today may, where today's rules are why.
                let answered = flow.confirmed()
                    || flow.dropped()
                    || flow.paths.iter().any(|(path, _)| path.direction == Direction::Reply);
                Key::Begins(Box::new(first), answered)
            }
            Question::Established => {
                let entry = recorded.entry_now()?;
                let packets = [Direction::Reply, Direction::Original].map(|of| entry.packet(of));
                Key::GoesOn(Box::new(packets))
            }
        };
        let class = self.class(flow.key.netns, key, sides);
        if !matches!(class.prediction, Prediction::Open(_)) {
            return Some(class.prediction.clone());
        }
        let observed = observed(flow, sides.epoch);
        Some(compare(&class.old, &class.new, observed.as_ref()))
    }

    fn class(&mut self, netns: NetnsId, key: Key, sides: &Sides<'_>) -> Rc<Class> {
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        let made = &mut self.made;
        let class = self.known.entry((netns, key)).or_insert_with_key(|(_, key)| {
            *made += 1;
            let outlook = |model| match key {
                Key::Begins(first, answered) => Outlook::begins(model, first, *answered),
                Key::GoesOn(packets) => Outlook::goes_on(model, packets),
            };
            let (old, new) = (outlook(&sides.old), outlook(&sides.new));
            let prediction = compare(&old, &new, None);
            Rc::new(Class { old, new, prediction })
        });
        Rc::clone(class)
    }
}

/// What became of the first packets of a flow in an epoch, if that was the same for all of them.
fn observed(flow: &Flow, epoch: u32) -> Option<Fated> {
    let epochs = traced::Epochs { of: Some((flow.key.netns, epoch..=epoch)), whole_from: 0 };
    let traced = Traced::of(flow, &epochs);
    let firsts = || traced.paths().map(|(path, _)| path).filter(|path| Packets::First.has(path));
    let pass = traced.pass(Packets::First)?;
    if pass {
        // Some packets of a line may be dropped, and others not.
        let all = !traced.drop(Packets::First) && !traced.drop(Packets::Replies);
        return (all && flow.confirmed()).then_some((FlowFate::Accepted, None));
    }
    let by = firsts().filter(|path| is_exact(path)).find_map(|path| path.dropped_by())?;
    let fate = match by.verdict {
        Verdict::Reject => FlowFate::Rejected,
        _ => FlowFate::Dropped,
    };
    Some((fate, Some(sentence(by).into())))
}
