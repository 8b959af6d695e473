//! A ruleset that packets are evaluated against, with the text of its rules.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
};

use super::super::{
    diff::rule::{Met, sentence},
    explain::path::describe,
};
use crate::{
    firewall::{
        evaluate::{
            Evaluation, Firewall, Packet, Part, evaluate, evaluate_at,
            routing_tables::RoutingTables,
            state::{EvaluatedStep, StepVerdict},
        },
        model::Table,
        packets::Sample,
        rules::Rules,
    },
    model::{
        hook::Hook,
        path::{Provenance, Site, SiteKind, Step, Verdict},
    },
};

/// What rules are called, in all rulesets: equal numbers are the same rule with the same verdict, wherever it stands.
#[derive(Debug, Default)]
pub(super) struct RuleNames(RefCell<HashMap<Met, u32>>);

impl RuleNames {
    fn number(&self, met: Met) -> u32 {
        let mut all = self.0.borrow_mut();
        let next = all.len() as u32;
        *all.entry(met).or_insert(next)
    }
}

/// A step of a packet as a model has it.
#[derive(Clone, Debug)]
pub(super) struct Named {
    /// Number of the rule and its verdict.
    pub number: u32,
    pub site: Rc<Site>,
    pub verdict: Verdict,
    pub sentence: Rc<str>,
}

impl Named {
    /// A base chain that every packet leaves by its policy is no rule that decides.
    pub fn decides(&self) -> bool {
        !(self.site.kind == SiteKind::Policy && self.verdict == Verdict::Accept)
    }
}

type StepKey = (u32, usize, StepVerdict);

/// A ruleset.
pub(super) struct Model<'a> {
    pub firewall: Firewall,
    pub routes: Rc<RoutingTables>,
    /// The text of rules.
    listed: Vec<Table>,
    names: &'a RuleNames,
    steps: RefCell<HashMap<StepKey, Option<Named>>>,
    /// Packets that were evaluated.
    pub evaluated: Cell<u64>,
}

impl<'a> Model<'a> {
    /// Rules on a host with these routes.
    pub fn new(rules: Rules, routes: Rc<RoutingTables>, names: &'a RuleNames) -> Self {
        let firewall = rules.firewall();
        let (steps, evaluated) = (RefCell::default(), Cell::new(0));
        Self { firewall, routes, listed: rules.listed, names, steps, evaluated }
    }

    /// Takes a packet through the firewall.
    pub fn evaluate(&self, sample: &Sample) -> Evaluation {
        self.evaluated.set(self.evaluated.get() + 1);
        evaluate(&self.firewall, sample.packet.clone(), sample.origin, &*self.routes)
    }

    /// Takes a packet through one hook.
    pub fn evaluate_at(&self, at: (Hook, Part), packet: Packet) -> Evaluation {
        self.evaluated.set(self.evaluated.get() + 1);
        evaluate_at(&self.firewall, at, packet, &*self.routes)
    }

    /// A step with the text of its rule.
    pub fn named(&self, step: &EvaluatedStep) -> Option<Named> {
        let key = (step.chain, step.index, step.verdict);
        let mut steps = self.steps.borrow_mut();
        steps.entry(key).or_insert_with(|| self.name(step)).clone()
    }

    fn name(&self, step: &EvaluatedStep) -> Option<Named> {
        let mut site = self.firewall.site(step.chain, step.index)?;
        describe(&mut site, &self.listed);
        let verdict = self.firewall.verdict(step.verdict);
        let step =
            Step { site: site.into(), verdict, provenance: Provenance::Inferred, placed: true };
        let Step { site, verdict, .. } = &step;
        Some(Named {
            number: self.names.number(Met::of(&step)),
            site: Rc::new(Site::clone(site)),
            verdict: verdict.clone(),
            sentence: sentence(&step).into(),
        })
    }
}
