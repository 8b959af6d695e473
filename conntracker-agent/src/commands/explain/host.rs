//! The host that a question is about: its rules and routes, of now or of a recording.

use anyhow::{Context, Result, bail};

use super::HostSource;
use crate::{
    commands::report::{Stated, end_of, stated_rulesets},
    firewall::{Ruleset, objects::KernelObjects, program::Limits},
    os::netns::Netns,
};

/// The rules of the host, as the kernel has them and as programs list them, and its routes; `None` if there is none.
pub(super) fn load(source: &HostSource) -> Result<Option<Ruleset>> {
    match source {
        HostSource::Live { netns } => live(&match netns {
            Some(name) => Netns::named(name)?,
            None => Netns::current()?,
        })
        .map(Some),
        HostSource::Recording { source, at } => {
            let inputs = source.inputs()?;
            let before = at.map_or(u64::MAX, |at| at.of(end_of(&inputs)));
            recorded(stated_rulesets(&inputs)?, before).map(Some)
        }
        HostSource::None => Ok(None),
    }
}

/// What a namespace has now. Only the text of rules may be missing.
fn live(netns: &Netns) -> Result<Ruleset> {
    let ruleset = match Ruleset::load_within(netns, &Limits::default().keeping()) {
        Ok(ruleset) => ruleset,
        Err(error) => {
            log::warn!("rules have no text: {error:#}");
            let objects = netns.enter(|| Ok(KernelObjects::read()));
            let objects = objects
                .with_context(|| format!("cannot enter network namespace `{}`", netns.name))?;
            Ruleset { objects, ..Ruleset::default() }
        }
    };
    if let Some(missing) = ruleset.objects.missing.first() {
        bail!("{missing}: without that nothing can be said about packets");
    }
    Ok(ruleset)
}

/// The last ruleset that began before a time (nanoseconds since the epoch).
fn recorded(stated: Vec<Stated>, before: u64) -> Result<Ruleset> {
    let first = stated.first().map(|first| first.ruleset.netns);
    let mut stated = stated.into_iter().filter(|of| Some(of.ruleset.netns) == first);
    let found = stated.rfind(|of| of.at_ns <= before).context(
        "the recording has no ruleset of that time: it was made without rules, or begins later",
    )?;
    let Stated { ruleset, .. } = found;
    if ruleset.objects.is_empty() {
        bail!(
            "the recording has the text of rules alone, as versions before 0.2 recorded it: nothing can be said about \
             packets"
        );
    }
    let text =
        Ruleset::of_printed(&ruleset.listings).context("the recorded rules make no sense")?;
    Ok(Ruleset { printed: ruleset.listings, objects: ruleset.objects, ..text })
}
