//! Paths of a flow that are told as one, because their packets met the same steps.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use super::rows::{Row, rows};
use crate::{
    model::{
        Flow, Tuple,
        hook::Hook,
        path::{CtState, Direction, Doubt, Outcome, Step, Traversal},
    },
    report::text::{
        marks::{By, Kind, changes_on},
        trace::{Change, State},
    },
};

/// Paths through one hook that differ in nothing but the packets that took them and how those were translated.
pub(in crate::report) struct EqualPaths<'a> {
    /// The first of them.
    pub first: &'a Traversal,
    /// The steps whose order is known.
    pub rows: Vec<Row<'a>>,
    /// Changes of marks.
    pub marks: Vec<MarkChange<'a>>,
    /// Who took them.
    pub packets: Vec<Packets>,
    /// Each translation, with its packets.
    pub nat: BTreeMap<(Tuple, Tuple), u64>,
}

/// What a mark became, and what changed it.
pub(in crate::report) type MarkChange<'a> = (Kind, Change, By<'a>);

/// Packets that are alike to the rules.
pub(in crate::report) struct Packets {
    state: State,
    count: u64,
    epochs: BTreeSet<u32>,
}

/// What equal paths share.
#[derive(PartialEq, Eq, Hash)]
struct Shared<'a> {
    direction: Direction,
    hook: Hook,
    early: bool,
    outcome: Outcome,
    doubt: Option<Doubt>,
    steps: &'a [Step],
    marks: Vec<MarkChange<'a>>,
}

/// The paths of a flow in the order in which its packets came by: direction by direction and hook by hook.
pub(in crate::report) fn equal_paths(flow: &Flow) -> Vec<EqualPaths<'_>> {
    let mut all: Vec<EqualPaths<'_>> = Vec::new();
    let mut index = HashMap::new();
    for (path, packets) in flow.paths.iter() {
        let marks: Vec<MarkChange<'_>> = [Kind::Connmark, Kind::Packet]
            .into_iter()
            .flat_map(|kind| {
                changes_on(path, kind).into_iter().map(move |(change, by)| (kind, change, by))
            })
            .collect();
        let shared = Shared {
            direction: path.direction,
            hook: path.hook,
            early: path.state == CtState::Early,
            outcome: path.outcome,
            doubt: path.doubt,
            steps: &path.steps,
            marks: marks.clone(),
        };
        let at = *index.entry(shared).or_insert_with(|| {
            let rows = rows(path.steps.iter().filter(|step| step.placed));
            let (packets, nat) = (Vec::new(), BTreeMap::new());
            all.push(EqualPaths { first: path, rows, marks, packets, nat });
            all.len() - 1
        });
        all[at].add(path, State::of(path, flow), packets);
    }
    let local = [Direction::Original, Direction::Reply].map(|direction| {
        let of_it = all.iter().filter(|equal| equal.first.direction == direction);
        let hooks: Vec<Hook> = of_it.map(|equal| equal.first.hook).collect();
        sent_to_itself(&hooks)
    });
    // A flow's first packets are the new ones, and those of a raw table have no state yet. The sort is stable: what
    // differs in nothing of this stays in the order in which it was first seen.
    all.sort_by_key(|EqualPaths { first: path, .. }| {
        let arrives =
            local[usize::from(path.direction == Direction::Reply)] && path.hook < Hook::Output;
        (path.direction, arrives, path.hook, path.state != CtState::Early, path.state)
    });
    all
}

/// Whether a machine sends packets to itself, so that they leave it before they arrive: a packet that arrives from
/// elsewhere meets either the input hook or the postrouting hook, and not the output hook.
fn sent_to_itself(hooks: &[Hook]) -> bool {
    hooks.contains(&Hook::Output)
        || (hooks.contains(&Hook::Input) && hooks.contains(&Hook::Postrouting))
}

impl EqualPaths<'_> {
    fn add(&mut self, path: &Traversal, state: State, packets: u64) {
        let alike = self.packets.iter_mut().find(|alike| alike.state == state);
        if let Some(alike) = alike {
            alike.count += packets;
            alike.epochs.insert(path.epoch);
        } else {
            let epochs = BTreeSet::from([path.epoch]);
            self.packets.push(Packets { state, count: packets, epochs });
        }
        if let Some(nat) = path.nat {
            *self.nat.entry(nat).or_default() += packets;
        }
    }

    /// Packets that took them.
    pub(in crate::report) fn count(&self) -> u64 {
        self.packets.iter().map(|packets| packets.count).sum()
    }

    /// The earliest epoch that they met.
    pub(in crate::report) fn first_epoch(&self) -> u32 {
        let epochs = self.packets.iter().filter_map(|packets| packets.epochs.first());
        epochs.min().copied().unwrap_or(self.first.epoch)
    }

    /// The numbers of packets with what tells them apart: their state, and the epoch if the flow met several.
    pub(in crate::report) fn taken_by(&self, epochs: bool) -> impl fmt::Display {
        // Lists of epochs have commas of their own.
        let separator = if epochs { "; " } else { ", " };
        fmt::from_fn(move |f| {
            for (n, Packets { state, count, epochs: of }) in self.packets.iter().enumerate() {
                let separator = if n == 0 { "" } else { separator };
                let plural = if *count == 1 { "" } else { "s" };
                write!(f, "{separator}{count} {state} packet{plural}")?;
                if epochs {
                    write!(f, " in epoch{} {}", if of.len() == 1 { "" } else { "s" }, Ranges(of))?;
                }
            }
            Ok(())
        })
    }
}

/// `1-3, 5`.
struct Ranges<'a>(&'a BTreeSet<u32>);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<u32> = self.0.iter().copied().collect();
        for (n, run) in numbers.chunk_by(|a, b| a + 1 == *b).enumerate() {
            let separator = if n == 0 { "" } else { ", " };
            match run {
                [] => {}
                [one] => write!(f, "{separator}{one}")?,
                [first, .., last] => write!(f, "{separator}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_in_a_row_are_a_range() {
        let text = |epochs: &[u32]| Ranges(&epochs.iter().copied().collect()).to_string();
        assert_eq!(text(&[4]), "4");
        assert_eq!(text(&[1, 3]), "1, 3");
        assert_eq!(text(&[1, 2, 3, 5, 8, 9]), "1-3, 5, 8-9");
    }

    #[test]
    fn packets_that_a_machine_sends_to_itself_leave_before_they_arrive() {
        use Hook::{Forward, Input, Output, Postrouting, Prerouting};
        assert!(sent_to_itself(&[Prerouting, Input, Output]));
        assert!(sent_to_itself(&[Input, Postrouting]));
        assert!(!sent_to_itself(&[Prerouting, Forward, Postrouting]));
        assert!(!sent_to_itself(&[Prerouting, Input]));
    }
}
