//! Programs loaded and attached, as far as the kernel takes them.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use conntracker_common::{plan::MAX_NAMESPACES, seen::REPORT_EACH};
use tokio::sync::mpsc;

use super::{FlowOptions, PacketBackend, cookie};
use crate::{
    bpf::{
        links::Links,
        object::{Programs, Seeing},
        points::{Choice, Points},
        probes::{self, Probes},
        reasons::Reasons,
    },
    capture::{
        Hurry,
        kernel::Kernel,
        statistics,
        tracing::{Listed, RuleOptions, RuleProbes, RuleTracer},
    },
    os::netns::Netns,
};

/// The kernel side: programs loaded and attached, and what traces rules with them.
pub(super) struct Attached {
    pub programs: Programs,
    pub links: Vec<Links>,
    pub probes: Option<Probes>,
    pub rules: Option<RuleTracer>,
    /// Why ends of flows are not seen; `None` if they are.
    pub without_ends: Option<String>,
    /// Why new flows are seen without their hook; `None` if they are seen with it.
    pub without_hooks: Option<String>,
}

impl Attached {
    /// Loads, sets the mode for the time of the first dump, attaches.
    pub async fn new(
        kernel: &Kernel,
        eyes: PacketBackend,
        FlowOptions { sizes, fold, lost: _ }: FlowOptions,
        lost: Option<&Reasons>,
        namespaces: &[Arc<Netns>],
        rules: Option<RulesWanted<'_>>,
    ) -> Result<Self> {
        let Kernel { btf, layout, points, .. } = kernel;
        let seeing = match eyes {
            PacketBackend::Links => Seeing::Links,
            PacketBackend::Probes(method) => probes::seeing(btf, points, method)?,
        };
        let drops = kernel.drops()?;
        let mut programs = Programs::load(layout, drops, lost, sizes, rules.is_some(), seeing)?;
        programs.report(REPORT_EACH, fold)?;
        for (number, netns) in (0..).zip(namespaces) {
            let stats = statistics::of(netns);
            programs.trace_netns(cookie(netns)?, MAX_NAMESPACES.min(number), &stats)?;
        }
        programs.attach_drops()?;
        let without_ends;
        let without_hooks = match eyes {
            PacketBackend::Links => None,
            PacketBackend::Probes(_) => hookless(points),
        };
        let (links, probes, rule_probes) = match eyes {
            PacketBackend::Links => {
                without_ends = Some("links do not see them".to_owned());
                let program = programs.flow_end().context("the program for links is not loaded")?;
                let links = namespaces.iter().map(|netns| Links::attach(program, netns));
                (links.collect::<Result<_>>()?, None, None)
            }
            PacketBackend::Probes(method) => {
                let mut flows = Probes::new(method);
                for point in points.confirm.clone()?.points {
                    flows.attach(&programs, &point, probes::CONFIRM)?;
                }
                without_ends =
                    see_ends(kernel, &programs, &mut flows).err().map(|error| format!("{error:#}"));
                if rules.is_some() {
                    for point in points.hook.clone()?.points {
                        flows.attach(&programs, &point, probes::HOOK)?;
                    }
                }
                let rules = RuleProbes::new(kernel, method, seeing);
                (Vec::new(), Some(flows), Some(rules))
            }
        };
        let rules = match rules {
            Some(RulesWanted { options, sender, listed, hurry }) => {
                let mut tracer =
                    RuleTracer::new(layout, kernel.symbols()?, options, rule_probes, sender);
                tracer.start(&mut programs, namespaces, listed, hurry).await?;
                Some(tracer)
            }
            None => None,
        };
        Ok(Self { programs, links, probes, rules, without_ends, without_hooks })
    }
}

/// Why new flows are seen without the hook that they come to; `None` if they are seen with it.
fn hookless(points: &Points) -> Option<String> {
    let Choice { points, passed_over } = points.confirm.as_ref().ok()?;
    let without = points.iter().find(|point| point.args.len() < 2)?;
    Some(format!(
        "`{}` is called without the state of the hook; {}",
        without.function,
        passed_over.join("; ")
    ))
}

/// Attaches what sees the ends of flows.
fn see_ends(kernel: &Kernel, programs: &Programs, flows: &mut Probes) -> Result<()> {
    let Kernel { layout, points, .. } = kernel;
    layout.ends.as_ref().map_err(|missing| anyhow!("{missing}"))?;
    for (choice, hookups) in [(&points.delete, probes::DELETE), (&points.destroy, probes::DESTROY)]
    {
        for point in choice.clone()?.points {
            flows.attach(programs, &point, hookups)?;
        }
    }
    Ok(())
}

/// What tracing rules needs besides the programs.
pub(super) struct RulesWanted<'a> {
    pub options: RuleOptions,
    pub sender: mpsc::UnboundedSender<Listed>,
    /// Where rulesets come that were listed.
    pub listed: &'a mut mpsc::UnboundedReceiver<Listed>,
    pub hurry: &'a Hurry,
}
