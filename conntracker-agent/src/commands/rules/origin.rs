//! Where the rules that are looked at come from: the kernel, a recording, or a file of rules.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use crate::{
    commands::report::{Input, Source},
    firewall::{
        Ruleset,
        evaluate::{Firewall, routing_tables::RoutingTables},
        objects::KernelObjects,
        rules::Rules,
        scratch,
    },
    netlink::routing::objects::RoutingObjects,
    os::netns::Netns,
    recording::{End, Error, Item, Reader, statement},
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

fn is_recording(input: &Input) -> Result<bool> {
    let what = || format!("cannot read {}", input.name());
    let mut reader = Reader::new(input.open()?).with_context(what)?;
    Ok(!matches!(reader.next(End::Last), Err(Error::NotARecording(_))))
}

fn live(netns: Option<&str>) -> Result<Loaded> {
    let netns = match netns {
        Some(name) => Netns::named(name)?,
        None => Netns::current()?,
    };
    let mut ruleset = Ruleset::load(&netns)?;
    ruleset.objects = netns
        .enter(|| Ok(KernelObjects::read()))
        .with_context(|| format!("cannot enter network namespace `{}`", netns.name))?;
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
    let mut last: BTreeMap<u32, statement::Ruleset> = BTreeMap::new();
    let mut names: BTreeMap<u32, String> = BTreeMap::new();
    let mut file = String::new();
    for input in source.inputs()? {
        file = input.name();
        let what = || format!("cannot read {}", input.name());
        let mut reader = Reader::new(input.open()?).with_context(what)?;
        while let Some(item) = reader.next(End::Last).with_context(what)? {
            match item {
                Item::Ruleset(ruleset) => {
                    last.insert(ruleset.netns, ruleset);
                }
                Item::Header(header) => {
                    names.extend(header.namespaces.into_iter().map(|of| (of.id, of.name)));
                }
                _ => {}
            }
        }
    }
    let named = |id: &u32| names.get(id).map_or("-", String::as_str);
    let list = || last.keys().map(|id| named(id)).collect::<Vec<_>>().join(", ");
    let id = match (netns, last.len()) {
        (_, 0) => bail!("{file} has no ruleset: rules were not traced when it was made"),
        (Some(name), _) => {
            let found = last.keys().find(|id| named(id) == name).copied();
            found
                .with_context(|| format!("{file} has no namespace `{name}`; it has: {}", list()))?
        }
        (None, 1) => last.keys().next().copied().unwrap_or_default(),
        (None, _) => bail!("{file} has several namespaces, name one with --netns: {}", list()),
    };
    let statement::Ruleset { epoch, listings, objects, .. } = last.remove(&id).unwrap_or_default();
    if objects.is_empty() {
        bail!("{file} has only the text of rules: it was made by an older conntracker");
    }
    let mut ruleset =
        Ruleset::of_printed(&listings).context("the recorded listing of rules makes no sense")?;
    ruleset.objects = objects;
    let loaded = of_ruleset(format!("{file}, epoch {epoch}"), &ruleset)?;
    Ok(Loaded { recorded: Some(id), ..loaded })
}
