//! The steps that all paths share, and their order.
//!
//! An item is a set of edges of which every path has exactly one, so its rule was met. Two items are ordered if no
//! path meets them in the opposite order. If several rules can have entered a chain, some items have no order: these
//! are set apart, so that all others have one.

use std::collections::BTreeMap;

use super::{
    ChainId, Program, Solved, SolvedVerdict, Spot,
    common::{Left, Live},
    graph::{Edge, Met},
};
use crate::model::path::Provenance;

/// The key that joins edges to one item.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// The counter of a spot moved, and still has to move this many times.
    Counted(Spot, u32),
    /// All paths leave a base chain by the same rule.
    Exit(usize),
    /// An edge by its number, on all paths.
    Edge(usize),
}

/// A step that every path has.
pub(super) struct Item<'a> {
    edges: Vec<&'a Edge>,
    /// The spot that is met.
    pub spot: Spot,
    /// Whether a counter proves it.
    pub counted: bool,
    /// Whether it has an order.
    pub placed: bool,
    /// Its level, if it has only one.
    level: Option<usize>,
    /// Positions between which its edges lie.
    first: usize,
    last: usize,
}

impl Item<'_> {
    /// Whether the item is certain to be in this base chain (an index of the observation).
    pub fn is_in(&self, base: usize) -> bool {
        self.level == Some(2 * base + 1)
    }

    /// As a step. `end`: the index of the end of its chain; `evidence`: counters were read.
    pub fn step(&self, live: &Live<'_>, end: u32, evidence: bool) -> Solved {
        let verdicts = || self.edges.iter().filter_map(|edge| edge.met).map(|met| met.verdict);
        let verdict = verdicts().next().unwrap_or(SolvedVerdict::Unknown);
        let certain = verdicts().all(|other| other == verdict);
        let follows = || self.edges.iter().all(|edge| live.is_without_choice(edge));
        let exact = self.counted || (evidence && self.spot.index == end && follows());
        let alone = || self.level.is_some_and(|level| live.is_one_path(level));
        Solved {
            chain: self.spot.chain,
            index: Some(self.spot.index),
            verdict: if certain { verdict } else { SolvedVerdict::Unknown },
            provenance: match exact {
                true => Provenance::Exact,
                false if certain && alone() => Provenance::Evaluated,
                false => Provenance::Inferred,
            },
            placed: self.placed,
        }
    }
}

/// All items; those that have an order are sorted. `left`: how each base chain was left.
pub(super) fn items<'a>(program: &Program, live: &Live<'a>, left: &[Left]) -> Vec<Item<'a>> {
    let mut found: BTreeMap<Key, Vec<&Edge>> = BTreeMap::new();
    for (number, &edge) in live.edges.iter().enumerate() {
        let Some(Met { spot, counted, .. }) = edge.met else { continue };
        let level = live.level(edge.from);
        let leaves = level != live.level(edge.to) && left.get(level / 2) == Some(&Left::By(spot));
        let key = match counted {
            Some(left) => Key::Counted(spot, left),
            None if leaves => Key::Exit(level / 2),
            None if live.is_on_all(edge) => Key::Edge(number),
            None => continue,
        };
        found.entry(key).or_default().push(edge);
    }
    let mut items: Vec<_> = found.into_values().filter_map(|edges| item(live, edges)).collect();
    items.sort_by_key(|item| item.first);
    let is_base = |id| program.chain(id).is_some_and(|chain| chain.base.is_some());
    set_apart(live, &mut items, is_base);
    items
}

fn item<'a>(live: &Live<'_>, edges: Vec<&'a Edge>) -> Option<Item<'a>> {
    let first = *edges.first()?;
    let Met { spot, counted, .. } = first.met?;
    let level = live.level(first.from);
    let one_level = edges.iter().all(|edge| live.level(edge.from) == level);
    // Unknown rules may have met it too.
    let on_all = edges.len() == 1 && live.is_on_all(first);
    let sure = counted.is_none() || on_all || !live.has_opaque();
    Some(Item {
        spot,
        counted: counted.is_some(),
        placed: sure && one_level,
        level: one_level.then_some(level),
        first: edges.iter().map(|edge| live.position(edge.from)).min()?,
        last: edges.iter().map(|edge| live.position(edge.to)).max()?,
        edges,
    })
}

/// Sets items apart until every two of the others have an order. An item that is one edge on all paths has an order
/// and stays. Rules of base chains are kept where possible.
fn set_apart(live: &Live<'_>, items: &mut [Item<'_>], is_base: impl Fn(ChainId) -> bool) {
    let mut against: Vec<Vec<usize>> = vec![Vec::new(); items.len()];
    let mut behind: Vec<Option<Vec<bool>>> = vec![None; items.len()];
    for a in 0..items.len() {
        for b in a + 1..items.len() {
            if items[b].first >= items[a].last {
                break;
            }
            if !(items[a].placed && items[b].placed) {
                continue;
            }
            // `a` comes first in topological order, so a path can meet it first.
            let reached = behind[b].get_or_insert_with(|| live.behind(&items[b].edges));
            if items[a].edges.iter().any(|edge| reached[live.position(edge.from)]) {
                against[a].push(b);
                against[b].push(a);
            }
        }
    }
    let conflicts = |items: &[Item<'_>], at: usize| {
        against[at].iter().filter(|&&other| items[other].placed).count()
    };
    loop {
        let worst = (0..items.len())
            .filter(|&at| items[at].placed && items[at].edges.len() > 1)
            .map(|at| (conflicts(items, at), at))
            .filter(|&(conflicts, _)| conflicts > 0)
            .max_by_key(|&(conflicts, at)| (!is_base(items[at].spot.chain), conflicts));
        let Some((_, worst)) = worst else { break };
        items[worst].placed = false;
    }
}
