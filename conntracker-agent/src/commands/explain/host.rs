//! The host that a question is about: its rules and routes, of now or of a recording.

use anyhow::{Context, Result, bail};

use super::HostSource;
use crate::{
    commands::report::{end_of, last_ruleset, with_objects},
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
        HostSource::Recording { source, at, netns } => {
            let inputs = source.inputs()?;
            let until = at.map_or(u64::MAX, |at| at.of(end_of(&inputs)));
            with_objects(last_ruleset(&inputs, netns.as_deref(), until)?).map(Some)
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
