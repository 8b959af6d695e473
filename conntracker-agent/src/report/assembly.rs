//! From the flow table to a report: filter, folding, order.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    rc::Rc,
};

use anyhow::Result;

use super::{
    Namespace, Report,
    list::FlowList,
    sorter::{Order, Sorted, Sorter},
};
use crate::{
    flowtable::FlowSnapshot,
    model::{Flow, FlowKey, NetnsId, TimeOfDay, filter::Filter, order},
    os::scratch,
};

/// All that a report is made of. What takes long with many flows is left to [`Assembly::finish`] and
/// [`Assembly::sort`].
pub(crate) struct Assembly<F = FlowSnapshot> {
    /// The report without its flows; namespaces have all interfaces that are known.
    pub report: Report<()>,
    pub flows: F,
    /// A flow is reported if all of them allow it.
    pub filters: Vec<Filter>,
    /// The flow table has them one by one, and the report folds them.
    pub fold: bool,
    pub time_of_day: TimeOfDay,
}

impl Assembly<()> {
    /// The same, with flows.
    pub fn with_flows<F>(self, flows: F) -> Assembly<F> {
        let Self { report, flows: (), filters, fold, time_of_day } = self;
        Assembly { report, flows, filters, fold, time_of_day }
    }
}

impl Assembly {
    /// Makes the report, in memory.
    ///
    /// # Errors
    /// None: no file is used.
    pub fn finish(self) -> Result<Report> {
        let Self { report, flows, filters, fold, time_of_day } = self;
        let flows = flows.into_flows().map(Ok);
        let all = Assembly { report, flows, filters, fold, time_of_day }.sort(usize::MAX)?;
        all.in_memory()
    }
}

impl<I: Iterator<Item = io::Result<Flow>>> Assembly<I> {
    /// Makes the report, with so many flows in memory; more are sorted in temporary files.
    ///
    /// # Errors
    /// Those of the flows, and of the files.
    pub fn sort(self, in_memory: usize) -> Result<Report<Sorted>> {
        let Self { report, flows, filters, fold, time_of_day } = self;
        let names: HashMap<(NetnsId, u32), &str> = report
            .header
            .namespaces
            .iter()
            .flat_map(|netns| {
                netns.interfaces.iter().map(|one| ((netns.id, one.number), one.name.as_str()))
            })
            .collect();
        let name = |netns, number| Some((*names.get(&(netns, number))?).to_owned());
        let first_order: Order = if fold { Rc::new(folded_order) } else { in_order() };
        let mut sorter = Sorter::new(first_order, in_memory);
        for flow in flows {
            let mut flow = flow.map_err(|error| scratch::error(&error))?;
            let name = |number| name(flow.key.netns, number);
            if filters.iter().all(|filter| filter.allows(&flow, name)) {
                flow.by_time_of_day(time_of_day);
                sorter.push(flow)?;
            }
        }
        let mut flows = sorter.finish()?;
        if fold {
            flows = merge_sorted(flows, in_memory, folded)?;
        }
        let mut report = report.with_flows(flows);
        let used = interfaces(&report.flows)?;
        for Namespace { id, interfaces, .. } in &mut report.header.namespaces {
            let used = used.get(id);
            interfaces
                .retain(|interface| used.is_some_and(|used| used.contains(&interface.number)));
        }
        Ok(report)
    }
}

/// The order of a report.
pub(crate) fn in_order() -> Order {
    Rc::new(|a, b| order::compare(&a.key, &b.key))
}

fn folded(key: &FlowKey) -> FlowKey {
    FlowKey { orig: key.orig.folded(), ..*key }
}

/// Flows that fold into one stand side by side, those that were seen first come first: what only one of them can say is
/// said by the earliest.
fn folded_order(a: &Flow, b: &Flow) -> Ordering {
    let by_key = order::compare(&folded(&a.key), &folded(&b.key));
    by_key.then(a.first_ns.cmp(&b.first_ns)).then_with(|| order::compare(&a.key, &b.key))
}

/// Merges flows that stand side by side and have the same key.
struct Merging<K> {
    /// The key of a flow by its own.
    key: K,
    last: Option<Flow>,
}

impl<K: Fn(&FlowKey) -> FlowKey> Merging<K> {
    fn new(key: K) -> Self {
        Self { key, last: None }
    }

    /// Adds a flow, and returns the one before it that no more flows are merged into.
    fn add(&mut self, mut flow: Flow) -> Option<Flow> {
        flow.key = (self.key)(&flow.key);
        match &mut self.last {
            Some(last) if last.key == flow.key => {
                last.merge(flow);
                None
            }
            last => last.replace(flow),
        }
    }
}

/// Merges flows by their folded key.
pub fn fold(mut flows: Vec<Flow>) -> Vec<Flow> {
    flows.sort_by(folded_order);
    let mut merging = Merging::new(folded);
    let mut all: Vec<Flow> = flows.into_iter().filter_map(|flow| merging.add(flow)).collect();
    all.extend(merging.last);
    all
}

/// Merges sorted flows by the key that `key` makes of theirs, and which their order begins with.
///
/// # Errors
/// A temporary file fails.
pub(crate) fn merge_sorted(
    flows: Sorted,
    in_memory: usize,
    key: impl Fn(&FlowKey) -> FlowKey,
) -> Result<Sorted> {
    let mut merging = Merging::new(key);
    let mut sorter = Sorter::new(in_order(), in_memory);
    flows.drain(|flow| merging.add(flow).map_or(Ok(()), |flow| sorter.push(flow)))?;
    merging.last.map_or(Ok(()), |flow| sorter.push(flow))?;
    sorter.finish()
}

/// Numbers of the interfaces that the flows of each namespace refer to.
fn interfaces(flows: &Sorted) -> Result<BTreeMap<NetnsId, BTreeSet<u32>>> {
    let mut used: BTreeMap<NetnsId, BTreeSet<u32>> = BTreeMap::new();
    let mut add = |flow: &Flow| {
        let all = used.entry(flow.key.netns).or_default();
        all.extend(flow.interfaces.iter().flat_map(|&(iif, oif)| [iif, oif]));
        for at in flow.drops.iter().flat_map(|drops| drops.at()) {
            all.extend([at.place.iif, at.place.oif]);
        }
    };
    let each = flows.each(&mut |flows| {
        flows.iter().for_each(&mut add);
        Ok(())
    });
    each.map_err(|error| scratch::error(&error))?;
    // No interface.
    for of in used.values_mut() {
        of.remove(&0);
    }
    Ok(used)
}
