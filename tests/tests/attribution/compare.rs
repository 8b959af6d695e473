//! One claim of the tracer against the ways that packets really went.

use std::fmt::Write;

use conntracker_tests::oracle::{ChainName, Hook, Listing, Packet, Run, Step, StepKind, Verdict};
use conntracker_tests::tracer::Direction;

use crate::claim::{Claim, Provenance};

/// What the oracle says of one packet at one hook, the part before conntrack apart.
#[derive(Clone, Debug)]
pub struct Crossing<'a> {
    pub hook: Hook,
    /// Before conntrack's own hook.
    pub early: bool,
    /// `None` for ICMP errors: which flow they belong to is not in their headers.
    pub direction: Option<Direction>,
    /// Of packets that conntrack knows, where the kernel traces that.
    pub state: Option<&'static str>,
    /// No answer was seen before.
    pub first: bool,
    /// Packet mark, where it is traced.
    pub mark: (Option<u32>, Option<u32>),
    pub runs: &'a [Run],
    /// What was loaded.
    pub listing: &'a Listing,
}

/// The crossings of a packet, without hooks where it met no chain.
pub fn crossings<'a>(
    packet: &'a Packet,
    direction: Option<Direction>,
    first: bool,
    listing: &'a Listing,
) -> Vec<Crossing<'a>> {
    let mut before = Some(0);
    let place = |run: &Run| (run.base.hook, run.early());
    packet
        .runs
        .chunk_by(|a, b| place(a) == place(b))
        .map(|runs| {
            let (hook, early) = place(&runs[0]);
            let after = runs.last().and_then(|run| run.mark);
            let mark = (before, after);
            before = after;
            let state = runs.iter().find_map(|run| run.state);
            // The kernel's own word, where it has one.
            let direction = match state {
                Some(state) if state.name != "untracked" && direction.is_some() => {
                    Some(if state.reply { Direction::Reply } else { Direction::Original })
                }
                _ => direction,
            };
            let state = state.map(|state| state.name);
            Crossing { hook, early, direction, state, first, mark, runs, listing }
        })
        .collect()
}

impl Crossing<'_> {
    /// Whether a claim may be about this crossing.
    pub fn concerns(&self, claim: &Claim) -> bool {
        let state = match (self.early, self.state) {
            (true, _) => claim.state == "early",
            (false, Some(state)) => claim.state == state,
            (false, None) if self.first => {
                matches!(claim.state.as_str(), "new" | "untracked" | "invalid")
            }
            (false, None) => !matches!(claim.state.as_str(), "new" | "early"),
        };
        let direction = match self.direction {
            Some(direction) => direction == claim.direction,
            None => claim.state == "related" || claim.state == "early",
        };
        self.hook == claim.hook && state && direction
    }

    fn dropped(&self) -> bool {
        self.runs.last().is_some_and(Run::drops)
    }
}

/// What is wrong with a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In a word or two, to be counted.
    pub class: &'static str,
    pub text: String,
}

impl Problem {
    fn new(class: &'static str, text: String) -> Self {
        Self { class, text }
    }
}

/// How a claim and a crossing go together.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// Empty: they agree.
    pub problems: Vec<Problem>,
    /// Steps that are right, by how the tracer says it knows them.
    pub exact: usize,
    pub inferred: usize,
    pub chain: usize,
    /// Of those, rules whose verdict the tracer leaves open.
    pub open: usize,
    /// Base chains that the packet met and the tracer does not mention.
    pub gaps: usize,
}

impl Judgement {
    /// Nothing wrong, and nothing left open.
    pub fn complete(&self) -> bool {
        self.problems.is_empty() && self.inferred + self.chain + self.gaps == 0
    }
}

/// Judges a claim by one crossing.
pub fn judge(claim: &Claim, crossing: &Crossing<'_>) -> Judgement {
    let mut judgement = Judgement::default();
    judge_steps(claim, crossing, &mut judgement);
    judge_groups(claim, crossing, &mut judgement);
    if claim.dropped != crossing.dropped() {
        let text = format!("dropped {}", crossing.dropped());
        judgement.problems.push(Problem::new("outcome", text));
    }
    for (class, ours, theirs) in [
        ("mark before", claim.mark.0, crossing.mark.0),
        ("mark after", claim.mark.1, crossing.mark.1),
    ] {
        if theirs.is_some_and(|theirs| ours != theirs) {
            let text = format!("{ours:#x}, not {theirs:#x?}");
            judgement.problems.push(Problem::new(class, text));
        }
    }
    judgement
}

/// Each of our steps is one of theirs, in the same order.
fn judge_steps(claim: &Claim, crossing: &Crossing<'_>, judgement: &mut Judgement) {
    let theirs: Vec<(&Run, &Step)> = crossing
        .runs
        .iter()
        .flat_map(|run| run.steps.iter().map(move |step| (run, step)))
        .collect();
    let mut rest = &theirs[..];
    for (step, provenance) in &claim.steps {
        let found = if step.kind == StepKind::Chain {
            // Its verdict is that of the last step of the run.
            rest.iter()
                .rposition(|(run, _)| run.chain == step.chain)
                .filter(|index| ends_alike(&step.verdict, &rest[*index].1.verdict))
        } else {
            rest.iter().position(|(_, theirs)| same(step, theirs))
        };
        let Some(index) = found else {
            let class = match (provenance, step.kind) {
                (Provenance::Exact, StepKind::Rule) => "exact rule",
                (Provenance::Exact, _) => "exact policy or return",
                (Provenance::Inferred, _) => "inferred step",
                (Provenance::Chain, _) => "chain step",
            };
            judgement.problems.push(Problem::new(class, step.to_string()));
            continue;
        };
        rest = &rest[index + 1..];
        judgement.open += usize::from(step.verdict == Verdict::Unknown);
        match provenance {
            Provenance::Exact => judgement.exact += 1,
            Provenance::Inferred => judgement.inferred += 1,
            Provenance::Chain => judgement.chain += 1,
        }
    }
}

/// Where all that we say of a base chain is exact, it is all that there is to say.
fn judge_groups(claim: &Claim, crossing: &Crossing<'_>, judgement: &mut Judgement) {
    let groups = groups(claim, crossing);
    for run in crossing.runs {
        let Some((_, steps)) = groups.iter().find(|(base, _)| **base == run.chain) else {
            judgement.gaps += 1;
            continue;
        };
        let exact = steps.iter().all(|(_, provenance)| *provenance == Provenance::Exact);
        if exact && steps.len() != run.steps.len() {
            let text = format!("{}: {} steps, not {}", run.chain, steps.len(), run.steps.len());
            judgement.problems.push(Problem::new("number of steps", text));
        }
    }
}

type Claimed<'a> = &'a (Step, Provenance);

/// Our steps by base chain: each base chain is met once at a hook. Steps of user chains before any
/// base chain have none to stand with.
fn groups<'a>(claim: &'a Claim, crossing: &Crossing<'_>) -> Vec<(&'a ChainName, Vec<Claimed<'a>>)> {
    let mut groups: Vec<(&ChainName, Vec<_>)> = Vec::new();
    for step in &claim.steps {
        let chain = &step.0.chain;
        let base = crossing.listing.chain(chain).is_some_and(|listed| listed.base.is_some());
        match groups.last_mut() {
            Some((last, steps)) if !base || *last == chain => steps.push(step),
            None if !base => {}
            _ => groups.push((chain, vec![step])),
        }
    }
    groups
}

fn same(ours: &Step, theirs: &Step) -> bool {
    let Step { chain, kind, position, handle, verdict } = ours;
    *chain == theirs.chain
        && *kind == theirs.kind
        && *position == theirs.position
        && *handle == theirs.handle
        && (*kind == StepKind::Return || *verdict == Verdict::Unknown || *verdict == theirs.verdict)
}

/// Of a base chain all of which is its verdict, a reject is a drop.
fn ends_alike(ours: &Verdict, theirs: &Verdict) -> bool {
    let dropped = |verdict: &Verdict| matches!(verdict, Verdict::Drop | Verdict::Reject);
    *ours == Verdict::Unknown || ours == theirs || (dropped(ours) && dropped(theirs))
}

/// Both sides, to be read.
pub fn explain<'a>(claim: &Claim, crossings: impl Iterator<Item = &'a Crossing<'a>>) -> String {
    let Claim { hook, direction, state, dropped, epoch, packets, mark, doubt, steps } = claim;
    let mut text = format!(
        "tracer: {hook:?} {direction:?} {state} dropped {dropped} mark {mark:x?} epoch {epoch} \
         packets {packets} doubt {doubt:?}\n"
    );
    // Writing to a string cannot fail.
    for (step, provenance) in steps {
        let _ = writeln!(text, "    {provenance:?} {step}");
    }
    for crossing in crossings {
        let Crossing { hook, direction, state, first, mark, runs, .. } = crossing;
        let _ = writeln!(
            text,
            "kernel: {hook:?} {direction:?} state {state:?} first {first} mark {mark:x?}"
        );
        for step in runs.iter().flat_map(|run| &run.steps) {
            let _ = writeln!(text, "    {step}");
        }
    }
    text
}
