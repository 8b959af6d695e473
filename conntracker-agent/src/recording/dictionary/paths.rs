//! Paths by number: each with its steps and sites, which paths share, and without what it translated, which is each
//! packet's own.

use std::{collections::BTreeMap, sync::Arc};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::model::{
    hook::Hook,
    path::{
        CtState, Direction, Doubt, MarksBehind, Outcome, Provenance, Site, Step, Traversal, Verdict,
    },
};

/// Paths that a writer remembers; then it states all of them anew, under new numbers.
const MOST: usize = 65_536;

/// A step: number of its site, verdict, provenance, whether its position among the steps is certain.
type StepRow = (u64, Verdict, Provenance, bool);

/// Marks behind a base chain: number of its site, whether it is alone, packet mark, connmark.
type MarksRow = (u64, bool, u32, u32);

/// A path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct PathRow {
    hook: Hook,
    direction: Direction,
    state: CtState,
    outcome: Outcome,
    epoch: u32,
    packet_mark: (u32, u32),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connmark: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    fragment: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    doubt: Option<Doubt>,
    /// Number of its steps.
    steps: u64,
    /// Number of its marks between base chains.
    marks: u64,
}

/// Sites, lists of steps and of marks, and paths, of consecutive numbers each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::recording) struct PathStatement {
    /// Numbers of the first ones.
    first: [u64; 4],
    /// Those before them are not referred to any more.
    #[serde(default)]
    anew: bool,
    sites: Vec<Site>,
    steps: Vec<Vec<StepRow>>,
    marks: Vec<Vec<MarksRow>>,
    paths: Vec<PathRow>,
}

/// The numbers of paths.
#[derive(Debug, Default)]
pub(super) struct PathWriter {
    sites: HashMap<Arc<Site>, u64>,
    steps: HashMap<Arc<[Step]>, u64>,
    /// The same by where they are in memory, which is faster to look up than what they say.
    steps_by_address: HashMap<usize, (Arc<[Step]>, u64)>,
    marks: HashMap<Arc<[MarksBehind]>, u64>,
    paths: HashMap<PathRow, u64>,
    next: [u64; 4],
    new: PathStatement,
}

impl PathWriter {
    pub fn number(&mut self, path: &Traversal) -> u64 {
        if self.paths.len() >= MOST || self.steps_by_address.len() >= MOST {
            let Self { next, mut new, .. } = std::mem::take(self);
            new.anew = true;
            *self = Self { next, new, ..Self::default() };
        }
        let Traversal {
            hook,
            direction,
            state,
            outcome,
            epoch,
            packet_mark,
            ref marks,
            connmark,
            nat: _,
            fragment,
            ref steps,
            doubt,
        } = *path;
        let (steps, marks) = (self.steps(steps), self.marks(marks));
        let row = PathRow {
            hook,
            direction,
            state,
            outcome,
            epoch,
            packet_mark,
            connmark,
            fragment,
            doubt,
            steps,
            marks,
        };
        *self.paths.entry(row).or_insert_with_key(|row| {
            self.new.paths.push(row.clone());
            following(&mut self.next[3])
        })
    }

    fn site(&mut self, site: &Arc<Site>) -> u64 {
        if let Some(&number) = self.sites.get(site) {
            return number;
        }
        self.new.sites.push(Site::clone(site));
        let number = following(&mut self.next[0]);
        self.sites.insert(Arc::clone(site), number);
        number
    }

    fn steps(&mut self, steps: &Arc<[Step]>) -> u64 {
        let address = steps.as_ptr().addr();
        if let Some((of, number)) = self.steps_by_address.get(&address)
            && Arc::ptr_eq(of, steps)
        {
            return *number;
        }
        let number = self.steps.get(steps).copied().unwrap_or_else(|| {
            let rows = steps.iter().map(|step| {
                let Step { site, verdict, provenance, placed } = step;
                (self.site(site), verdict.clone(), *provenance, *placed)
            });
            let rows = rows.collect();
            self.new.steps.push(rows);
            let number = following(&mut self.next[1]);
            self.steps.insert(Arc::clone(steps), number);
            number
        });
        // While it is kept here, nothing else can be at its address. An empty list is at none of its own.
        if !steps.is_empty() {
            self.steps_by_address.insert(address, (Arc::clone(steps), number));
        }
        number
    }

    fn marks(&mut self, marks: &Arc<[MarksBehind]>) -> u64 {
        if let Some(&number) = self.marks.get(marks) {
            return number;
        }
        let rows = marks.iter().map(|marks| {
            let MarksBehind { chain, alone, packet, connection } = marks;
            (self.site(chain), *alone, *packet, *connection)
        });
        let rows = rows.collect();
        self.new.marks.push(rows);
        let number = following(&mut self.next[2]);
        self.marks.insert(Arc::clone(marks), number);
        number
    }

    pub fn statement(&mut self) -> Option<PathStatement> {
        let PathStatement { sites, steps, marks, paths, .. } = &self.new;
        if sites.is_empty() && steps.is_empty() && marks.is_empty() && paths.is_empty() {
            return None;
        }
        let next = PathStatement { first: self.next, ..PathStatement::default() };
        Some(std::mem::replace(&mut self.new, next))
    }
}

/// The number, and the next one from now on.
fn following(next: &mut u64) -> u64 {
    let number = *next;
    *next += 1;
    number
}

/// Paths by their numbers.
#[derive(Debug, Default)]
pub(super) struct StatedPaths {
    sites: BTreeMap<u64, Arc<Site>>,
    steps: BTreeMap<u64, Arc<[Step]>>,
    marks: BTreeMap<u64, Arc<[MarksBehind]>>,
    paths: BTreeMap<u64, Arc<Traversal>>,
}

impl StatedPaths {
    /// Takes a statement. What it refers to may be lost; what refers to that is lost with it.
    pub fn add(
        &mut self,
        PathStatement { first, anew, sites, steps, marks, paths }: PathStatement,
    ) {
        let keep = first.map(|first| first.saturating_sub(MOST as u64));
        if anew || self.paths.len() > 2 * MOST || self.steps.len() > 2 * MOST {
            self.sites = self.sites.split_off(&keep[0]);
            self.steps = self.steps.split_off(&keep[1]);
            self.marks = self.marks.split_off(&keep[2]);
            self.paths = self.paths.split_off(&keep[3]);
        }
        self.sites.extend((first[0]..).zip(sites.into_iter().map(Arc::new)));
        for (number, rows) in (first[1]..).zip(steps) {
            let step = |(site, verdict, provenance, placed)| {
                let site = Arc::clone(self.sites.get(&site)?);
                Some(Step { site, verdict, provenance, placed })
            };
            if let Some(steps) = rows.into_iter().map(step).collect::<Option<Arc<[Step]>>>() {
                self.steps.insert(number, steps);
            }
        }
        for (number, rows) in (first[2]..).zip(marks) {
            let behind = |(site, alone, packet, connection)| {
                let chain = Arc::clone(self.sites.get(&site)?);
                Some(MarksBehind { chain, alone, packet, connection })
            };
            if let Some(marks) = rows.into_iter().map(behind).collect::<Option<Arc<[_]>>>() {
                self.marks.insert(number, marks);
            }
        }
        for (number, row) in (first[3]..).zip(paths) {
            if let Some(path) = self.traversal(&row) {
                self.paths.insert(number, Arc::new(path));
            }
        }
    }

    fn traversal(&self, row: &PathRow) -> Option<Traversal> {
        let PathRow {
            hook,
            direction,
            state,
            outcome,
            epoch,
            packet_mark,
            connmark,
            fragment,
            doubt,
            steps,
            marks,
        } = *row;
        Some(Traversal {
            hook,
            direction,
            state,
            outcome,
            epoch,
            packet_mark,
            marks: Arc::clone(self.marks.get(&marks)?),
            connmark,
            nat: None,
            fragment,
            steps: Arc::clone(self.steps.get(&steps)?),
            doubt,
        })
    }

    pub fn get(&self, number: u64) -> Option<&Arc<Traversal>> {
        self.paths.get(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::events::tests::path;

    #[test]
    fn paths_come_back_and_share_their_steps() {
        let mut writer = PathWriter::default();
        let all: Vec<Traversal> = (0..300).map(path).collect();
        let numbers: Vec<u64> = all.iter().map(|path| writer.number(path)).collect();
        let statement = writer.statement().unwrap();
        assert_eq!(writer.statement(), None);
        assert!(statement.steps.len() < statement.paths.len());
        let json = serde_json::to_vec(&statement).unwrap();
        let mut stated = StatedPaths::default();
        stated.add(serde_json::from_slice(&json).unwrap());
        for (path, number) in all.iter().zip(numbers) {
            let wanted = Traversal { nat: None, ..path.clone() };
            assert_eq!(**stated.get(number).unwrap(), wanted);
            assert_eq!(writer.number(path), number);
        }
    }

    #[test]
    fn what_refers_to_a_lost_statement_is_lost_with_it() {
        let mut writer = PathWriter::default();
        let one = writer.number(&path(1));
        writer.statement();
        // Another outcome, the same steps.
        let mut other = path(1);
        other.epoch += 1;
        let two = writer.number(&other);
        let mut stated = StatedPaths::default();
        stated.add(writer.statement().unwrap());
        assert_eq!((stated.get(one), stated.get(two)), (None, None));
    }
}
