//! Coverage: for each rule, whether the trace would have seen a packet that matched it.

use std::collections::HashMap;

use crate::{
    firewall::model::{Rule, Table},
    model::table::{Backend, Family},
};

/// Why the trace may have missed packets that matched a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Unseen {
    /// Packets are not traced at the hook of its chain.
    NotObserved,
    /// No counter of it moves exactly on a match.
    NoCounter,
    /// It has a counter, which is not read.
    NotRead,
    /// Of some packet at its hook only the base chain is known.
    Untold,
    /// It was added during the observation: packets may have matched it before its epoch began.
    Late,
}

/// What tells a rule from all others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RuleKey {
    pub backend: Backend,
    pub family: Family,
    pub table: String,
    pub chain: String,
    pub id: RuleId,
}

/// The identity of a rule in its chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RuleId {
    /// nf_tables' handle.
    Handle(u64),
    /// Position and text, because rules of ip_tables have no handle.
    Numbered(u32, String),
}

impl RuleKey {
    fn of(table: &Table, chain: &str, rule: &Rule) -> Self {
        Self {
            backend: table.backend,
            family: table.family,
            table: table.name.clone(),
            chain: chain.to_owned(),
            id: match rule.handle {
                Some(handle) => RuleId::Handle(handle),
                None => RuleId::Numbered(rule.position, rule.text.clone()),
            },
        }
    }
}

/// All rules that existed during the observation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Coverage {
    /// Why matches of a rule may be missing, and the last epoch that had it.
    rules: HashMap<RuleKey, (Option<Unseen>, u32)>,
    /// The last two epochs.
    epochs: (u32, u32),
    /// Whether only the base chains are known of some packets.
    pub untold: bool,
    /// What could not be traced, and why.
    pub notes: Vec<String>,
}

impl Coverage {
    /// Each known rule, with the reason why matches of it may be missing; `None` if none can.
    pub fn iter(&self) -> impl Iterator<Item = (&RuleKey, Option<Unseen>)> {
        self.rules.iter().map(|(key, (unseen, _))| (key, *unseen))
    }

    /// Adds an epoch, or adds facts about one of the last epochs. `from_start`: it existed when the observation
    /// began.
    pub fn add<'a>(
        &mut self,
        epoch: u32,
        from_start: bool,
        rules: impl Iterator<Item = (&'a Table, &'a str, &'a Rule, Option<Unseen>)>,
    ) {
        if epoch > self.epochs.1 {
            self.epochs = (self.epochs.1, epoch);
        }
        let before = self.epochs.0;
        for (table, chain, rule, unseen) in rules {
            self.untold |= unseen == Some(Unseen::Untold);
            let late = (!from_start).then_some(Unseen::Late);
            let known = self
                .rules
                .entry(RuleKey::of(table, chain, rule))
                .or_insert_with(|| (unseen.or(late), epoch));
            // It was gone in between.
            let back = (known.1 < before).then_some(Unseen::Late);
            known.0 = known.0.or(unseen).or(back);
            known.1 = known.1.max(epoch);
        }
    }
}
