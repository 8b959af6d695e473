//! Several runs in one report: those of one host in the same namespaces, those of several hosts beside each other.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;

use super::{Run, epochs::EpochRulesets};
use crate::{
    firewall::Ruleset,
    model::NetnsId,
    report::{
        Footer, Header, Interface, Namespace, Report,
        assembly::{in_order, merge_sorted},
        html::Background,
        sorter::{Sorted, Sorter},
        timeline::Timeline,
    },
};

/// One report of all runs; an empty one if there is none.
///
/// # Errors
/// A temporary file fails.
pub(super) fn combine(mut runs: Vec<Run>, in_memory: usize) -> Result<Run> {
    if runs.len() == 1
        && let Some(run) = runs.pop()
    {
        return Ok(run);
    }
    let mut all = Combined { many_hosts: hosts(&runs).len() > 1, ..Combined::default() };
    // Flows with the same key stand side by side, those of earlier runs first.
    let mut sorter = Sorter::new(in_order(), in_memory);
    let header = all.header(&runs);
    let (mut footer, mut untold) = (Footer::default(), Vec::new());
    for Run { report, background, epochs: _ } in runs {
        let ids = all.add(report.header, report.flows, &mut sorter)?;
        all.add_background(background, |id| ids.get(&id).copied().unwrap_or(id));
        add_footer(&mut footer, report.footer);
        for why in report.untold {
            if !untold.contains(&why) {
                untold.push(why);
            }
        }
    }
    let Combined { namespaces, timeline, rulesets, .. } = all;
    let flows = merge_sorted(sorter.finish()?, in_memory, |key| *key)?;
    let coverage = Err("several runs have no coverage".to_owned());
    Ok(Run {
        report: Report { header: Header { namespaces, ..header }, flows, footer, coverage, untold },
        background: Background { timeline, rulesets: rulesets.into_iter().collect() },
        // Their numbers are those of one run.
        epochs: EpochRulesets::default(),
    })
}

#[derive(Default)]
struct Combined {
    many_hosts: bool,
    namespaces: Vec<Namespace>,
    /// By host and name.
    ids: HashMap<(String, String), NetnsId>,
    /// Numbers of interfaces, by namespace, index and name.
    interfaces: HashMap<(NetnsId, u32, String), u32>,
    timeline: Option<Timeline>,
    rulesets: BTreeMap<NetnsId, Ruleset>,
}

fn hosts(runs: &[Run]) -> Vec<&str> {
    let mut hosts: Vec<&str> = Vec::new();
    for Run { report, .. } in runs {
        if !hosts.contains(&report.header.host.as_str()) {
            hosts.push(&report.header.host);
        }
    }
    hosts
}

/// Different values, each once.
fn joined<'a>(values: impl Iterator<Item = &'a str>) -> String {
    let mut all: Vec<&str> = Vec::new();
    for value in values {
        if !all.contains(&value) {
            all.push(value);
        }
    }
    all.join(", ")
}

impl Combined {
    fn header(&self, runs: &[Run]) -> Header {
        let headers = || runs.iter().map(|run| &run.report.header);
        let mut filters = Vec::new();
        let mut notes = Vec::new();
        for header in headers() {
            for filter in &header.filters {
                if !filters.contains(filter) {
                    filters.push(filter.clone());
                }
            }
            for note in &header.notes {
                let note =
                    if self.many_hosts { format!("{}: {note}", header.host) } else { note.clone() };
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
        }
        Header {
            version: crate::live::assemble::VERSION,
            host: joined(headers().map(|header| header.host.as_str())),
            kernel: joined(headers().map(|header| header.kernel.as_str())),
            backend: joined(headers().map(|header| header.backend.as_str())),
            backend_reason: match runs.len() {
                0 => "nothing is recorded".to_owned(),
                n => format!("{n} runs"),
            },
            namespaces: Vec::new(),
            start_ns: headers().map(|header| header.start_ns).min().unwrap_or(0),
            end_ns: headers().map(|header| header.end_ns).max().unwrap_or(0),
            filters,
            folded: headers().any(|header| header.folded),
            epochs: headers().filter_map(|header| header.epochs).reduce(|a, b| a + b),
            notes,
        }
    }

    /// Adds the flows of a run, and returns which namespaces of its own are which of all.
    fn add(
        &mut self,
        header: Header,
        flows: Sorted,
        sorter: &mut Sorter,
    ) -> Result<BTreeMap<NetnsId, NetnsId>> {
        let mut ids = BTreeMap::new();
        let mut numbers = HashMap::new();
        for Namespace { id, name, interfaces, untraced } in header.namespaces {
            let new = self.namespace(&header.host, &name);
            ids.insert(id, new);
            for Interface { number, index, name } in interfaces {
                numbers.insert((id, number), self.interface(new, index, name));
            }
            let namespace = &mut self.namespaces[new.0 as usize];
            for chain in untraced {
                if !namespace.untraced.contains(&chain) {
                    namespace.untraced.push(chain);
                }
            }
        }
        flows.drain(|mut flow| {
            let id = flow.key.netns;
            // An interface whose name is not known keeps its number.
            let number = |of: u32| numbers.get(&(id, of)).copied().unwrap_or(of);
            flow.interfaces = flow.interfaces.map(|(iif, oif)| (number(iif), number(oif)));
            if let Some(drops) = &mut flow.drops {
                drops.renumber(number);
            }
            flow.key.netns = ids.get(&id).copied().unwrap_or(id);
            sorter.push(flow)
        })?;
        Ok(ids)
    }

    fn add_background(&mut self, background: Background, id: impl Fn(NetnsId) -> NetnsId) {
        let Background { timeline, rulesets } = background;
        if let Some(timeline) = timeline {
            self.timeline.get_or_insert_default().merge(&timeline, &id);
        }
        // Of a namespace that several runs have seen, the ruleset of the last one.
        self.rulesets.extend(rulesets.into_iter().map(|(of, ruleset)| (id(of), ruleset)));
    }

    fn namespace(&mut self, host: &str, name: &str) -> NetnsId {
        let next = NetnsId(self.namespaces.len() as u32);
        let id = *self.ids.entry((host.to_owned(), name.to_owned())).or_insert(next);
        if id == next {
            let name = if self.many_hosts { format!("{host}/{name}") } else { name.to_owned() };
            self.namespaces.push(Namespace {
                id,
                name,
                interfaces: Vec::new(),
                untraced: Vec::new(),
            });
        }
        id
    }

    fn interface(&mut self, netns: NetnsId, index: u32, name: String) -> u32 {
        let interfaces = &mut self.namespaces[netns.0 as usize].interfaces;
        let next = interfaces.len() as u32 + 1;
        *self.interfaces.entry((netns, index, name.clone())).or_insert_with(|| {
            interfaces.push(Interface { number: next, index, name });
            next
        })
    }
}

fn add_footer(sum: &mut Footer, footer: Footer) {
    for (name, count) in footer.sources {
        match sum.sources.iter_mut().find(|(of, _)| *of == name) {
            Some((_, known)) => *known += count,
            None => sum.sources.push((name, count)),
        }
    }
    for loss in footer.losses {
        match sum.losses.iter_mut().find(|of| of.loss == loss.loss) {
            Some(known) => known.count += loss.count,
            None => sum.losses.push(loss),
        }
    }
    for (proto, sums) in footer.others.by_protocol() {
        *sum.others.of(proto) += sums;
    }
}
