//! Of which rules it can be told whether packets met them.

use std::collections::HashMap;

use crate::{
    firewall::model::{Rule, Table},
    model::table::{Backend, Family},
};

/// Why it cannot be told of a rule whether packets met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Unseen {
    /// Packets are not traced where its chain hangs.
    NotObserved,
    /// Nothing in it tells that it matches.
    NoCounter,
    /// It has a counter, which is not read.
    NotRead,
    /// Of a packet that came to its hook no more is known than the chain.
    Untold,
    /// It came while packets were observed: some may have met it before they were traced.
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

/// What tells it from the others of its chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RuleId {
    /// nf_tables' handle.
    Handle(u64),
    /// Position and text: in ip_tables nothing else tells that it is still the same.
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

/// All rules that were there while packets were observed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Coverage {
    /// Why nothing can be told of a rule, and the last epoch that had it.
    rules: HashMap<RuleKey, (Option<Unseen>, u32)>,
    /// The last two epochs.
    epochs: (u32, u32),
    /// Of some packets no more is known than the chains that they met.
    pub untold: bool,
    /// What could not be traced, and why.
    pub notes: Vec<String>,
}

impl Coverage {
    /// Of the rules that are known, why it cannot be told whether packets met them; `None` if it can.
    pub fn iter(&self) -> impl Iterator<Item = (&RuleKey, Option<Unseen>)> {
        self.rules.iter().map(|(key, (unseen, _))| (key, *unseen))
    }

    /// Adds an epoch, or says more of the last ones. `from_start`: it was there when the observation began.
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
