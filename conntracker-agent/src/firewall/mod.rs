//! The firewall as data: tables, chains and rules of nf_tables (nft, iptables-nft) and of ip_tables (iptables-legacy)
//! in one model. Reading it changes nothing: the firewall's own programs list the rules, and no kernel module is
//! loaded.
//!
//! In reading order: [`model`] has the data; `nft` joins nft's two listings, `legacy` reads iptables-legacy-save;
//! `iptables` recognises the tables of iptables.

pub mod action;
pub mod analyse;
pub mod clause;
pub mod evaluate;
mod extension;
mod fields;
mod iptables;
pub mod legacy;
pub mod listings;
pub mod model;
mod nft;
pub mod objects;
mod order;
pub mod packets;
pub(crate) mod program;
pub mod rules;
pub mod scratch;

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use self::{
    model::{Chain, ChainItem, Rule, Table},
    objects::KernelObjects,
    program::{Limits, Objects},
};
use crate::{
    model::table::{Backend, Family},
    netlink::nftables::generation,
    os::netns::Netns,
};

/// The generation of nf_tables' rules in a namespace that never had any (`nf_tables_init_net` of
/// net/netfilter/nf_tables_api.c).
const NEVER_CHANGED: u32 = 1;

/// Objects or lines that could not be read, by kind.
pub type Skipped = BTreeMap<String, u64>;

/// All rules of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Tables in display order: raw, mangle, nat, filter, security of iptables, then the others by
    /// family and name.
    pub tables: Vec<Table>,
    /// Number of objects that could not be read, by kind. After a skipped `rule` or `line`, positions may be too low.
    pub skipped: Skipped,
    /// Further remarks for the user.
    pub notes: Vec<String>,
    /// What could not be read, and why: rules may be missing here.
    pub unread: Vec<String>,
    /// What the programs printed of which this was made, with their command lines, if that was asked for.
    pub printed: Vec<(String, String)>,
    /// What the kernel has, likewise.
    pub objects: KernelObjects,
}

impl Ruleset {
    /// Reads the ruleset of a namespace. nf_tables and ip_tables are read one after the other, each consistently.
    ///
    /// # Errors A missing right to enter the namespace or to list rules; a program that fails, hangs or prints
    /// without end.
    pub fn load(netns: &Netns) -> Result<Self> {
        Self::load_within(netns, &Limits::default())
    }

    /// As [`Self::load`], with limits of the caller's.
    pub(crate) fn load_within(netns: &Netns, limits: &Limits) -> Result<Self> {
        netns
            .enter(|| Ok(Self::load_here(limits)))
            .with_context(|| format!("cannot enter network namespace `{}`", netns.name))?
            .with_context(|| format!("cannot read the ruleset of namespace `{}`", netns.name))
    }

    /// Reads the ruleset of the calling thread's namespace.
    fn load_here(limits: &Limits) -> Result<Self> {
        let nft = nft::load(limits)?;
        // nft is not needed where nf_tables never had a rule.
        let empty = nft.is_none() && generation() == Some(NEVER_CHANGED);
        let nft = if empty { Some(nft::Loaded::default()) } else { nft };
        let ruleset = Self::of(nft, legacy::load(limits)?);
        let objects = match limits.objects {
            Objects::None => KernelObjects::default(),
            Objects::Rules => KernelObjects::read_rules(),
            Objects::All => KernelObjects::read(),
        };
        Ok(Self { printed: limits.take_kept(), objects, ..ruleset })
    }

    /// All remarks for the user.
    pub fn all_notes(&self) -> impl Iterator<Item = &String> {
        self.notes.iter().chain(&self.unread)
    }

    /// Both parts in one; `nft` is `None` if there is no such program.
    fn of(nft: Option<nft::Loaded>, legacy: legacy::Loaded) -> Self {
        let (mut notes, mut unread) = (Vec::new(), Vec::new());
        let nft = nft.unwrap_or_else(|| {
            unread.push(
                "nft is not found, in PATH or elsewhere: rules of nf_tables are not shown"
                    .to_owned(),
            );
            nft::Loaded::default()
        });
        let nft::Loaded { mut tables, mut skipped, without_text: _, notes: of_nft } = nft;
        notes.extend(of_nft);
        unread.extend(legacy.unread);
        for (kind, count) in legacy.skipped {
            *skipped.entry(kind).or_default() += count;
        }
        let works = |tables: &[Table]| {
            let mut chains = tables.iter().flat_map(|table| &table.chains);
            chains.any(|chain| !chain.is_idle())
        };
        if works(&tables) && works(&legacy.tables) {
            notes.push(
                "rules of nf_tables and of iptables-legacy are both loaded: packets meet both"
                    .to_owned(),
            );
        }
        tables.extend(legacy.tables);
        order::sort(&mut tables);
        Self {
            tables,
            skipped,
            notes,
            unread,
            printed: Vec::new(),
            objects: KernelObjects::default(),
        }
    }

    /// A chain.
    #[must_use]
    pub fn chain(
        &self,
        backend: Backend,
        family: Family,
        table: &str,
        chain: &str,
    ) -> Option<&Chain> {
        self.tables
            .iter()
            .find(|t| t.backend == backend && t.family == family && t.name == table)?
            .chain(chain)
    }

    /// A rule of nf_tables by its handle.
    #[must_use]
    pub fn rule(&self, family: Family, table: &str, chain: &str, handle: u64) -> Option<&Rule> {
        self.chain(Backend::Nft, family, table, chain)?.rule(handle)
    }

    /// What stands at a position of a chain.
    #[must_use]
    pub fn at(
        &self,
        backend: Backend,
        family: Family,
        table: &str,
        chain: &str,
        position: u32,
    ) -> Option<ChainItem<'_>> {
        self.chain(backend, family, table, chain)?.at(position)
    }
}

#[cfg(test)]
mod tests;
