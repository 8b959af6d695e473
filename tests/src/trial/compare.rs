//! One claim of the tracer against the ways that packets really went.

use std::fmt::Write;
use std::ops::AddAssign;

use crate::oracle::{Base, Hook, Listing, Packet, Run, Step, StepKind, Verdict};
use crate::tracer::Direction;

use super::claim::{Claim, Claimed, Provenance};

/// What the oracle says of one packet at one hook, the part before conntrack apart.
#[derive(Clone, Debug)]
pub struct Crossing<'a> {
    /// Hook.
    pub hook: Hook,
    /// Before conntrack's own hook.
    pub early: bool,
    /// `None` for ICMP errors: which flow they belong to is not in their headers.
    pub direction: Option<Direction>,
    /// Of packets that conntrack knows, where the kernel traces that.
    pub state: Option<&'static str>,
    /// The flow's first packet.
    pub first: bool,
    /// Packet mark, where it is traced.
    pub mark: (Option<u32>, Option<u32>),
    /// Base chains that the packet met there.
    pub runs: &'a [Run],
    /// No other one of this packet follows.
    pub last: bool,
    /// Of IPv6.
    v6: bool,
    /// What was loaded.
    pub listing: &'a Listing,
}

/// The crossings of a packet, without hooks where it met no chain.
#[must_use]
pub fn crossings<'a>(
    packet: &'a Packet,
    direction: Option<Direction>,
    first: bool,
    listing: &'a Listing,
) -> Vec<Crossing<'a>> {
    let mut before = Some(0);
    let place = |run: &Run| (run.base.hook, run.early());
    let mut crossings: Vec<_> = packet
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
            let (last, v6) = (false, packet.tuple.src.is_ipv6());
            Crossing { hook, early, direction, state, first, mark, runs, last, v6, listing }
        })
        .collect();
    if let Some(crossing) = crossings.last_mut() {
        crossing.last = true;
    }
    crossings
}

impl Crossing<'_> {
    /// Whether a claim may be about this crossing.
    #[must_use]
    pub fn concerns(&self, claim: &Claim) -> bool {
        let state = match (self.early, self.state) {
            (true, _) => claim.state == "early",
            (false, Some(state)) => claim.state == state,
            (false, None) if self.first => {
                ["new", "untracked", "invalid"].contains(&claim.state.as_str())
            }
            // Which packet conntrack has seen before which, the order of traces does not say.
            (false, None) => claim.state != "early",
        };
        // An error belongs to the flow that it is about, and is not always related to it: for ICMPv6
        // it may be untracked.
        let may_be = ["related", "untracked", "invalid", "early"].contains(&claim.state.as_str());
        let belongs = if let Some(direction) = self.direction {
            direction == claim.direction && state
        } else {
            may_be && self.early == (claim.state == "early")
        };
        self.hook == claim.hook && belongs
    }

    /// Whether all rules of all chains that the packet was in have counters that tell.
    #[must_use]
    pub fn all_counted(&self) -> bool {
        self.runs.iter().all(|run| all_counted(run, self.listing))
    }

    /// Whether there is nothing at the hook but policies to accept. Such a hook is not traced.
    #[must_use]
    pub fn idle(&self) -> bool {
        let families = ["inet", if self.v6 { "ip6" } else { "ip" }];
        let here = |base: Base| base.hook == self.hook && base.early() == self.early;
        self.listing.chains().all(|(name, chain)| {
            let other = !families.contains(&name.family.as_str()) || !chain.base.is_some_and(here);
            let accepts = chain.base.is_some_and(|base| !base.drops);
            other || (accepts && chain.rules.is_empty())
        })
    }

    fn dropped(&self) -> bool {
        self.runs.last().is_some_and(Run::drops)
    }

    /// The step by which the packet was dropped.
    #[must_use]
    pub fn drop(&self) -> Option<&Step> {
        self.runs.last().filter(|run| run.drops())?.steps.last()
    }
}

/// What is wrong with a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In a word or two, to be counted.
    pub class: &'static str,
    /// What it is about.
    pub text: String,
}

impl Problem {
    fn new(class: &'static str, text: String) -> Self {
        Self { class, text }
    }
}

/// Steps of claims, counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steps {
    /// Right, and known from what was seen.
    pub exact: usize,
    /// Right, on the one path that evaluation leaves.
    pub evaluated: usize,
    /// Right, and on all paths that it leaves.
    pub inferred: usize,
    /// Right, and only the chain is known.
    pub chain: usize,
    /// Of those, rules whose verdict the tracer leaves open.
    pub open: usize,
    /// Do not stand in order.
    pub unplaced: usize,
    /// Have no counter, and are not mentioned.
    pub omitted: usize,
    /// Base chains that the packet met and the tracer does not mention.
    pub gaps: usize,
}

impl Steps {
    /// All that are told.
    #[must_use]
    pub fn told(&self) -> usize {
        let Self { exact, evaluated, inferred, chain, .. } = self;
        exact + evaluated + inferred + chain
    }
}

impl AddAssign for Steps {
    fn add_assign(&mut self, other: Self) {
        let Self { exact, evaluated, inferred, chain, open, unplaced, omitted, gaps } = other;
        self.exact += exact;
        self.evaluated += evaluated;
        self.inferred += inferred;
        self.chain += chain;
        self.open += open;
        self.unplaced += unplaced;
        self.omitted += omitted;
        self.gaps += gaps;
    }
}

/// How a claim and a crossing go together.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// Empty: they agree.
    pub problems: Vec<Problem>,
    /// Its steps.
    pub steps: Steps,
}

impl Judgement {
    /// Nothing wrong, and nothing left open.
    #[must_use]
    pub fn complete(&self) -> bool {
        let Steps { evaluated, inferred, chain, unplaced, omitted, gaps, .. } = self.steps;
        self.problems.is_empty() && evaluated + inferred + chain + unplaced + omitted + gaps == 0
    }
}

/// Judges a claim by one crossing.
#[must_use]
pub fn judge(claim: &Claim, crossing: &Crossing<'_>) -> Judgement {
    let mut judgement = Judgement::default();
    let found = judge_steps(claim, crossing, &mut judgement);
    judge_silence(claim, &found, crossing, &mut judgement);
    // A chain of output that changes the mark routes the packet again: where that fails, it is the
    // packet's end and no rule's deed.
    let unroutable = claim.dropped && crossing.last && crossing.hook == Hook::Output;
    if claim.dropped != crossing.dropped() && !unroutable {
        let text = format!("dropped {}", crossing.dropped());
        judgement.problems.push(Problem::new("outcome", text));
    }
    for (class, ours, theirs) in [
        ("mark before", claim.mark.0, crossing.mark.0),
        ("mark after", claim.mark.1, crossing.mark.1),
    ] {
        if theirs.is_some_and(|theirs| ours != theirs) {
            let text = format!("{ours:#x}, not {theirs:x?}");
            judgement.problems.push(Problem::new(class, text));
        }
    }
    judgement
}

/// What is said of one base chain: for each of its steps, how the tracer says that it knows it.
type Said = Vec<Option<Provenance>>;

/// Each of our steps is one of theirs: first those that stand in order, in the same order, then the
/// others. Returns what is said of each base chain.
fn judge_steps(claim: &Claim, crossing: &Crossing<'_>, judgement: &mut Judgement) -> Vec<Said> {
    let mut said: Vec<Said> = crossing.runs.iter().map(|run| vec![None; run.steps.len()]).collect();
    let theirs: Vec<(usize, usize, &Step)> = crossing
        .runs
        .iter()
        .enumerate()
        .flat_map(|(run, Run { steps, .. })| {
            steps.iter().enumerate().map(move |(index, step)| (run, index, step))
        })
        .collect();
    let mut at = 0;
    for Claimed { step, provenance, placed } in &claim.steps {
        if step.kind == StepKind::Chain && step.verdict == Verdict::Unknown {
            // It may have been met or not: of a dropped packet it may not be known where.
            judgement.steps.chain += 1;
            judgement.steps.open += 1;
            for (run, said) in crossing.runs.iter().zip(&mut said) {
                if run.chain == step.chain
                    && let Some(last) = said.last_mut()
                {
                    *last = Some(Provenance::Chain);
                }
            }
            continue;
        }
        let is_it = |(run, _, theirs): &(usize, usize, &Step)| match step.kind {
            // Its verdict is that of the last step.
            StepKind::Chain => {
                let last = crossing.runs[*run].steps.last();
                crossing.runs[*run].chain == step.chain
                    && last.is_some_and(|last| ends_alike(&step.verdict, &last.verdict))
            }
            _ => same(step, theirs),
        };
        // The last step of a base chain can be told apart from its verdict.
        let is_free = |(run, step, _): &(usize, usize, &Step)| {
            said[*run][*step].is_none_or(|provenance| provenance == Provenance::Chain)
        };
        let from = if *placed { at } else { 0 };
        let rest = || theirs.iter().enumerate().skip(from);
        let fits = |(_, theirs): &(usize, &(usize, usize, &Step))| is_it(theirs) && is_free(theirs);
        let found = match step.kind {
            StepKind::Chain => rest().rfind(fits),
            _ => rest().find(fits),
        };
        let Some((index, &(run, step_of_run, _))) = found else {
            let class = match (provenance, step.kind) {
                _ if theirs.iter().any(is_it) => "order of steps",
                (Provenance::Exact, StepKind::Rule) => "exact rule",
                (Provenance::Exact, _) => "exact policy or return",
                (Provenance::Evaluated, _) => "evaluated step",
                (Provenance::Inferred, _) => "inferred step",
                (Provenance::Chain, _) => "chain step",
            };
            judgement.problems.push(Problem::new(class, step.to_string()));
            continue;
        };
        said[run][step_of_run] = Some(*provenance);
        if *placed {
            at = index + 1;
        } else {
            judgement.steps.unplaced += 1;
        }
        judgement.steps.open += usize::from(step.verdict == Verdict::Unknown);
        match provenance {
            Provenance::Exact => judgement.steps.exact += 1,
            Provenance::Evaluated => judgement.steps.evaluated += 1,
            Provenance::Inferred => judgement.steps.inferred += 1,
            Provenance::Chain => judgement.steps.chain += 1,
        }
    }
    said
}

/// Where all that we say of a base chain is exact, it is all that can be known: nothing is missing
/// that a counter shows. (When a chain is left that was entered at an unknown time, no counter shows.)
/// A claim with a doubt does not say that it is all: of targets that were looked at it knows exactly, of
/// counters that others moved nothing.
fn judge_silence(claim: &Claim, said: &[Said], crossing: &Crossing<'_>, judgement: &mut Judgement) {
    for (run, said) in crossing.runs.iter().zip(said) {
        let mut spoken = said.iter().flatten().peekable();
        if spoken.peek().is_none() {
            judgement.steps.gaps += 1;
        } else if spoken.all(|provenance| *provenance == Provenance::Exact) {
            for (step, _) in run.steps.iter().zip(said).filter(|(_, said)| said.is_none()) {
                judgement.steps.omitted += 1;
                let open = claim.steps.iter().any(|claimed| !claimed.placed)
                    && step.kind != StepKind::Rule;
                if !open && claim.doubt.is_none() && shown_by_counters(step, run, crossing.listing)
                {
                    judgement.problems.push(Problem::new("missing step", step.to_string()));
                }
            }
        }
    }
}

/// Whether a tracer that reads counters has to know of a step of a run. The end of a chain has a
/// counter in ip_tables only, but follows where all rules have one.
fn shown_by_counters(step: &Step, run: &Run, listing: &Listing) -> bool {
    let counted = |step: &Step| {
        let rule = listing.chain(&step.chain).and_then(|chain| chain.at(step.position));
        rule.is_some_and(|rule| rule.counted)
    };
    match step.kind {
        StepKind::Rule => counted(step),
        _ => all_counted(run, listing),
    }
}

/// Whether all rules of all chains of a run have counters that tell.
fn all_counted(run: &Run, listing: &Listing) -> bool {
    run.steps.iter().all(|step| {
        listing.chain(&step.chain).is_some_and(|chain| chain.rules.iter().all(|rule| rule.counted))
    })
}

/// Whether both are one step, whatever is left open of it.
#[must_use]
pub fn same(ours: &Step, theirs: &Step) -> bool {
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
    ours == theirs || (dropped(ours) && dropped(theirs))
}

/// Both sides, to be read.
pub fn explain<'a>(claim: &Claim, crossings: impl Iterator<Item = &'a Crossing<'a>>) -> String {
    let Claim { hook, direction, state, dropped, epoch, packets, mark, doubt, steps } = claim;
    let mut text = format!(
        "tracer: {hook:?} {direction:?} {state} dropped {dropped} mark {mark:x?} epoch {epoch} \
         packets {packets} doubt {doubt:?}\n"
    );
    // Writing to a string cannot fail.
    for Claimed { step, provenance, placed } in steps {
        let when = if *placed { "" } else { " at some time" };
        let _ = writeln!(text, "    {provenance:?} {step}{when}");
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
