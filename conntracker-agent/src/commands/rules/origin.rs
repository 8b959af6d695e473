//! Where the rules that are looked at come from: the kernel, a recording, or a file of rules.

use anyhow::{Result, bail};

use crate::{
    commands::report::{Input, Source, is_recording, last_ruleset, with_objects},
    firewall::{
        Ruleset,
        evaluate::{Firewall, routing_tables::RoutingTables},
        program::Limits,
        rules::Rules,
        scratch,
    },
    netlink::routing::objects::RoutingObjects,
    os::netns::Netns,
};

/// Where rules come from.
pub enum Origin {
    /// A namespace now; `None`: our own.
    Live(Option<String>),
    /// A recording, or a file that nft or iptables-restore loads.
    File {
        /// The file, and which flows of a recording.
        source: Box<Source>,
        /// The namespace of a recording; `None`: its only one.
        netns: Option<String>,
    },
}

/// Rules with what their evaluation needs.
pub(super) struct Loaded {
    /// What messages and answers call them.
    pub name: String,
    pub rules: Rules,
    pub firewall: Firewall,
    pub routes: RoutingTables,
    /// What the reader of an answer must know.
    pub notes: Vec<String>,
    /// The namespace by its number in the recording, if it is one.
    pub recorded: Option<u32>,
}

impl Origin {
    /// Whether it is a recording.
    pub(super) fn is_recording(&self) -> Result<bool> {
        let Self::File { source, .. } = self else { return Ok(false) };
        match source.inputs()?.first() {
            Some(first) => is_recording(first),
            None => Ok(false),
        }
    }

    /// Reads the rules.
    ///
    /// # Errors
    /// They cannot be read, or not all of them.
    pub(super) fn load(&self) -> Result<Loaded> {
        match self {
            Self::Live(netns) => live(netns.as_deref()),
            Self::File { source, netns } if self.is_recording()? => {
                recording(source, netns.as_deref())
            }
            Self::File { source, .. } => {
                let compiled = scratch::compile(&source.files, None)?;
                let objects = RoutingObjects::decode(&compiled.routing)?;
                let names: Vec<_> =
                    source.files.iter().map(|file| file.display().to_string()).collect();
                Ok(Loaded {
                    name: names.join(", "),
                    firewall: compiled.rules.firewall(),
                    rules: compiled.rules,
                    routes: RoutingTables::new(objects),
                    notes: compiled.notes,
                    recorded: None,
                })
            }
        }
    }
}

fn live(netns: Option<&str>) -> Result<Loaded> {
    let netns = match netns {
        Some(name) => Netns::named(name)?,
        None => Netns::current()?,
    };
    let ruleset = Ruleset::load_within(&netns, &Limits::default().keeping())?;
    of_ruleset(format!("namespace {}", netns.name), &ruleset)
}

fn of_ruleset(name: String, ruleset: &Ruleset) -> Result<Loaded> {
    if let Some(missing) = ruleset.objects.missing.first() {
        bail!("{missing}: without that nothing can be said about the rules of {name}");
    }
    let rules = Rules::of(ruleset)?;
    Ok(Loaded {
        name,
        firewall: rules.firewall(),
        rules,
        routes: ruleset.objects.routes()?,
        notes: ruleset.all_notes().cloned().collect(),
        recorded: None,
    })
}

/// The last ruleset of a namespace in a recording.
///
/// # Errors
/// It is no recording, or has no such namespace.
pub(super) fn recording(source: &Source, netns: Option<&str>) -> Result<Loaded> {
    let inputs = source.inputs()?;
    let stated = last_ruleset(&inputs, netns, u64::MAX)?;
    let (epoch, id) = (stated.epoch, stated.netns);
    let file = inputs.last().map(Input::name).unwrap_or_default();
    let loaded = of_ruleset(format!("{file}, epoch {epoch}"), &with_objects(stated)?)?;
    Ok(Loaded { recorded: Some(id), ..loaded })
}
