//! `conntracker report --against`: which recorded flows would change under other rules, before anybody loads them.

mod check;
mod compare;
mod groups;
mod json;
mod live;
mod model;
mod outlook;
mod predict;
mod rulesets;
mod text;

use std::{cell::RefCell, collections::HashMap, io::Write, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};

pub use self::live::run_after;
use self::{
    check::{Checker, SelfCheck},
    groups::Groups,
    model::RuleNames,
    predict::{Classes, Question},
    rulesets::{Against, Epochs, Sides},
};
use super::{
    diff::flow_name::FlowName,
    report::{Source, When, end_of},
};
use crate::{
    firewall::{
        evaluate::{interface::Interface, routing_tables::RoutingTables},
        packets::Recorded,
    },
    model::{Flow, NetnsId, path::Traversal},
    os::{messages, output::Destination},
    report::{FlowList, Header, Name, Names, time},
};

/// Exit status if something differs, or no prediction is made; and if nothing does for certain, but may.
const DIFFERENT: u8 = 1;
const UNDECIDED: u8 = 4;

/// Finds the interfaces of a recording's flows in a namespace by their numbers.
pub(super) fn interfaces(
    names: &Names<'_>,
    routes: &RoutingTables,
    netns: NetnsId,
) -> impl Fn(u32) -> Option<Interface> {
    move |number| match names.interface(netns, number)? {
        Name::Known(name) => {
            let known = routes.interface(&name).cloned();
            Some(known.unwrap_or_else(|| Interface::named(&name)))
        }
        Name::Number(_) => None,
    }
}

/// What a prediction looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Lines.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// What `conntracker report --against` is to do.
pub struct WhatIf {
    /// What is read, and which flows of it.
    pub source: Source,
    /// The time that is asked for.
    pub from: Option<When>,
    /// See `from`.
    pub to: Option<When>,
    /// Files of rules, or another recording, whose last rules count.
    pub against: Vec<PathBuf>,
    /// Asked is about flows that exist when the rules are loaded, not about those that begin then.
    pub established: bool,
    /// Where the prediction goes.
    pub destination: Destination,
    /// What it looks like.
    pub format: Format,
}

/// What came of it.
struct Answer {
    recording: String,
    against: String,
    question: Question,
    notes: Vec<String>,
    check: SelfCheck,
    groups: Groups,
    /// Flows that are not asked about, or of whose packets too little is recorded.
    left_out: u64,
    /// Kinds of flows that the rules tell apart, and packets that were evaluated.
    classes: u64,
    evaluated: u64,
}

/// Writes the prediction.
///
/// # Errors
/// A recording or a file of rules cannot be read; the prediction cannot be written.
pub fn run(what_if: &WhatIf) -> Result<ExitCode> {
    messages::to_stderr();
    what_if.destination.check()?;
    let inputs = what_if.source.inputs()?;
    let end_ns = end_of(&inputs);
    let from = what_if.from.map_or(0, |from| from.of(end_ns));
    let to = what_if.to.map_or(u64::MAX, |to| to.of(end_ns));
    if from > to {
        bail!("`--from` is later than `--to`");
    }
    let against = Against::read(&what_if.against)?;
    let (report, epochs) = what_if.source.with_epochs(&inputs, from..=to)?;
    if epochs.iter().next().is_none() {
        bail!("the recording has no ruleset: rules were not traced");
    }
    let names = RuleNames::default();
    let question = if what_if.established { Question::Established } else { Question::New };
    let mut asked = Asked {
        header: &report.header,
        names: Names::new(&report.header),
        against,
        rulesets: &epochs,
        epochs: Epochs::new(&epochs, &names),
        rule_names: &names,
        sides: HashMap::new(),
        question,
        checker: Checker::default(),
        classes: Classes::default(),
        groups: Groups::default(),
        left_out: 0,
    };
    // A fault stops the evaluation, and the list takes faults of files alone.
    let failed = RefCell::new(None);
    report
        .flows
        .each(&mut |flows| {
            for flow in flows {
                if let Err(error) = asked.flow(flow) {
                    failed.replace(Some(error));
                    return Err(std::io::Error::other("stopped"));
                }
            }
            Ok(())
        })
        .or_else(|error| match failed.take() {
            Some(error) => Err(error),
            None => Err(error).context("cannot read the flows"),
        })?;
    let answer = asked.answer(&what_if.against);
    what_if.destination.write(|out: &mut dyn Write| match what_if.format {
        Format::Text => text::render(&answer, out),
        Format::Json => json::render(&answer, out),
    })?;
    Ok(match &answer {
        Answer { check, .. } if !check.passes() => ExitCode::from(DIFFERENT),
        Answer { groups, .. } if groups.changed > 0 => ExitCode::from(DIFFERENT),
        Answer { groups, .. } if groups.open > 0 => ExitCode::from(UNDECIDED),
        _ => ExitCode::SUCCESS,
    })
}

/// A recording that is asked about.
struct Asked<'a> {
    header: &'a Header,
    names: Names<'a>,
    against: Against,
    rulesets: &'a super::report::EpochRulesets,
    epochs: Epochs<'a>,
    rule_names: &'a RuleNames,
    sides: HashMap<NetnsId, Option<Sides<'a>>>,
    question: Question,
    checker: Checker,
    classes: Classes,
    groups: Groups,
    left_out: u64,
}

impl Asked<'_> {
    /// Checks the paths of a flow, and predicts what becomes of it.
    fn flow(&mut self, flow: &Flow) -> Result<()> {
        let netns = flow.key.netns;
        if !self.sides.contains_key(&netns) {
            let name = self.names.netns(netns).to_string();
            let sides = self.against.sides(self.rulesets, netns, &name, self.rule_names)?;
            self.sides.insert(netns, sides);
        }
        let Some(Some(sides)) = self.sides.get(&netns) else {
            self.left_out += flow.merged().max(1);
            return Ok(());
        };
        let names = &self.names;
        let routes = &sides.old.routes;
        let recorded = Recorded::new(flow, self.header.folded, interfaces(names, routes, netns));
        let name = || FlowName::of(&flow.key, flow.key.orig, names);
        let paths: Vec<&Traversal> = flow.paths.iter().map(|(path, _)| path).collect();
        for path in paths {
            let model = self.epochs.model(netns, path.epoch)?;
            self.checker.check(&recorded, path, model, netns.0, &|| name().to_string());
        }
        match self.classes.predict(flow, &recorded, sides, self.question) {
            Some(prediction) => self.groups.add(flow, name, &prediction),
            None => self.left_out += flow.merged().max(1),
        }
        Ok(())
    }

    fn answer(self, against: &[PathBuf]) -> Answer {
        let header = self.header;
        let mut notes = header.notes.clone();
        let sides = || self.sides.values().flatten();
        for note in sides().flat_map(|sides| &sides.notes) {
            if !notes.contains(note) {
                notes.push(note.clone());
            }
        }
        if header.folded {
            notes.push(
                "flows are folded: source ports above 1023 are not known where rules read them (--no-fold)".to_owned(),
            );
        }
        let files: Vec<String> = against.iter().map(|file| file.display().to_string()).collect();
        Answer {
            recording: format!(
                "{}, {} to {}",
                header.host,
                time(header.start_ns),
                time(header.end_ns)
            ),
            against: files.join(", "),
            question: self.question,
            notes,
            check: self.checker.found,
            groups: self.groups,
            left_out: self.left_out,
            classes: self.classes.count(),
            evaluated: sides().map(|of| of.old.evaluated.get() + of.new.evaluated.get()).sum(),
        }
    }
}
