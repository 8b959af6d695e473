//! nf_tables as nft lists it, twice: JSON has the parts of rules, text has their notation. iptables-nft-save has the
//! parts of rules of iptables-nft that nft does not print.
//!
//! Handles join the two listings. The kernel never reuses a handle within a table, nor the handle of a table within a
//! namespace, so a text with the handle of a rule belongs to that rule. A rule without a text shows that the ruleset
//! changed in between.

mod clause;
mod json;
mod named;
mod saved;
mod statement;
mod text;
mod value;

use std::{path::Path, thread};

use anyhow::{Context, Result};

pub(super) use self::{json::Listing, saved::Saved, text::Texts};
use super::{
    iptables,
    model::Table,
    program::{self, Limits},
};
use crate::{netlink::nftables::generation, os::threads};

/// How often the ruleset is read when it changes while it is read.
const ATTEMPTS: usize = 3;

/// nf_tables' part of a ruleset.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// Tables, in no particular order.
    pub tables: Vec<Table>,
    /// What could not be read, by the kind of object.
    pub skipped: super::Skipped,
    /// Rules whose text is missing.
    pub without_text: usize,
    /// Notes about what is missing, and why.
    pub notes: Vec<String>,
}

/// Lists the tables of the calling thread's namespace; `None` if there is no nft.
pub(super) fn load(limits: &Limits) -> Result<Option<Loaded>> {
    let Some(nft) = program::find("nft") else { return Ok(None) };
    let mut attempt = 1;
    loop {
        let before = generation();
        // nft gives up a listing when the ruleset changes too often meanwhile, which counts as a change.
        match list(&nft, limits) {
            Ok(loaded) => {
                let saved = saved::load(&loaded.tables, limits);
                let same = before.is_some() && generation() == before;
                let whole = saved.is_none() && loaded.without_text == 0;
                if same || whole || attempt == ATTEMPTS {
                    return Ok(Some(finish(loaded, saved, same)));
                }
            }
            Err(error) if attempt == ATTEMPTS || limits.are_over() => return Err(error),
            Err(_) => {}
        }
        attempt += 1;
    }
}

/// Adds the texts, and notes what is missing. `same`: the ruleset did not change while it was read.
pub(super) fn finish(mut loaded: Loaded, saved: Option<Saved>, same: bool) -> Loaded {
    let Loaded { tables, notes, without_text, .. } = &mut loaded;
    if *without_text > 0 {
        let why = if same {
            "nft lists some rules in a way that is not understood"
        } else {
            "the ruleset kept changing while it was read"
        };
        notes.push(format!("{why}: {without_text} rules are shown as nft's JSON"));
    }
    match saved {
        Some(saved) if same => notes.extend(saved.give_to(tables)),
        Some(_) => notes.push(
            "the ruleset kept changing while it was read: rules of iptables-nft are shown without comments and arguments of xt matches and targets".to_owned(),
        ),
        None => {}
    }
    loaded
}

/// Makes both listings at the same time. The threads inherit the namespace of the thread that starts them.
fn list(nft: &Path, limits: &Limits) -> Result<Loaded> {
    thread::scope(|scope| {
        let texts = threads::spawn_scoped(scope, || {
            // -s: without the values of counters, so that the text of a rule stays the same.
            program::output(nft, &["-a", "-s", "list", "ruleset"], limits)
                .map(|all| Texts::parse(&all))
        })?;
        let json = program::output(nft, &["-j", "-a", "list", "ruleset"], limits)?;
        let listing = Listing::parse(&json).context("cannot read nft's JSON")?;
        let texts = texts.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(join(listing, texts))
    })
}

/// One model of the two listings.
pub(super) fn join(listing: Listing, mut texts: Texts) -> Loaded {
    let Listing { mut tables, skipped } = listing;
    let mut without_text = 0;
    for table in &mut tables {
        let key = (table.family, table.name.clone());
        without_text += match texts.tables.get_mut(&key).filter(|t| t.handle == table.handle) {
            Some(text) => text.give_to(table),
            None => table.chains.iter().map(|chain| chain.rules.len()).sum(),
        };
        table.iptables = iptables::made(table);
    }
    Loaded { tables, skipped, without_text, notes: Vec::new() }
}

#[cfg(test)]
mod tests;
