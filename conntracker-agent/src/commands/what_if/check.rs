//! The self-check: the recording's own rulesets are evaluated for the packets of its own paths.

use std::{collections::HashMap, rc::Rc};

use serde::Serialize;

use super::model::{Model, Named};
use crate::{
    firewall::{
        evaluate::{
            Evaluation, Packet, Part,
            state::{EvaluatedStep, Fate},
        },
        packets::Recorded,
    },
    model::{
        hook::Hook,
        path::{CtState, Provenance, Step, Traversal, Verdict},
    },
};

/// Paths of each thousand that the model may disagree with.
const ALLOWED: u64 = 1;

/// Disagreements that are shown.
const SHOWN: usize = 5;

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct SelfCheck {
    /// Observed paths whose steps are exact, and that the model decides.
    pub observed: u64,
    /// Those of them that the model agrees with.
    pub agree: u64,
    /// Those of them that are one of several possibilities.
    pub one_of_several: u64,
    /// Exact paths about which the model says nothing.
    pub undecided: u64,
    /// Paths that are not exact, of fragments, or of epochs whose ruleset is not kept.
    pub not_compared: u64,
    /// The first disagreements.
    pub disagreements: Vec<Disagreement>,
}

/// A path that the model does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Disagreement {
    /// The flow.
    pub flow: String,
    /// Hook, direction and state.
    pub at: String,
    /// The first step that differs, as it was observed, and as the model has it.
    pub observed: String,
    pub model: String,
}

/// How a model sees a path.
enum Agreement {
    Same,
    OneOfSeveral,
    Undecided,
    /// The evaluated steps that go on longest with the observed ones.
    Differs(Vec<Named>),
}

/// Whether an observed path has an evaluated step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Certain,
    /// It hangs on something unknown.
    Uncertain,
    /// It may have been met, and nothing shows it.
    Unseen,
}

type Possibilities = Vec<(Fate, Vec<(Named, Presence)>)>;

/// A packet at a part of a hook, in an epoch of a namespace.
type Question = (u32, u32, (Hook, Part), Packet);

/// Compares paths, and remembers what becomes of equal packets.
#[derive(Default)]
pub(super) struct Checker {
    evaluated: HashMap<Question, Rc<Possibilities>>,
    pub found: SelfCheck,
}

/// Packets that are remembered.
const REMEMBERED: usize = 100_000;

impl SelfCheck {
    /// Whether the model may be believed.
    pub fn passes(&self) -> bool {
        (self.observed - self.agree) * 1000 <= self.observed * ALLOWED
    }
}

impl Checker {
    /// Compares a path of a flow with what the ruleset of its epoch does; `None` if that is not kept.
    pub fn check(
        &mut self,
        recorded: &Recorded<'_>,
        path: &Traversal,
        model: Option<&Model<'_>>,
        netns: u32,
        flow: &dyn Fn() -> String,
    ) {
        let Some(model) = model.filter(|_| is_exact(path)) else {
            self.found.not_compared += 1;
            return;
        };
        let early = path.state == CtState::Early;
        let at = (path.hook, if early { Part::Early } else { Part::Late });
        let mut all = Possibilities::new();
        for packet in recorded.at(path) {
            all.extend(self.possibilities(model, (netns, path.epoch), at, packet).iter().cloned());
        }
        let found = &mut self.found;
        match agreement(&all, path) {
            Agreement::Undecided => found.undecided += 1,
            Agreement::Same => {
                found.observed += 1;
                found.agree += 1;
            }
            Agreement::OneOfSeveral => {
                found.observed += 1;
                found.agree += 1;
                found.one_of_several += 1;
            }
            Agreement::Differs(steps) => {
                found.observed += 1;
                if found.disagreements.len() < SHOWN {
                    found.disagreements.push(disagreement(path, &steps, flow()));
                }
            }
        }
    }

    fn possibilities(
        &mut self,
        model: &Model<'_>,
        (netns, epoch): (u32, u32),
        at: (Hook, Part),
        packet: Packet,
    ) -> Rc<Possibilities> {
        if self.evaluated.len() >= REMEMBERED {
            self.evaluated.clear();
        }
        let key = (netns, epoch, at, packet);
        if let Some(all) = self.evaluated.get(&key) {
            return Rc::clone(all);
        }
        let Evaluation { endings } = model.evaluate_at(at, key.3.clone());
        let steps = |steps: &[_]| {
            let named = |step: &EvaluatedStep| {
                let named = model.named(step)?;
                let unseen = named.verdict == Verdict::Continue
                    && !model.firewall.has_counter(step.chain, step.index);
                let presence = match step.why.is_empty() {
                    _ if unseen => Presence::Unseen,
                    true => Presence::Certain,
                    false => Presence::Uncertain,
                };
                Some((named, presence))
            };
            steps.iter().filter_map(named).collect()
        };
        let all = endings.iter().map(|ending| (ending.fate, steps(&ending.steps))).collect();
        let all: Rc<Possibilities> = Rc::new(all);
        self.evaluated.insert(key, Rc::clone(&all));
        all
    }
}

/// Whether each step of a path is proved, and the order of them.
pub(super) fn is_exact(path: &Traversal) -> bool {
    let exact = |step: &Step| {
        step.provenance == Provenance::Exact && step.placed && step.verdict != Verdict::Unknown
    };
    path.doubt.is_none() && !path.fragment && path.steps.iter().all(exact)
}

fn is_same(named: &Named, step: &Step) -> bool {
    let (one, two) = (&*named.site, &*step.site);
    named.verdict == step.verdict
        && one.kind == two.kind
        && one.position == two.position
        && one.backend == two.backend
        && one.family == two.family
        && one.table == two.table
        && one.chain == two.chain
}

fn agreement(all: &Possibilities, path: &Traversal) -> Agreement {
    let same = all.iter().any(|(_, steps)| takes(steps, &path.steps));
    let certain = all
        .iter()
        .all(|(_, steps)| steps.iter().all(|(_, presence)| *presence != Presence::Uncertain));
    let one = all.iter().skip(1).all(|(_, steps)| {
        all.first().is_some_and(|(_, first)| {
            first.len() == steps.len()
                && first.iter().zip(steps).all(|((a, _), (b, _))| a.number == b.number)
        })
    });
    match same {
        true if certain && one => return Agreement::Same,
        true => return Agreement::OneOfSeveral,
        false => {}
    }
    // What is not followed further may go on as it was observed.
    let open = |fate: Fate, steps: &[(Named, Presence)]| {
        let known = steps.len()
            - usize::from(steps.last().is_some_and(|(step, _)| step.verdict == Verdict::Unknown));
        fate == Fate::Unknown
            && steps[..known].len() <= path.steps.len()
            && takes(&steps[..known], &path.steps[..known.min(path.steps.len())])
    };
    if all.is_empty() || all.iter().any(|(fate, steps)| open(*fate, steps)) {
        return Agreement::Undecided;
    }
    let longest = all.iter().map(|(_, steps)| steps).max_by_key(|steps| common(steps, &path.steps));
    let seen = longest.into_iter().flatten().filter(|(_, presence)| *presence != Presence::Unseen);
    Agreement::Differs(seen.map(|(step, _)| step.clone()).collect())
}

/// Whether a packet may take exactly the observed steps, where it takes each that is certain.
fn takes(steps: &[(Named, Presence)], observed: &[Step]) -> bool {
    // How many observed steps may lie behind the packet.
    let mut behind = vec![false; observed.len() + 1];
    behind[0] = true;
    for (step, presence) in steps {
        let mut next = vec![false; observed.len() + 1];
        for (at, reached) in behind.iter().enumerate() {
            if *reached && *presence != Presence::Certain {
                next[at] = true;
            }
            if *reached && observed.get(at).is_some_and(|observed| is_same(step, observed)) {
                next[at + 1] = true;
            }
        }
        behind = next;
    }
    behind.last() == Some(&true)
}

fn common(steps: &[(Named, Presence)], observed: &[Step]) -> usize {
    steps.iter().zip(observed).take_while(|((one, _), two)| is_same(one, two)).count()
}

fn disagreement(path: &Traversal, steps: &[Named], flow: String) -> Disagreement {
    let same = steps.iter().zip(&*path.steps).take_while(|(one, two)| is_same(one, two)).count();
    let none = || "no further rule".to_owned();
    let Traversal { hook, direction, state, .. } = path;
    Disagreement {
        flow,
        at: format!("{} {} {}", hook.name(), direction.name(), state.name()),
        observed: path.steps.get(same).map_or_else(none, super::super::diff::rule::sentence),
        model: steps.get(same).map_or_else(none, |step| step.sentence.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_path_of_a_thousand_may_differ() {
        let check = |observed, agree| SelfCheck { observed, agree, ..SelfCheck::default() };
        for (observed, agree, passes) in
            [(0, 0, true), (1000, 999, true), (1000, 998, false), (999, 998, false), (10, 9, false)]
        {
            assert_eq!(check(observed, agree).passes(), passes, "{agree} of {observed}");
        }
    }
}
