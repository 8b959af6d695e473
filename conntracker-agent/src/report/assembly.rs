//! From the flow table to a report: filter, folding, order.

use std::collections::{BTreeSet, HashMap};

use super::Report;
use crate::{
    flowtable::FlowSnapshot,
    model::{Flow, FlowKey, NetnsId, TimeOfDay, filter::Filter, order},
};

/// All that a report is made of. What takes long with many flows is left to [`Assembly::finish`].
pub(crate) struct Assembly {
    /// The report without its flows; namespaces have all interfaces that are known.
    pub report: Report,
    pub flows: FlowSnapshot,
    /// A flow is reported if all of them allow it.
    pub filters: Vec<Filter>,
    /// The flow table has them one by one, and the report folds them.
    pub fold: bool,
    pub time_of_day: TimeOfDay,
}

impl Assembly {
    /// Makes the report.
    pub fn finish(self) -> Report {
        let Self { mut report, flows, filters, fold: folds, time_of_day } = self;
        let names: HashMap<(NetnsId, u32), &str> = report
            .header
            .namespaces
            .iter()
            .flat_map(|netns| {
                netns.interfaces.iter().map(|one| ((netns.id, one.number), one.name.as_str()))
            })
            .collect();
        let name = |netns, number| Some((*names.get(&(netns, number))?).to_owned());
        let mut flows: Vec<Flow> = flows
            .into_flows()
            .filter(|flow| {
                let name = |number| name(flow.key.netns, number);
                filters.iter().all(|filter| filter.allows(flow, name))
            })
            .collect();
        if folds {
            flows = fold(flows);
        }
        report.flows = flows;
        order::sort(&mut report.flows);
        for flow in &mut report.flows {
            flow.by_time_of_day(time_of_day);
        }
        for namespace in &mut report.header.namespaces {
            let used = interfaces(report.flows.iter(), namespace.id);
            namespace.interfaces.retain(|interface| used.contains(&interface.number));
        }
        report
    }
}

/// Merges flows by their folded key. Those that were seen first come first, so that what only one
/// of them can say is said by the earliest.
pub fn fold(mut flows: Vec<Flow>) -> Vec<Flow> {
    flows.sort_by_key(|flow| flow.first_ns);
    let mut folded: HashMap<FlowKey, Flow> = HashMap::with_capacity(flows.len());
    for mut flow in flows {
        flow.key.orig = flow.key.orig.folded();
        match folded.get_mut(&flow.key) {
            Some(first) => first.merge(flow),
            None => {
                folded.insert(flow.key, flow);
            }
        }
    }
    folded.into_values().collect()
}
/// Numbers of the interfaces that the flows of a namespace refer to.
fn interfaces<'a>(flows: impl Iterator<Item = &'a Flow>, netns: NetnsId) -> BTreeSet<u32> {
    let mut all = BTreeSet::new();
    for flow in flows.filter(|flow| flow.key.netns == netns) {
        all.extend(flow.interfaces.iter().flat_map(|&(iif, oif)| [iif, oif]));
        for at in flow.drops.iter().flat_map(|drops| drops.at()) {
            all.extend([at.place.iif, at.place.oif]);
        }
    }
    all.remove(&0);
    all
}
