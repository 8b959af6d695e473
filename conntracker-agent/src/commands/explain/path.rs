//! The steps of a packet with what a reader wants to know of them.

use crate::{
    firewall::{
        evaluate::{Firewall, Packet, journey::Ending, state::Fate, unknown::UnknownSet},
        model::{ChainItem, Table},
    },
    model::{
        hook::Hook,
        path::{Site, Verdict},
    },
};

/// One possible path.
pub(super) struct Path {
    pub fate: Fate,
    pub steps: Vec<ExplainedStep>,
    /// The packet at its end.
    pub packet: Packet,
    pub why: UnknownSet,
}

/// A step.
pub(super) struct ExplainedStep {
    pub hook: Hook,
    pub site: Site,
    pub verdict: Verdict,
    /// How many chains called each other until here.
    pub depth: usize,
    /// The unknown that decides whether the packet takes it.
    pub why: UnknownSet,
}

/// A path, with the text of its rules from a listing.
pub(super) fn path(ending: &Ending, firewall: &Firewall, listed: &[Table]) -> Path {
    let mut calls: Vec<u32> = Vec::new();
    let mut hook = None;
    let mut steps = Vec::new();
    for step in &ending.steps {
        let Some(mut site) = firewall.site(step.chain, step.index) else { continue };
        describe(&mut site, listed);
        if hook.replace(step.hook) != Some(step.hook) || firewall.is_base(step.chain) {
            calls.clear();
        }
        match calls.iter().position(|chain| *chain == step.chain) {
            Some(at) => calls.truncate(at + 1),
            None => calls.push(step.chain),
        }
        let (verdict, depth) = (firewall.verdict(step.verdict), calls.len() - 1);
        steps.push(ExplainedStep { hook: step.hook, site, verdict, depth, why: step.why });
    }
    Path { fate: ending.fate, steps, packet: ending.packet.clone(), why: ending.why }
}

/// Adds what only the listing has, if it has the same rule.
pub(in crate::commands) fn describe(site: &mut Site, listed: &[Table]) {
    let same = |table: &&Table| {
        table.backend == site.backend && table.family == site.family && table.name == site.table
    };
    let Some(table) = listed.iter().find(same) else { return };
    site.iptables = table.iptables;
    let position = site.position.unwrap_or_default();
    if let Some(ChainItem::Rule(rule)) =
        table.chain(&site.chain).and_then(|chain| chain.at(position))
        && (rule.handle.is_none() || rule.handle == site.handle)
    {
        site.text = Some(rule.text.clone());
    }
}
