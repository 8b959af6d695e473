//! The flows of a moment, in as little memory as the table has them.

use std::{fs::File, io};

use super::{FlowTable, line::Line};
use crate::model::{Flow, process::Process};

/// The flows that the table had, in no order.
pub struct FlowSnapshot(Vec<Line>);

impl FlowSnapshot {
    /// Processes at the ends of flows, of which more may be known by now.
    pub fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.0.iter_mut().filter_map(|line| line.process.as_deref_mut())
    }

    /// As reports have them.
    pub fn into_flows(self) -> impl Iterator<Item = Flow> {
        self.0.into_iter().map(Line::flow)
    }
}

impl FlowTable {
    /// The flows that the table has now, and the lines of packets of which no flow is known.
    #[must_use]
    pub fn snapshot(&self) -> FlowSnapshot {
        let mut lines: Vec<Line> = Vec::with_capacity(self.flows.len());
        lines.extend(self.flows.iter().filter(|line| line.is_listed()).cloned());
        lines.extend(self.lines_without_entry());
        FlowSnapshot(lines)
    }

    /// From now on so many flows stay in memory, those that were used last; the others go to a file, which must be
    /// empty. For tables that are read once: snapshots have the flows in memory alone.
    pub fn spill_to(&mut self, file: File, in_memory: usize) {
        self.flows.spill_to(file, in_memory);
    }

    /// What went wrong with that file. Flows are missing then.
    #[must_use]
    pub fn spill_error(&self) -> Option<&io::Error> {
        self.flows.error()
    }

    /// The flows, and the lines of packets of which no flow is known, in no order.
    pub fn into_flows(self) -> impl Iterator<Item = io::Result<Flow>> {
        let without_entry = self.lines_without_entry();
        self.flows.into_flows().chain(without_entry.into_iter().map(|line| Ok(line.flow())))
    }

    /// Processes at the ends of flows.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.flows.iter().filter_map(|line| line.process.as_deref())
    }
}
