//! Packets that two firewalls treat otherwise. Packets at and beside each constant of their rules are evaluated hook by
//! hook, and whole flows from end to end.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{
    field::{Source, Transform, highest},
    reading::{RuleAt, TableRules, tables},
    witness::{self, Point},
};
use crate::{
    firewall::evaluate::{
        BaseHook, Evaluation, Firewall, Packet, UnknownSet, evaluate_hook, routes::Routes,
        state::Fate,
    },
    model::{hook::Hook, table::Family},
    netlink::nftables::key::{ct, meta},
};

/// Ranges of one field of one rule, and values of one field of all rules, whose ends are tried.
const RANGES: usize = 16;
const VALUES: usize = 256;

/// Values that packets have often, whatever rules say.
const USUAL: [(Source, &[u128]); 4] = [
    (Source::Ct(ct::STATE, None), &[8, 2, 4, 1]),
    (Source::Meta(meta::L4PROTO), &[6, 17, 1, 58]),
    (Source::transport(13), &[0x02, 0x12, 0x10, 0x01, 0x04, 0x00]),
    (Source::Meta(meta::NFPROTO), &[2, 10]),
];

/// What becomes of a packet in one firewall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Decided, or why not.
    pub fate: Result<Fate, UnknownSet>,
    /// The rule or policy that decides, if it is one.
    pub by: Option<RuleAt>,
    /// The packet behind it, if that is decided and it passes.
    behind: Option<Box<Packet>>,
    /// All possible fates, in order of their names.
    fates: BTreeSet<String>,
}

impl Outcome {
    /// What an evaluation says.
    #[must_use]
    pub fn of(evaluation: &Evaluation) -> Self {
        let only = match evaluation.endings.as_slice() {
            [only] => Some(only),
            _ => None,
        };
        let passed = only.filter(|end| end.fate == Fate::Accept);
        let last = only.and_then(|end| end.steps.last());
        Self {
            fate: evaluation.fate(),
            by: last.map(|step| (step.chain, step.index)),
            behind: passed.map(|end| Box::new(end.packet.clone())),
            fates: evaluation.endings.iter().map(|end| format!("{:?}", end.fate)).collect(),
        }
    }
}

/// How two outcomes are related.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// One passes, the other does not, or not in the same manner.
    Verdict,
    /// Both pass, and the packets differ behind: marks, addresses.
    Packet,
    /// At least one is undecided, and the possible fates differ.
    Perhaps,
    /// At least one is undecided, and the possible fates are the same.
    Undecided,
    /// The same.
    Same,
}

impl Relation {
    /// Of two outcomes.
    #[must_use]
    pub fn of(one: &Outcome, two: &Outcome) -> Self {
        match (&one.fate, &two.fate) {
            (Ok(a), Ok(b)) if a != b => Self::Verdict,
            (Ok(_), Ok(_)) => match (&one.behind, &two.behind) {
                (Some(a), Some(b)) if a != b => Self::Packet,
                _ => Self::Same,
            },
            _ if one.fates == two.fates => Self::Undecided,
            _ => Self::Perhaps,
        }
    }
}

/// A packet that two firewalls treat otherwise.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The hook; `None`: from end to end.
    pub hook: Option<Hook>,
    /// The packet as it comes there.
    pub packet: Packet,
    /// How they differ.
    pub relation: Relation,
    /// What becomes of it in each.
    pub outcomes: [Outcome; 2],
}

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Packets that were evaluated in both.
    pub packets: usize,
    /// Those that are undecided in the same manner.
    pub undecided: usize,
    /// Differences: the first one for each pair of rules that decide.
    pub differences: Vec<Difference>,
    /// All packets that are treated otherwise.
    pub different: usize,
    pairs: HashSet<(Option<Hook>, Relation, [Option<RuleAt>; 2])>,
}

impl Comparison {
    /// Adds a packet that was evaluated in both.
    pub fn add(&mut self, hook: Option<Hook>, packet: &Packet, outcomes: [Outcome; 2]) {
        self.packets += 1;
        let relation = Relation::of(&outcomes[0], &outcomes[1]);
        match relation {
            Relation::Same => return,
            Relation::Undecided => {
                self.undecided += 1;
                return;
            }
            Relation::Verdict | Relation::Packet | Relation::Perhaps => self.different += 1,
        }
        if self.pairs.insert((hook, relation, [outcomes[0].by, outcomes[1].by])) {
            let packet = packet.clone();
            self.differences.push(Difference { hook, packet, relation, outcomes });
        }
    }
}

/// Compares two firewalls by at most so many packets at and beside the constants of their rules.
pub fn boundaries(
    firewalls: [&Firewall; 2],
    routes: [&dyn Routes; 2],
    most: usize,
    comparison: &mut Comparison,
) {
    let mut seen = HashSet::new();
    for (hook, family, point) in points(firewalls, most) {
        let base = BaseHook { hook, nat: false, before_conntrack: false };
        let Some(packet) = witness::packet(&point, family, base) else { continue };
        if !seen.insert((hook, packet.clone())) {
            continue;
        }
        let outcome = |side: usize| {
            let routes = routes[side];
            Outcome::of(&evaluate_hook(firewalls[side], hook, packet.clone(), routes))
        };
        comparison.add(Some(hook), &packet, [outcome(0), outcome(1)]);
    }
}

/// Points at and beside the constants: first those of each rule with one field changed, then mixtures of all.
fn points(firewalls: [&Firewall; 2], most: usize) -> Vec<(Hook, Family, Point)> {
    let mut points: Vec<(Hook, Family, Point)> = Vec::new();
    let mut values: BTreeMap<Source, BTreeSet<u128>> = BTreeMap::new();
    for (source, usual) in USUAL {
        values.entry(source).or_default().extend(usual);
    }
    for firewall in firewalls {
        for table in tables(firewall) {
            for (hook, point, edges) in of_table(&table, firewall) {
                points.push((hook, table.family, point.clone()));
                for (source, value) in edges {
                    let all = values.entry(source).or_default();
                    if all.len() < VALUES {
                        all.insert(value);
                    }
                    let mut beside = point.clone();
                    beside.insert(source, value);
                    points.push((hook, table.family, beside));
                }
            }
        }
    }
    // Where no rule asks for anything, packets still meet policies.
    let any = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
    points.extend(any.map(|hook| (hook, Family::Inet, Point::new())));
    let mut kept = spread(points, most);
    let begun = kept.clone();
    let values: Vec<(Source, Vec<u128>)> =
        values.into_iter().map(|(source, of)| (source, of.into_iter().collect())).collect();
    let mut random = Random(0x5eed);
    while kept.len() < most {
        let (hook, family, mut point) = begun[random.below(begun.len())].clone();
        for _ in 0..=random.below(3) {
            let (source, of) = &values[random.below(values.len())];
            point.insert(*source, of[random.below(of.len())]);
        }
        kept.push((hook, family, point));
    }
    kept
}

/// At most half as many as packets are wanted, evenly from all, so that the others can mix them.
fn spread<T: Clone>(all: Vec<T>, most: usize) -> Vec<T> {
    let wanted = (most / 2).max(1);
    if all.len() <= wanted {
        return all;
    }
    (0..wanted).map(|index| all[index * all.len() / wanted].clone()).collect()
}

/// For each region of each rule a point of it, with the values at and beside its ends, at each hook that leads there.
fn of_table(table: &TableRules, firewall: &Firewall) -> Vec<(Hook, Point, Vec<(Source, u128)>)> {
    let hooks = table.hooks(firewall);
    let mut found = Vec::new();
    for chain in &table.chains {
        let Some(hooks) = hooks.get(chain) else { continue };
        for region in table.rules(*chain).iter().flat_map(|rule| &rule.bound) {
            let Some(point) = witness::point(region, &table.fields) else { continue };
            let mut edges = Vec::new();
            for (number, values) in region.fields() {
                let field = table.fields.field(*number);
                let highest = highest(field.bits());
                for (first, last) in values.ranges().iter().take(RANGES) {
                    let ends = [*first, *last, first.saturating_sub(1), last.saturating_add(1)];
                    for value in ends.into_iter().filter(|value| *value <= highest) {
                        match field.transforms[..] {
                            [] => edges.push((field.source, value)),
                            [Transform::Mask(_, xor)] => edges.push((field.source, value ^ xor)),
                            _ => {}
                        }
                    }
                }
            }
            found.extend(hooks.iter().map(|hook| (*hook, point.clone(), edges.clone())));
        }
    }
    found
}

/// SplitMix64: the same numbers in every run.
struct Random(u64);

impl Random {
    /// A number below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}
