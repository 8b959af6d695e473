//! The paths of flows as columns. Paths through one hook with the same steps are one *shape*; a flow has the number of
//! the shape, and the packets that took it.

use std::io;

use serde::Serialize;

use super::{
    columns::Columns,
    dictionary::{Dictionary, Words},
    facts::clean,
    rules::Rules,
};
use crate::{
    model::{
        Flow, NetnsId,
        hook::Hook,
        path::{Direction, Doubt, Outcome, Provenance, Step, Traversal},
    },
    report::{
        Header,
        path::{self, EqualPaths, MarkChange, equal_paths},
        steps::Visit,
    },
};

pub(super) struct PathColumns<'a> {
    header: &'a Header,
    flows: &'a [Flow],
    shapes: Dictionary<Key<'a>>,
    objects: Vec<ShapeObject>,
}

/// What paths of one shape share.
#[derive(PartialEq, Eq, Hash)]
struct Key<'a> {
    netns: NetnsId,
    direction: Direction,
    hook: Hook,
    outcome: Outcome,
    doubt: Option<Doubt>,
    steps: &'a [Step],
    marks: Vec<MarkChange<'a>>,
}

#[derive(Serialize)]
struct ShapeObject {
    hook: Hook,
    direction: Direction,
    dropped: bool,
    steps: Vec<StepObject>,
    /// Steps of which only that they were met is known.
    unplaced: Vec<StepObject>,
    /// Marks that changed: behind which step, if that is known, and what they became.
    marks: Vec<(Option<usize>, String)>,
    /// What the reader must know of the steps.
    remarks: Vec<String>,
}

/// Site, verdict, where that leads, chains around its own, whether the packet ended there, how it is known if not exactly.
#[derive(Serialize)]
struct StepObject(u32, &'static str, Option<String>, usize, u8, Option<&'static str>);

impl<'a> PathColumns<'a> {
    pub(super) fn new(header: &'a Header, flows: &'a [Flow]) -> Self {
        Self { header, flows, shapes: Dictionary::default(), objects: Vec::new() }
    }

    pub(super) fn write(
        mut self,
        words: &mut Words,
        rules: &mut Rules<'a>,
        columns: &mut Columns<'_>,
    ) -> io::Result<()> {
        let traced = self.header.epochs.is_some();
        let mut counts = Vec::new();
        let mut paths: [Vec<u64>; 5] = Default::default();
        for flow in self.flows {
            let all = if traced { equal_paths(flow) } else { Vec::new() };
            let first = all.first().map(|equal| equal.first.epoch);
            let several = flow.paths.iter().any(|(path, _)| Some(path.epoch) != first);
            counts.push(all.len() as u64);
            for equal in all {
                let row = [
                    self.shape(flow.key.netns, &equal, rules).into(),
                    equal.count(),
                    equal.first_epoch().into(),
                    words.number(equal.taken_by(several)),
                    words.number(path::translations(&equal).join("\n")),
                ];
                paths.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
            }
        }
        columns.numbers("paths", counts)?;
        let names = ["path_shape", "path_packets", "path_epoch", "path_taken", "path_nat"];
        names.iter().zip(paths).try_for_each(|(name, column)| columns.numbers(name, column))?;
        columns.json("shapes", &self.objects)
    }

    fn shape(&mut self, netns: NetnsId, equal: &EqualPaths<'a>, rules: &mut Rules<'a>) -> u32 {
        let EqualPaths { first: path, rows, marks, .. } = equal;
        let Traversal { hook, direction, outcome, doubt, steps, .. } = path;
        let key = Key {
            netns,
            direction: *direction,
            hook: *hook,
            outcome: *outcome,
            doubt: *doubt,
            steps,
            marks: marks.clone(),
        };
        let (number, new) = self.shapes.number(key);
        if new {
            let mut step = |step: &'a Step, depth| {
                let Step { site, verdict, provenance, placed: _ } = step;
                let ended = u8::from(Visit { traversal: path, step }.ended());
                let how = (*provenance != Provenance::Exact).then(|| provenance.name());
                StepObject(
                    rules.site(netns, site),
                    verdict.name(),
                    verdict.target().map(clean),
                    depth,
                    ended,
                    how,
                )
            };
            self.objects.push(ShapeObject {
                hook: *hook,
                direction: *direction,
                dropped: *outcome == Outcome::Dropped,
                steps: rows.iter().map(|row| step(row.step, row.depth)).collect(),
                unplaced: path::unplaced(path).map(|of| step(of, 0)).collect(),
                marks: marks
                    .iter()
                    .map(|mark| (path::after(rows, &mark.2), path::changed(mark).to_string()))
                    .collect(),
                remarks: path::remarks(path),
            });
        }
        number
    }
}
