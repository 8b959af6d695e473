//! Two reports, flow by flow. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::{
    fate::Fate,
    flow_name::FlowName,
    rule::{Met, RuleName, sentence},
    traced::{Epochs, Packets, Traced, destination, source, translations},
};
use crate::{
    model::{
        Flow, Mark, Status, Tuple,
        hook::Hook,
        order,
        path::{CtState, Direction, SiteKind, Step, Verdict},
    },
    report::{Names, Report},
};

/// Something of a flow that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    pub flow: FlowName,
    /// Where: of paths the hook, the direction and the state of the packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    pub before: String,
    pub after: String,
    /// What decided before, and after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_by: Option<String>,
}

/// A rule that packets met on one side alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct RuleChange {
    pub rule: String,
    /// Packets of traced paths before, and after.
    pub before: u64,
    pub after: u64,
}

/// Flows of one side that the other does not have.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Alone {
    pub flows: Vec<FlowName>,
    /// Conntrack flows in them.
    pub conntrack_flows: u64,
    /// How many of these are to be expected between two samples of the same traffic (Good and Turing: the share of
    /// flows that the other side has seen once).
    pub expected: f64,
}

/// All differences.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Differences {
    pub fates: Vec<Change>,
    pub paths: Vec<Change>,
    pub nat: Vec<Change>,
    pub marks: Vec<Change>,
    pub rules: Vec<RuleChange>,
    pub appeared: Alone,
    pub vanished: Alone,
    /// Flows that both sides have.
    pub compared: usize,
}

/// What a flow is known by on both sides: the name of its namespace, its zone, its folded tuple.
type Key = (String, u16, Tuple);

struct Flows<'a> {
    names: Names<'a>,
    by_key: HashMap<Key, &'a Flow>,
}

impl<'a> Flows<'a> {
    fn of(report: &'a Report) -> Self {
        let names = Names::new(&report.header);
        let mut by_key: HashMap<Key, &'a Flow> = HashMap::with_capacity(report.flows.len());
        for flow in &report.flows {
            let netns = names.netns(flow.key.netns).to_string();
            let key = (netns, flow.key.zone.0, flow.key.orig.folded());
            // A line of packets without an entry beside that of the flow says less.
            let known = by_key.entry(key).or_insert(flow);
            if flow.key.entry && !known.key.entry {
                *known = flow;
            }
        }
        Self { names, by_key }
    }

    fn name(&self, flow: &Flow) -> FlowName {
        FlowName::of(&flow.key, flow.key.orig.folded(), &self.names)
    }

    /// Those that the other side does not have, and how many of its flows it would be expected to lack.
    fn alone(&self, other: &Self) -> Alone {
        let mut alone: Vec<&Flow> = self
            .by_key
            .iter()
            .filter(|(key, _)| !other.by_key.contains_key(*key))
            .map(|(_, flow)| *flow)
            .collect();
        alone.sort_by(|a, b| order::compare(&a.key, &b.key));
        let merged = |flow: &Flow| flow.merged().max(1);
        let seen = |of: &Self| of.by_key.values().map(|flow| merged(flow)).sum::<u64>();
        let once = other.by_key.values().filter(|flow| merged(flow) == 1).count();
        let share = if seen(other) == 0 { 1.0 } else { once as f64 / seen(other) as f64 };
        Alone {
            conntrack_flows: alone.iter().map(|flow| merged(flow)).sum(),
            expected: share * seen(self) as f64,
            flows: alone.into_iter().map(|flow| self.name(flow)).collect(),
        }
    }
}

/// One of the two that are compared.
#[derive(Clone, Copy)]
pub(super) struct Compared<'a> {
    pub report: &'a Report,
    pub epochs: &'a Epochs,
}

/// What differs.
pub(super) fn differences(before: Compared<'_>, after: Compared<'_>) -> Differences {
    let (old, new) = (Flows::of(before.report), Flows::of(after.report));
    let mut found = Differences {
        appeared: new.alone(&old),
        vanished: old.alone(&new),
        rules: rules(before, after),
        ..Differences::default()
    };
    let mut both: Vec<(&Flow, &Flow)> =
        old.by_key.iter().filter_map(|(key, flow)| Some((*flow, *new.by_key.get(key)?))).collect();
    both.sort_by(|a, b| order::compare(&a.1.key, &b.1.key));
    found.compared = both.len();
    for (a, b) in both {
        let sides = [(a, Traced::of(a, before.epochs)), (b, Traced::of(b, after.epochs))];
        found.add(&new.name(b), &sides);
    }
    // Packets that do not pass any more first.
    let rank = |change: &Change| (change.before != "accepted", change.after == "accepted");
    found.fates.sort_by_key(rank);
    found
}

impl Differences {
    /// Adds what differs in a flow.
    fn add(&mut self, name: &FlowName, [(a, old), (b, new)]: &[(&Flow, Traced<'_>); 2]) {
        let change = |at, before: &str, after: &str| Change {
            flow: name.clone(),
            at,
            before: before.to_owned(),
            after: after.to_owned(),
            before_by: None,
            after_by: None,
        };
        let dropped = old.drop(Packets::First) || old.drop(Packets::Replies);
        let (was, is) = (Fate::of(a, old, dropped), Fate::of(b, new, dropped));
        if was != is && was != Fate::Unknown && is != Fate::Unknown {
            self.fates.push(Change {
                before_by: was.decided_by(a, old),
                after_by: is.decided_by(b, new),
                ..change(None, was.name(), is.name())
            });
            return;
        }
        if let Some((at, before, after)) = path(old, new) {
            self.paths.push(change(Some(at), &before, &after));
        }
        let translated = translations(old, new).or_else(|| nat(a).zip(nat(b)));
        if let Some((before, after)) = translated
            && before != after
        {
            self.nat.push(change(None, &before, &after));
        }
        if let Some((before, after)) = marks(a, old).zip(marks(b, new))
            && before.is_disjoint(&after)
        {
            let shown = |marks: &BTreeSet<u32>| {
                marks.iter().map(|mark| format!("{mark:#x}")).collect::<Vec<_>>().join(", ")
            };
            self.marks.push(change(None, &shown(&before), &shown(&after)));
        }
    }
}

/// Connmarks of a flow; `None` if they are not known.
fn marks(flow: &Flow, traced: &Traced<'_>) -> Option<BTreeSet<u32>> {
    let traced = traced.marks();
    let known = || flow.mark.map(|Mark(mark)| BTreeSet::from([mark]));
    if traced.is_empty() { known() } else { Some(traced) }
}

/// Packets of one flow that rules may treat alike.
type Class = (Hook, Direction, CtState);

/// The paths of each class, each as the rules that it met, with one of its steps.
fn classes<'a>(traced: &Traced<'a>) -> BTreeMap<Class, BTreeMap<Vec<Met>, Vec<&'a Step>>> {
    let mut classes: BTreeMap<Class, BTreeMap<Vec<Met>, Vec<&Step>>> = BTreeMap::new();
    for (path, _) in traced.paths() {
        if path.doubt.is_some() || path.steps.iter().any(|step| !step.placed) {
            continue;
        }
        // A base chain that every packet leaves by its policy is no rule that decides.
        let decides = |step: &&Step| {
            let whole = matches!(step.site.kind, SiteKind::Policy | SiteKind::Chain);
            !(whole && step.verdict == Verdict::Accept)
        };
        let steps: Vec<&Step> = path.steps.iter().filter(decides).collect();
        let met = steps.iter().map(|step| Met::of(step)).collect();
        let class = (path.hook, path.direction, path.state);
        classes.entry(class).or_default().insert(met, steps);
    }
    classes
}

/// Where and how the packets of a flow met other rules: only where no path of one side is one of the other, because
/// packets of one flow may take several.
fn path(a: &Traced<'_>, b: &Traced<'_>) -> Option<(String, String, String)> {
    let (old, new) = (classes(a), classes(b));
    for (class, before) in &old {
        let Some(after) = new.get(class) else { continue };
        if before.keys().any(|path| after.contains_key(path)) {
            continue;
        }
        let ((old_met, old_steps), (new_met, new_steps)) =
            (before.first_key_value()?, after.first_key_value()?);
        let same = old_met.iter().zip(new_met).take_while(|(a, b)| a == b).count();
        let step = |steps: &[&Step]| {
            steps.get(same).map_or_else(|| "no further rule".to_owned(), |step| sentence(step))
        };
        let (hook, direction, state) = class;
        let at = format!("{} {} {}", hook.name(), direction.name(), state.name());
        return Some((at, step(old_steps), step(new_steps)));
    }
    None
}

/// Addresses that a flow is translated to; `None` if its reply is not known.
fn nat(flow: &Flow) -> Option<String> {
    let reply = flow.reply?;
    let mut to = Vec::new();
    if flow.status.contains(Status::SRC_NAT) {
        to.push(source(&reply));
    }
    if flow.status.contains(Status::DST_NAT) {
        to.push(destination(&reply));
    }
    Some(if to.is_empty() { "not translated".to_owned() } else { to.join(", ") })
}

/// Rules that packets met on one side alone.
fn rules(before: Compared<'_>, after: Compared<'_>) -> Vec<RuleChange> {
    let (old, new) = (hits(before), hits(after));
    let all: BTreeSet<&RuleName> = old.keys().chain(new.keys()).collect();
    let mut changes = Vec::new();
    for name in all {
        let packets = |of: &BTreeMap<RuleName, (u64, String)>| of.get(name).map_or(0, |(n, _)| *n);
        let (before, after) = (packets(&old), packets(&new));
        if (before == 0) != (after == 0)
            && let Some((_, rule)) = new.get(name).or_else(|| old.get(name))
        {
            changes.push(RuleChange { rule: rule.clone(), before, after });
        }
    }
    changes
}

/// Packets of traced paths that met each rule.
fn hits(Compared { report, epochs }: Compared<'_>) -> BTreeMap<RuleName, (u64, String)> {
    let mut hits: BTreeMap<RuleName, (u64, String)> = BTreeMap::new();
    let all = report.flows.iter().flat_map(|flow| Traced::of(flow, epochs).into_paths());
    for (path, packets) in all {
        for step in &*path.steps {
            let hit = hits.entry(RuleName::of(&step.site)).or_insert_with(|| (0, sentence(step)));
            hit.0 += packets;
        }
    }
    hits
}
