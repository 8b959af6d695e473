//! The flows of a moment, in as little memory as the table has them.

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

    /// Processes at the ends of flows.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.flows.iter().filter_map(|line| line.process.as_deref())
    }
}
