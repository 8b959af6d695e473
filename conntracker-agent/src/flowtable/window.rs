//! A report of a part of the time: what was seen before tells which flows there are, and counts nothing.

use super::{FlowTable, line::Line};
use crate::model::flow::Counting;

impl Line {
    /// Whether something was seen since [`FlowTable::begin_anew`].
    pub(super) fn is_listed(&self) -> bool {
        self.last_ns > 0 || self.first_ns == 0
    }

    fn begin_anew(&mut self) {
        let flows = self.flows.life().map_or_else(Counting::default, Counting::resumed);
        (self.last_ns, self.flows, self.ended, self.unconfirmed) = (0, flows, 0, 0);
        (self.drops, self.paths) = (None, None);
        self.no_counters();
    }
}

impl FlowTable {
    /// From now on counts begin at 0, and flows of which nothing more is seen are not listed.
    pub fn begin_anew(&mut self) {
        self.settle_waiting();
        self.waiting.clear();
        self.others = <_>::default();
        (self.drops_counted, self.lost_counted, self.counted_by_kernel) = (0, 0, 0);
        self.new_flows = 0;
        (self.flows_evicted, self.entries_forgotten, self.drop_paths_forgotten) = (0, 0, 0);
        self.flows.change_all(Line::begin_anew);
    }
}
