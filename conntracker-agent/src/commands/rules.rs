//! `conntracker rules`: the ruleset, with the names and positions that traces use.

pub mod difference;
pub mod hits;
mod json;
mod listed;
pub mod order;
mod origin;
mod packet;
mod select;
pub mod shadowed;
pub mod suggest;
mod text;
pub mod unused;
mod watch;

use std::process::ExitCode;

use anyhow::{Result, bail};

use self::select::{Selected, select};
pub use self::{
    origin::Origin,
    watch::{Watch, watch},
};
use crate::{
    firewall::Ruleset,
    os::{messages, netns::Netns, output::Destination},
};

/// What to show.
#[derive(Clone, Debug)]
pub struct Show {
    /// Namespace; `None` is our own.
    pub netns: Option<String>,
    /// Format.
    pub format: Format,
    /// Only this table, or only this chain of it (`TABLE/CHAIN`).
    pub only: Option<String>,
}

/// What the list looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON document; docs/rules.md describes it.
    Json,
}

/// Prints the ruleset on standard output.
///
/// # Errors
/// The ruleset cannot be read, or there is no such table or chain.
pub fn show(show: &Show) -> Result<ExitCode> {
    messages::to_stderr();
    let Show { netns, format, only } = show;
    let netns = match netns {
        Some(name) => Netns::named(name)?,
        None => Netns::current()?,
    };
    let ruleset = Ruleset::load(&netns)?;
    warn(&ruleset);
    let selected: Vec<Selected<'_>> = select(&ruleset.tables, only.as_deref());
    let partial = !ruleset.unread.is_empty() || !ruleset.skipped.is_empty();
    if ruleset.tables.is_empty() && !partial {
        log::info!("no firewall rules: the ruleset of namespace `{}` is empty", netns.name);
    } else if let (Some(only), true) = (only, selected.is_empty() && !ruleset.tables.is_empty()) {
        let labels: Vec<_> = ruleset.tables.iter().map(|table| table.label()).collect();
        bail!("no table or chain `{only}`; the tables are: {}", labels.join(", "));
    }
    Destination::Stdout.write(|out| match format {
        Format::Text => text::render(&selected, out),
        Format::Json => json::render(&netns.name, &ruleset, &selected, out),
    })?;
    // A part that could not be read is not empty.
    Ok(if partial { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Says what the ruleset lacks.
fn warn(ruleset: &Ruleset) {
    for note in ruleset.all_notes() {
        log::warn!("{note}");
    }
    for (kind, count) in &ruleset.skipped {
        log::warn!("could not read {count} objects of kind `{kind}`: the list is not complete");
    }
}
