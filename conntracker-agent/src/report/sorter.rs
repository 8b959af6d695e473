//! Sorts more flows than fit into memory: so many at a time are sorted and written to a temporary file, and read from
//! there side by side.

use std::{
    borrow::Cow, cmp::Ordering, collections::BinaryHeap, fs::File, io, os::unix::fs::FileExt,
    rc::Rc,
};

use anyhow::Result;

use super::list::{FlowList, each_of};
use crate::{
    model::{Flow, FlowBytes},
    os::scratch,
};

/// An order of flows.
pub(crate) type Order = Rc<dyn Fn(&Flow, &Flow) -> Ordering>;

/// What is read of each run of sorted flows at once, and written at once.
const BUFFER: usize = 64 * 1024;

/// Flows to be sorted. Equal ones stay in the order in which they came.
pub(crate) struct Sorter {
    order: Order,
    in_memory: usize,
    flows: Vec<Flow>,
    runs: Option<Box<Runs>>,
}

/// Sorted flows.
pub(crate) enum Sorted {
    Memory(Vec<Flow>),
    File(Order, Box<Runs>),
}

/// Runs of sorted flows in a file.
pub(crate) struct Runs {
    file: File,
    bytes: FlowBytes,
    /// Where each run ends; the first one begins at 0.
    ends: Vec<u64>,
    flows: usize,
}

impl Sorter {
    /// Of so many flows that are kept in memory.
    pub fn new(order: Order, in_memory: usize) -> Self {
        Self { order, in_memory: in_memory.max(1), flows: Vec::new(), runs: None }
    }

    /// Adds a flow.
    ///
    /// # Errors
    /// The temporary file cannot be made or written.
    pub fn push(&mut self, flow: Flow) -> Result<()> {
        self.flows.push(flow);
        if self.flows.len() >= self.in_memory {
            self.write_run()?;
        }
        Ok(())
    }

    /// All flows, sorted.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(mut self) -> Result<Sorted> {
        if self.runs.is_some() {
            self.write_run()?;
        }
        if let Some(runs) = self.runs {
            return Ok(Sorted::File(self.order, runs));
        }
        self.flows.sort_by(|a, b| (self.order)(a, b));
        Ok(Sorted::Memory(self.flows))
    }

    fn write_run(&mut self) -> Result<()> {
        let Self { order, flows, runs, .. } = self;
        flows.sort_by(|a, b| order(a, b));
        let runs = match runs {
            Some(runs) => runs,
            None => runs.insert(Box::new(Runs {
                file: scratch::file()?,
                bytes: FlowBytes::default(),
                ends: Vec::new(),
                flows: 0,
            })),
        };
        runs.write(flows.drain(..)).map_err(|error| scratch::error(&error))
    }
}

impl Runs {
    fn end(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    fn write(&mut self, flows: impl Iterator<Item = Flow>) -> io::Result<()> {
        let mut at = self.end();
        let mut buffer = Vec::with_capacity(2 * BUFFER);
        for flow in flows {
            let start = buffer.len();
            buffer.extend_from_slice(&[0; 4]);
            self.bytes.write(flow, &mut buffer);
            let len = (buffer.len() - start - 4) as u32;
            buffer[start..start + 4].copy_from_slice(&len.to_le_bytes());
            self.flows += 1;
            if buffer.len() >= BUFFER {
                self.file.write_all_at(&buffer, at)?;
                at += buffer.len() as u64;
                buffer.clear();
            }
        }
        self.file.write_all_at(&buffer, at)?;
        self.ends.push(at + buffer.len() as u64);
        Ok(())
    }
}

/// A run that is being read.
struct Cursor<'a> {
    runs: &'a Runs,
    /// What is read and not taken: from `taken` on.
    buffer: Vec<u8>,
    taken: usize,
    /// Where the rest of the run stands.
    at: u64,
    end: u64,
}

impl Cursor<'_> {
    /// Makes so many bytes available; fewer at the end of the run.
    fn fill(&mut self, len: usize) -> io::Result<()> {
        if self.buffer.len() - self.taken >= len {
            return Ok(());
        }
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let had = self.buffer.len();
        let more = (self.end - self.at).min((len - had).max(BUFFER) as u64) as usize;
        self.buffer.resize(had + more, 0);
        self.runs.file.read_exact_at(&mut self.buffer[had..], self.at)?;
        self.at += more as u64;
        Ok(())
    }

    fn next(&mut self) -> io::Result<Option<Flow>> {
        self.fill(4)?;
        let Some(len) = self.buffer[self.taken..].first_chunk() else { return Ok(None) };
        let len = u32::from_le_bytes(*len) as usize;
        self.fill(4 + len)?;
        let flow = self.buffer[self.taken..].get(4..4 + len);
        let flow = flow.and_then(|bytes| self.runs.bytes.read(bytes));
        self.taken += 4 + len;
        flow.map(Some).ok_or_else(|| io::Error::other("it has other bytes than were written"))
    }
}

/// The next flow of a run.
struct Head<'a> {
    order: &'a Order,
    flow: Flow,
    run: usize,
}

impl Ord for Head<'_> {
    /// The greatest is the one that comes first.
    fn cmp(&self, other: &Self) -> Ordering {
        (self.order)(&other.flow, &self.flow).then_with(|| other.run.cmp(&self.run))
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head<'_> {}

/// Goes through all runs side by side.
struct Merged<'a> {
    order: &'a Order,
    cursors: Vec<Cursor<'a>>,
    heads: BinaryHeap<Head<'a>>,
    error: Option<io::Error>,
}

impl<'a> Merged<'a> {
    fn new(order: &'a Order, runs: &'a Runs) -> Self {
        let starts = std::iter::once(0).chain(runs.ends.iter().copied());
        let cursor = |(at, &end)| Cursor { runs, buffer: Vec::new(), taken: 0, at, end };
        let cursors: Vec<Cursor<'a>> = starts.zip(&runs.ends).map(cursor).collect();
        let mut merged = Self { order, cursors, heads: BinaryHeap::new(), error: None };
        (0..merged.cursors.len()).for_each(|run| merged.advance(run));
        merged
    }

    fn advance(&mut self, run: usize) {
        match self.cursors[run].next() {
            Ok(Some(flow)) => self.heads.push(Head { order: self.order, flow, run }),
            Ok(None) => {}
            Err(error) => self.error = Some(error),
        }
    }
}

impl Iterator for Merged<'_> {
    type Item = io::Result<Flow>;

    fn next(&mut self) -> Option<io::Result<Flow>> {
        if let Some(error) = self.error.take() {
            self.heads.clear();
            return Some(Err(error));
        }
        let Head { flow, run, .. } = self.heads.pop()?;
        self.advance(run);
        Some(Ok(flow))
    }
}

impl Sorted {
    /// Takes the flows one by one.
    ///
    /// # Errors
    /// Those of `take`, and of the file.
    pub fn drain(self, mut take: impl FnMut(Flow) -> Result<()>) -> Result<()> {
        match self {
            Self::Memory(flows) => flows.into_iter().try_for_each(take),
            Self::File(order, runs) => Merged::new(&order, &runs)
                .try_for_each(|flow| take(flow.map_err(|error| scratch::error(&error))?)),
        }
    }

    /// The first flows, in memory.
    ///
    /// # Errors
    /// Those of the file.
    pub fn first(self, most: usize) -> Result<Self> {
        Ok(Self::Memory(match self {
            Self::Memory(mut flows) => {
                flows.truncate(most);
                flows
            }
            Self::File(order, runs) => {
                let first: io::Result<Vec<Flow>> = Merged::new(&order, &runs).take(most).collect();
                first.map_err(|error| scratch::error(&error))?
            }
        }))
    }

    /// All flows, in memory.
    ///
    /// # Errors
    /// Those of the file.
    pub fn into_vec(self) -> Result<Vec<Flow>> {
        if let Self::Memory(flows) = self {
            return Ok(flows);
        }
        let mut flows = Vec::with_capacity(self.count());
        self.drain(|flow| {
            flows.push(flow);
            Ok(())
        })?;
        Ok(flows)
    }
}

impl FlowList for Sorted {
    fn each(&self, visit: &mut dyn FnMut(&[Flow]) -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::Memory(flows) => visit(flows),
            Self::File(order, runs) => each_of(Merged::new(order, runs), visit),
        }
    }

    fn whole(&self) -> io::Result<Cow<'_, [Flow]>> {
        match self {
            Self::Memory(flows) => Ok(Cow::Borrowed(flows)),
            Self::File(order, runs) => Merged::new(order, runs).collect(),
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Memory(flows) => flows.len(),
            Self::File(_, runs) => runs.flows,
        }
    }
}

#[cfg(test)]
mod tests;
