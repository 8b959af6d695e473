//! `--watch`: what really becomes of such packets, beside what was predicted.

use std::{ops::ControlFlow, time::Duration};

use anyhow::Result;

use super::{AskedPacket, answer::Answer, flow::direction};
use crate::{
    capture::tracing::RuleOptions,
    commands::trace::{Schedule, observation},
    live::{Output, Status},
    model::{
        Flow,
        filter::{AnyOf, Filter, Term},
        hook::Hook,
        path::{Outcome, SiteKind, Step, Traversal},
    },
    os::{descriptors, event_loop, signals::Signals},
    report::Report,
};

/// What was observed at a hook.
pub(super) struct ObservedHook {
    pub hook: Hook,
    /// Packets.
    pub packets: u64,
    /// They were dropped here.
    pub dropped: bool,
    /// Steps in order, and whether each was predicted.
    pub steps: Vec<(Step, bool)>,
}

impl ObservedHook {
    /// Whether everything was predicted.
    pub fn agrees(&self) -> bool {
        self.steps.iter().all(|(_, predicted)| *predicted)
    }
}

/// Traces for a time, and holds the packets that are like the one that was asked about against the answer.
pub(super) fn observe(
    asked: &AskedPacket,
    netns: Option<String>,
    time: Duration,
    answer: &Answer,
) -> Result<Vec<ObservedHook>> {
    descriptors::raise_limit();
    let signals = Signals::install(false)?;
    let Flows(flows) = event_loop::block_on(async {
        let mut schedule = Schedule::new(signals, Some(time), None);
        let rules = RuleOptions::default();
        let observer = schedule.start(observation(netns, filter(asked), false, rules)).await?;
        log::info!("observing for {}", humantime::format_duration(time));
        schedule.observe(observer, Flows(Vec::new())).await
    })?;
    let mut hooks = Vec::new();
    for flow in &flows {
        let Some(direction) = direction(asked, &flow.key.orig, flow.reply.as_ref()) else {
            continue;
        };
        let like = |path: &Traversal| path.direction == direction && path.state == asked.state;
        let paths = flow.paths.iter().filter(|(path, _)| like(path));
        hooks.extend(paths.map(|(path, packets)| observed(path, packets, answer)));
    }
    hooks.sort_by_key(|observed: &ObservedHook| order(observed.hook));
    Ok(hooks)
}

/// Flows of the packet's protocol that its source is an end of: the packet may be of either direction.
fn filter(asked: &AskedPacket) -> Filter {
    let proto = AnyOf(vec![Term { negated: false, value: asked.proto }]);
    let host = AnyOf(vec![Term { negated: false, value: asked.addresses[0].into() }]);
    Filter { proto, host, ..Filter::default() }
}

/// The order in which a packet meets hooks.
fn order(hook: Hook) -> usize {
    let all = [
        Hook::Ingress,
        Hook::Prerouting,
        Hook::Input,
        Hook::Forward,
        Hook::Output,
        Hook::Postrouting,
        Hook::Egress,
    ];
    all.iter().position(|other| *other == hook).unwrap_or(all.len())
}

fn observed(path: &Traversal, packets: u64, answer: &Answer) -> ObservedHook {
    let steps = path.steps.iter().map(|step| (step.clone(), is_predicted(step, path, answer)));
    ObservedHook {
        hook: path.hook,
        packets,
        dropped: path.outcome == Outcome::Dropped,
        steps: steps.collect(),
    }
}

/// Whether some path of the answer has a step at that hook. Of one of which only the base chain is known, the verdict
/// of the chain counts.
fn is_predicted(step: &Step, path: &Traversal, answer: &Answer) -> bool {
    let site = &step.site;
    answer.paths.iter().flat_map(|path| &path.steps).any(|predicted| {
        let other = &predicted.site;
        let same_table =
            (site.backend, site.family, &site.table) == (other.backend, other.family, &other.table);
        predicted.hook == path.hook
            && same_table
            && (site.kind == SiteKind::Chain
                || (&site.chain, site.kind, site.position)
                    == (&other.chain, other.kind, other.position))
            && step.verdict == predicted.verdict
    })
}

/// The flows of the one report.
struct Flows(Vec<Flow>);

impl Output for Flows {
    fn report(&mut self, report: Report, last: bool) -> Result<ControlFlow<()>> {
        if !last {
            return Ok(ControlFlow::Continue(()));
        }
        report.footer.warn();
        self.0 = report.flows;
        Ok(ControlFlow::Break(()))
    }

    fn status(&mut self, _: Status) {}
}
