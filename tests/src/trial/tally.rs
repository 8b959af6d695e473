//! All claims of a trace against all packets of its rulesets, in numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use crate::burst::Planned;
use crate::oracle::{Packet, StepKind, Verdict};
use crate::tracer::{Direction, Flow, L4, Tuple, report};
use anyhow::Result;
use serde_json::Value;

use super::Trial;
use super::claim::{Claim, Claimed, Provenance, claims};
use super::compare::{Crossing, Judgement, Problem, Steps, crossings, explain, judge, same};

/// Problems of a class that are shown in full.
const SHOWN: usize = 2;

/// What came of a comparison.
#[derive(Debug, Default)]
pub struct Tally {
    /// Rulesets.
    pub rulesets: usize,
    /// Flows that were begun on purpose.
    pub flows: usize,
    /// Packets that the oracle knows.
    pub packets: usize,
    /// First packets that the oracle does not know: never sent.
    pub untraced: usize,
    /// First packets: without a word of the tracer; with one about each hook; with nothing but
    /// exact steps.
    pub unseen: usize,
    /// First packets with a word about each hook.
    pub seen: usize,
    /// First packets with nothing but exact steps.
    pub exact_firsts: usize,
    /// Hooks that first packets met, where there was more than policies to accept; and how many of
    /// them the tracer tells of.
    pub hooks: usize,
    /// Hooks that the tracer tells of.
    pub hooks_seen: usize,
    /// First packets that met only chains all of whose rules have counters that tell, and that no other
    /// packet moved meanwhile (such as the error that a rule sends); and those of them with nothing
    /// but exact steps, in order.
    pub told: usize,
    /// Those of them with nothing but exact steps, in order.
    pub exact_told: usize,
    /// First packets that a rule or policy dropped, and those of which the tracer says which one.
    pub drops: usize,
    /// Drops of which the tracer says which rule it was.
    pub drops_named: usize,
    /// Claims that were compared.
    pub claims: usize,
    /// Steps of all claims.
    pub steps: Steps,
    /// Claims with a doubt, by its name.
    pub doubts: BTreeMap<String, usize>,
    /// Claims that are wrong.
    pub wrong: usize,
    /// Those, by what is wrong with them first of all.
    pub classes: BTreeMap<&'static str, usize>,
    /// Some of them, in full, and where something is missing.
    pub shown: Vec<String>,
    /// Where something is missing.
    pub missing: Vec<String>,
    /// Drops that are not named.
    pub unnamed: Vec<String>,
    /// Texts of the rulesets of those that are shown.
    pub rulesets_shown: BTreeMap<u32, String>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rulesets, flows, packets, untraced, unseen, seen, exact_firsts, claims, .. } =
            self;
        let Self { told, exact_told, hooks, hooks_seen, drops, drops_named, .. } = self;
        let Self { doubts, wrong, classes, .. } = self;
        let Steps { exact, evaluated, inferred, chain, open, unplaced, omitted, gaps } =
            &self.steps;
        let steps = self.steps.told().max(1);
        let share = |part: &usize| *part as f64 * 100.0 / steps as f64;
        write!(
            f,
            "{rulesets} rulesets, {flows} flows, {packets} packets; first packets: {seen} seen at \
             each hook, {exact_firsts} of them exactly ({exact_told} of {told} of which \
             counters tell), {unseen} not so ({hooks_seen} of {hooks} hooks), {untraced} \
             never sent; {drops_named} of {drops} drops named; {claims} claims, {wrong} wrong {classes:?}; steps: {exact} exact \
             ({:.1} %), {evaluated} evaluated ({:.1} %), {inferred} inferred ({:.1} %), {chain} chain ({:.1} %), {open} with an open \
             verdict, {unplaced} out of order, {omitted} steps and {gaps} chains not mentioned; \
             doubts: {doubts:?}",
            share(exact),
            share(evaluated),
            share(inferred),
            share(chain),
        )
    }
}

/// All packets, to be found by what the tracer knows of a flow.
struct Packets<'a> {
    by_tuple: HashMap<Tuple, Vec<(usize, usize)>>,
    trials: &'a [Trial],
}

impl<'a> Packets<'a> {
    fn new(trials: &'a [Trial]) -> Self {
        let mut by_tuple: HashMap<_, Vec<_>> = HashMap::new();
        for (number, trial) in trials.iter().enumerate() {
            for (index, packet) in trial.traced.packets.iter().enumerate() {
                for tuple in [packet.tuple].into_iter().chain(packet.looped) {
                    if !packet.error {
                        by_tuple.entry(tuple).or_default().push((number, index));
                    }
                }
            }
        }
        Self { by_tuple, trials }
    }

    fn packet(&self, trial: usize, index: usize) -> &'a Packet {
        &self.trials[trial].traced.packets[index]
    }

    /// Packets of a tuple, by their trial and their number in it.
    fn packets(&self, tuple: Tuple) -> impl Iterator<Item = (usize, usize)> {
        self.by_tuple.get(&tuple).into_iter().flatten().copied()
    }

    /// The crossings of a flow's packets, and those of ICMP errors that may be about it.
    fn of(&self, orig: Tuple, reply: Option<Tuple>) -> Vec<Crossing<'a>> {
        let mut tuples = BTreeSet::from([(orig, Direction::Original)]);
        // Answers to it, wherever on its way that was.
        let way = self.packets(orig).flat_map(|(trial, index)| &self.packet(trial, index).tuples);
        tuples.extend(way.map(|tuple| (answer(*tuple), Direction::Reply)));
        // An untracked answer stands under the flow that it would belong to, and what the router
        // says to whoever answers has the addresses of after the translation.
        tuples.insert((answer(orig), Direction::Reply));
        if let Some(reply) = reply {
            tuples.insert((reply, Direction::Reply));
            tuples.insert((answer(reply), Direction::Original));
            // Whoever rejects an answer on its way says so to the half of it that is translated.
            let way = self.packets(reply).flat_map(|(trial, at)| &self.packet(trial, at).tuples);
            tuples.extend(way.map(|tuple| (answer(*tuple), Direction::Original)));
        }
        let mut found = Vec::new();
        for (tuple, direction) in tuples {
            found.extend(self.packets(tuple).map(|(trial, index)| (trial, index, direction)));
        }
        // Answers of other rulesets may be translated to the same addresses.
        let begun: BTreeSet<usize> = found
            .iter()
            .filter(|(.., direction)| *direction == Direction::Original)
            .map(|(trial, ..)| *trial)
            .collect();
        found.retain(|(trial, ..)| begun.is_empty() || begun.contains(trial));
        // In the order in which they came.
        found.sort_by_key(|(trial, index, _)| (*trial, *index));
        let mut all = Vec::new();
        for (number, (trial, index, direction)) in found.iter().enumerate() {
            let first = number == 0 && *direction == Direction::Original;
            let listing = &self.trials[*trial].listing;
            let packet = self.packet(*trial, *index);
            all.extend(crossings(packet, Some(*direction), first, listing));
        }
        let trials: BTreeSet<usize> = found.iter().map(|(trial, ..)| *trial).collect();
        for trial in trials.into_iter().map(|number| &self.trials[number]) {
            for error in trial.traced.packets.iter().filter(|packet| packet.error) {
                all.extend(crossings(error, None, false, &trial.listing));
            }
        }
        all
    }
}

/// Compares the flows of a report with what the trials gave.
pub fn compare(trials: &[Trial], flows: &[Value]) -> Result<Tally> {
    let mut tally = Tally {
        rulesets: trials.len(),
        packets: trials.iter().map(|trial| trial.traced.packets.len()).sum(),
        ..Tally::default()
    };
    let mut begun: HashMap<Tuple, &Trial> = HashMap::new();
    for trial in trials {
        begun.extend(trial.flows.iter().map(|flow| (flow.tuple(), trial)));
    }
    let packets = Packets::new(trials);
    let mut claimed: HashMap<Tuple, Vec<Claim>> = HashMap::new();
    for object in flows {
        let flow = report::flow(object)?;
        let claims = claims(object)?;
        let crossings = packets.of(flow.orig, flow.reply);
        // Without any it is from before the first ruleset, or not of our making.
        if !crossings.is_empty() {
            for claim in &claims {
                tally.add(&flow, claim, &crossings, begun.get(&flow.orig).copied());
            }
        }
        claimed.entry(flow.orig).or_default().extend(claims);
    }
    for trial in trials {
        for flow in &trial.flows {
            tally.flows += 1;
            tally.first_packet(trial, flow, &claimed);
        }
    }
    Ok(tally)
}

/// The other direction of a flow that is not translated. Without conntrack an echo reply may be the
/// first that is seen of one.
fn answer(tuple: Tuple) -> Tuple {
    let mut answer = tuple.turned();
    answer.l4 = match answer.l4 {
        L4::Icmp(0, code, id) if tuple.l4 == answer.l4 => L4::Icmp(8, code, id),
        L4::Icmp(129, code, id) if tuple.l4 == answer.l4 => L4::Icmp(128, code, id),
        other => other,
    };
    answer
}

impl Tally {
    /// Adds the numbers of further rulesets.
    pub fn extend(&mut self, other: Self) {
        let Self { rulesets, flows, packets, untraced, unseen, seen, .. } = other;
        let Self { exact_firsts, told, exact_told, claims, steps, doubts, wrong, .. } = other;
        let Self { hooks, hooks_seen, .. } = other;
        let Self { classes, shown, missing, rulesets_shown, .. } = other;
        self.rulesets += rulesets;
        self.flows += flows;
        self.packets += packets;
        self.untraced += untraced;
        self.unseen += unseen;
        self.hooks += hooks;
        self.hooks_seen += hooks_seen;
        self.seen += seen;
        self.exact_firsts += exact_firsts;
        self.told += told;
        self.exact_told += exact_told;
        self.claims += claims;
        self.steps += steps;
        for (doubt, count) in doubts {
            *self.doubts.entry(doubt).or_default() += count;
        }
        self.wrong += wrong;
        for (class, count) in classes {
            *self.classes.entry(class).or_default() += count;
        }
        self.shown.extend(shown);
        self.rulesets_shown.extend(rulesets_shown);
        self.missing.extend(missing);
        self.drops += other.drops;
        self.drops_named += other.drops_named;
        self.unnamed.extend(other.unnamed);
    }

    /// What is wrong, in full, and the rulesets that it is about.
    pub fn complaint(&self) -> String {
        let rulesets: Vec<&str> = self.rulesets_shown.values().map(String::as_str).collect();
        format!("{}\n{}", rulesets.join("\n"), self.shown.join("\n"))
    }

    /// A claim is right if it is right about one of the packets that it may be about.
    fn add<'a>(
        &mut self,
        flow: &Flow,
        claim: &Claim,
        crossings: &'a [Crossing<'a>],
        trial: Option<&Trial>,
    ) {
        if claim.steps.is_empty() {
            // The test's own table was all there was.
            return;
        }
        self.claims += 1;
        if let Some(doubt) = &claim.doubt {
            *self.doubts.entry(doubt.clone()).or_default() += 1;
        }
        let here: Vec<_> =
            crossings.iter().filter(|crossing| crossing.hook == claim.hook).collect();
        let best = here
            .iter()
            .filter(|crossing| crossing.concerns(claim))
            .map(|crossing| (judge(claim, crossing), *crossing))
            .min_by_key(|(judgement, _)| judgement.problems.len());
        let (problems, crossings) = match best {
            Some((judgement, crossing)) => {
                let Judgement { problems, steps } = judgement;
                self.steps += steps;
                (problems, vec![crossing])
            }
            None => (vec![Problem { class: "no such packet", text: String::new() }], here),
        };
        let Some(first) = problems.first() else { return };
        self.wrong += 1;
        let count = self.classes.entry(first.class).or_default();
        *count += 1;
        if *count <= SHOWN {
            let problems: Vec<String> = problems
                .iter()
                .map(|problem| format!("{}: {}", problem.class, problem.text))
                .collect();
            let number = trial.map(|trial| trial.ruleset.number);
            let text = explain(claim, crossings.into_iter());
            self.shown.push(format!("ruleset {number:?} {flow}\nwrong: {problems:#?}\n{text}"));
            if let Some(trial) = trial {
                self.rulesets_shown.insert(trial.ruleset.number, trial.ruleset.to_string());
            }
        }
    }

    /// How much the tracer says of the first packet of a flow.
    fn first_packet(
        &mut self,
        trial: &Trial,
        flow: &Planned,
        claimed: &HashMap<Tuple, Vec<Claim>>,
    ) {
        let tuple = flow.tuple();
        let number = trial.ruleset.number;
        let Some(packet) = trial.traced.packets.iter().find(|packet| packet.tuple == tuple) else {
            self.untraced += 1;
            return;
        };
        // Without conntrack the tracer may take an answer for the beginning.
        let of = |tuple, direction| {
            let claims = claimed.get(&tuple).into_iter().flatten();
            claims.filter(move |claim| claim.direction == direction)
        };
        // What comes back to the router before conntrack knows it has other addresses.
        let looped = packet.looped.into_iter().flat_map(|tuple| of(tuple, Direction::Original));
        let claims: Vec<Claim> = of(tuple, Direction::Original)
            .chain(of(answer(tuple), Direction::Reply))
            .chain(looped.filter(|claim| claim.state == "early"))
            .map(|claim| Claim { direction: Direction::Original, ..claim.clone() })
            .collect();
        let crossings = crossings(packet, Some(Direction::Original), true, &trial.listing);
        let (mut exact, mut missing) = (true, Vec::new());
        let mut told = crossings.iter().all(Crossing::all_counted);
        for crossing in &crossings {
            if let Some(drop) = crossing.drop() {
                let names = |claim: &&Claim| {
                    let known = |claimed: &&Claimed| {
                        claimed.provenance != Provenance::Chain
                            && claimed.step.verdict != Verdict::Unknown
                    };
                    claim.dropped
                        && crossing.concerns(claim)
                        && claim.steps.iter().filter(known).any(|claimed| same(&claimed.step, drop))
                };
                self.drops += 1;
                if claims.iter().any(|claim| names(&claim)) {
                    self.drops_named += 1;
                } else {
                    self.unnamed.push(format!("ruleset {number}: {tuple}: {drop}"));
                }
            }
            let best = claims
                .iter()
                .filter(|claim| crossing.concerns(claim))
                .map(|claim| (judge(claim, crossing), claim.doubt.as_deref()))
                .min_by_key(|(judgement, _)| (judgement.problems.len(), !judgement.complete()));
            if best.is_none() && crossing.idle() {
                continue;
            }
            told &= best.as_ref().is_none_or(|(_, doubt)| *doubt != Some("nested"));
            self.hooks += 1;
            let why = match best {
                Some((judgement, _)) if judgement.problems.is_empty() => {
                    exact &= judgement.complete();
                    self.hooks_seen += 1;
                    continue;
                }
                Some((judgement, _)) => format!("wrong: {:?}", judgement.problems),
                None => {
                    let known = claims.iter().map(|claim| (claim.hook, &claim.state));
                    format!("nothing of it among {:?}", known.collect::<Vec<_>>())
                }
            };
            let Crossing { hook, early, .. } = crossing;
            missing.push(format!("ruleset {number}: {hook:?}, early {early}: {tuple}: {why}"));
        }
        self.told += usize::from(told);
        if !missing.is_empty() {
            self.unseen += 1;
            self.missing.extend(missing);
            return;
        }
        self.seen += 1;
        self.exact_firsts += usize::from(exact);
        self.exact_told += usize::from(exact && told);
    }
}

/// What met a packet, in the oracle's words.
#[must_use]
pub fn met(trials: &[Trial]) -> BTreeMap<String, usize> {
    let mut met: BTreeMap<String, usize> = BTreeMap::new();
    for trial in trials {
        let runs = trial.traced.packets.iter().flat_map(|packet| &packet.runs);
        for run in runs {
            *met.entry(format!("hook {}", run.base.hook.name())).or_default() += 1;
            let depth = run.steps.iter().filter_map(|step| level(&step.chain.name)).max();
            *met.entry(format!("depth {}", depth.unwrap_or(0))).or_default() += 1;
            for step in &run.steps {
                if step.kind == StepKind::Policy && step.verdict == Verdict::Drop {
                    *met.entry("policy drop".to_owned()).or_default() += 1;
                }
                for feature in trial.features(step) {
                    *met.entry(feature.to_owned()).or_default() += 1;
                }
            }
        }
    }
    met
}

/// Level of a user chain, from its name.
fn level(chain: &str) -> Option<u32> {
    chain[..chain.len().saturating_sub(1)].chars().last()?.to_digit(10)
}
