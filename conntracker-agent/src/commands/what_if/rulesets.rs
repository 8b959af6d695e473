//! The rulesets that are compared: those of the recording, and the one that is asked about.

use std::{collections::HashMap, path::PathBuf, rc::Rc};

use anyhow::{Result, bail};

use super::model::{Model, RuleNames};
use crate::{
    commands::report::{EpochRulesets, Input, is_recording, last_rulesets, with_objects},
    firewall::{
        Ruleset,
        evaluate::{Classes, routing_tables::RoutingTables},
        rules::Rules,
        scratch,
    },
    model::NetnsId,
    recording::statement,
};

/// Models of the epochs of a recording, each made when it is needed.
pub(super) struct Epochs<'a> {
    rulesets: &'a EpochRulesets,
    names: &'a RuleNames,
    models: HashMap<(NetnsId, u32), Option<Model<'a>>>,
}

impl<'a> Epochs<'a> {
    pub fn new(rulesets: &'a EpochRulesets, names: &'a RuleNames) -> Self {
        Self { rulesets, names, models: HashMap::new() }
    }

    /// That of an epoch; `None` if it is not kept.
    pub fn model(&mut self, netns: NetnsId, epoch: u32) -> Result<Option<&Model<'a>>> {
        if !self.models.contains_key(&(netns, epoch)) {
            let model = match self.rulesets.of(netns, epoch) {
                Some(of) => Some(model(&with_objects(of.clone())?, self.names)?),
                None => None,
            };
            self.models.insert((netns, epoch), model);
        }
        Ok(self.models.get(&(netns, epoch)).and_then(Option::as_ref))
    }
}

fn model<'a>(ruleset: &Ruleset, names: &'a RuleNames) -> Result<Model<'a>> {
    let routes = Rc::new(ruleset.objects.routes()?);
    Ok(Model::new(Rules::of(ruleset)?, routes, names))
}

/// The last ruleset of a namespace, and the one that is asked about.
pub(super) struct Sides<'a> {
    pub old: Model<'a>,
    /// Its epoch.
    pub epoch: u32,
    pub new: Model<'a>,
    /// Which packets both, and the routes, tell apart.
    pub classes: Classes,
    pub notes: Vec<String>,
}

/// What a recording is compared with.
pub(super) enum Against {
    /// Files that nft or iptables-restore would load.
    Files(Vec<PathBuf>),
    /// The last ruleset of each namespace of another recording, by the name of the namespace.
    Recorded(Vec<(String, statement::Ruleset)>),
}

impl Against {
    /// Reads what is named: recordings begin as such.
    pub fn read(files: &[PathBuf]) -> Result<Self> {
        let [file] = files else { return Ok(Self::Files(files.to_vec())) };
        let inputs = Input::of(file)?;
        if !inputs.first().map_or(Ok(false), is_recording)? {
            return Ok(Self::Files(files.to_vec()));
        }
        let last = last_rulesets(&inputs, u64::MAX)?;
        if last.is_empty() {
            bail!("{} has no ruleset", file.display());
        }
        Ok(Self::Recorded(last.into_values().collect()))
    }

    /// Both sides of a namespace of a recording; `None` if the recording has no ruleset of it.
    pub fn sides<'a>(
        &self,
        recorded: &EpochRulesets,
        netns: NetnsId,
        name: &str,
        names: &'a RuleNames,
    ) -> Result<Option<Sides<'a>>> {
        let Some(last) = recorded.last(netns) else { return Ok(None) };
        let today = with_objects(last.clone())?;
        let routes: Rc<RoutingTables> = Rc::new(today.objects.routes()?);
        let old = Model::new(Rules::of(&today)?, Rc::clone(&routes), names);
        let (rules, notes) = match self {
            Self::Files(files) => {
                let compiled = scratch::compile(files, Some(&today))?;
                (compiled.rules, compiled.notes)
            }
            Self::Recorded(all) => {
                let same = all.iter().find(|(of, _)| of == name);
                let Some((_, ruleset)) = same.or_else(|| all.first().filter(|_| all.len() == 1))
                else {
                    bail!("the other recording has no namespace `{name}`");
                };
                (Rules::of(&with_objects(ruleset.clone())?)?, Vec::new())
            }
        };
        let new = Model::new(rules, routes, names);
        let classes = Classes::of(&[&old.firewall, &new.firewall], &old.routes);
        Ok(Some(Sides { old, epoch: last.epoch, new, classes, notes }))
    }
}
