//! What a recording has seen of rules: when packets met each of them last, and why packets may have met it unseen.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use anyhow::{Context, Result};

use super::{Doubt, RuleUsage, UseEvidence, counted, key};
use crate::{
    commands::{report::Source, rules::hits::OF_ALL_RULES},
    firewall::{Ruleset, model::Rule},
    model::{
        TimeOfDay,
        event::{EventKind, FlowEvent},
        loss::Loss,
        path::{Site, SiteKind, Traversal},
        table::{Backend, Family},
    },
    recording::{End, Item, Reader, statement},
    report::coverage::{RuleId, RuleKey},
};

/// Paths of dropped packets that are remembered, so that later counts of them are hits of their rules.
const PATHS: usize = 65_536;

/// A base chain.
type BaseKey = (Backend, Family, String, String);

/// The evidence of a recording, for one namespace.
pub(super) struct Observed {
    netns: u32,
    /// The window: nanoseconds since the epoch.
    pub start_ns: u64,
    pub end_ns: u64,
    /// Epochs of the ruleset, with the times at which they began.
    pub epochs: Vec<(u32, u64)>,
    /// Packets whose paths were traced.
    pub paths: u64,
    /// When a packet met each rule last.
    met: HashMap<RuleKey, u64>,
    /// When each rule was listed first, and its counter then and when it was listed last.
    rules: HashMap<RuleKey, (u64, Option<u64>, Option<u64>)>,
    /// Base chains of which steps were seen, and those of which packets told no more.
    seen: HashSet<BaseKey>,
    untold: HashSet<BaseKey>,
    /// Why nothing can be said of any rule.
    of_all: Option<Doubt>,
    /// Only counters show which rules matched.
    by_counters: bool,
    paths_of_drops: HashMap<u64, Arc<Traversal>>,
}

impl Observed {
    /// Reads a recording.
    pub fn read(source: &Source, netns: u32) -> Result<Self> {
        let mut this = Self {
            netns,
            start_ns: 0,
            end_ns: 0,
            epochs: Vec::new(),
            paths: 0,
            met: HashMap::new(),
            rules: HashMap::new(),
            seen: HashSet::new(),
            untold: HashSet::new(),
            of_all: None,
            by_counters: true,
            paths_of_drops: HashMap::new(),
        };
        let mut time_of_day = TimeOfDay::default();
        // They may stand before the first event, which relates the clocks.
        let mut early = Vec::new();
        for input in source.inputs()? {
            let what = || format!("cannot read {}", input.name());
            let mut reader = Reader::new(input.open()?).with_context(what)?;
            while let Some(item) = reader.next(End::Last).with_context(what)? {
                match item {
                    Item::Header(header) => this.header(&header),
                    Item::Counts(counts) => this.losses(&counts),
                    Item::Gap(_) | Item::Damage(_) => this.doubt(Doubt::PacketsLost),
                    Item::Ruleset(ruleset) if ruleset.netns == netns => early.push(ruleset),
                    Item::Events(events) => {
                        for event in events {
                            if let EventKind::Clock(related) = event.kind {
                                time_of_day = related;
                            }
                            if time_of_day != TimeOfDay::default() {
                                for ruleset in early.drain(..) {
                                    this.ruleset(&ruleset, time_of_day)?;
                                }
                            }
                            this.event(event, time_of_day);
                        }
                    }
                    _ => {}
                }
            }
        }
        for ruleset in early {
            this.ruleset(&ruleset, time_of_day)?;
        }
        this.paths_of_drops = HashMap::new();
        Ok(this)
    }

    /// The first reason stays.
    fn doubt(&mut self, why: Doubt) {
        self.of_all.get_or_insert(why);
    }

    fn header(&mut self, header: &statement::Header) {
        self.start_ns = header.start_ns;
        self.by_counters = header.backend != "probes";
        if header.without_rules.is_some() {
            self.doubt(Doubt::RulesNotTraced);
        }
        if !header.filters.is_empty() {
            self.doubt(Doubt::Filtered);
        }
    }

    fn losses(&mut self, counts: &statement::Counts) {
        let hides = |(name, count): &(String, u64)| {
            *count > 0 && Loss::named(name).is_some_and(|loss| OF_ALL_RULES.contains(&loss))
        };
        if counts.losses.iter().any(hides) {
            self.doubt(Doubt::PacketsLost);
        }
    }

    fn ruleset(&mut self, stated: &statement::Ruleset, time_of_day: TimeOfDay) -> Result<()> {
        let at_ns = time_of_day.of(stated.at_ns);
        if !self.epochs.iter().any(|(epoch, _)| *epoch == stated.epoch) {
            self.epochs.push((stated.epoch, at_ns));
        }
        let ruleset = Ruleset::of_printed(&stated.listings)
            .context("the recorded listing of rules makes no sense")?;
        for table in &ruleset.tables {
            for chain in &table.chains {
                for rule in &chain.rules {
                    let now = counted(rule);
                    let of = self.rules.entry(key(table, chain, rule)).or_insert((at_ns, now, now));
                    of.2 = now;
                }
            }
        }
        Ok(())
    }

    fn event(&mut self, event: FlowEvent, time_of_day: TimeOfDay) {
        let at_ns = time_of_day.of(event.at_ns);
        self.end_ns = self.end_ns.max(at_ns);
        if event.netns.0 != self.netns {
            return;
        }
        match event.kind {
            EventKind::Path(path) => {
                self.paths += 1;
                self.steps(&path.traversal, at_ns);
                if path.path_hash != 0 && self.paths_of_drops.len() < PATHS {
                    self.paths_of_drops.insert(path.path_hash, path.traversal);
                }
            }
            EventKind::Dropped(dropped) => {
                if let Some(path) = self.paths_of_drops.get(&dropped.path_hash).cloned() {
                    self.steps(&path, at_ns);
                }
            }
            _ => {}
        }
    }

    fn steps(&mut self, traversal: &Traversal, at_ns: u64) {
        for step in traversal.steps.iter() {
            let site = &*step.site;
            match site.kind {
                SiteKind::Rule => {
                    if let Some(key) = key_of(site) {
                        self.met
                            .entry(key)
                            .and_modify(|last| *last = at_ns.max(*last))
                            .or_insert(at_ns);
                    }
                    self.seen.insert(base_key(site));
                }
                SiteKind::Policy | SiteKind::Return => {
                    self.seen.insert(base_key(site));
                }
                SiteKind::Chain => {
                    self.untold.insert(base_key(site));
                }
            }
        }
    }

    /// The evidence for a rule. `bases`: the base chains that lead to its chain.
    pub fn evidence(
        &self,
        key: &RuleKey,
        rule: &Rule,
        bases: Option<&BTreeSet<&str>>,
    ) -> UseEvidence {
        let (since_ns, first, last) = match self.rules.get(key) {
            Some((since_ns, first, last)) => (Some(*since_ns), *first, *last),
            None => (None, None, None),
        };
        let base = |name: &&str| (key.backend, key.family, key.table.clone(), (*name).to_owned());
        let bases: Vec<BaseKey> = bases.into_iter().flatten().map(base).collect();
        let verdict = if let Some(at_ns) = self.met.get(key) {
            RuleUsage::Met(Some(*at_ns))
        } else if let Some(why) = self.of_all {
            RuleUsage::NotObserved(why)
        } else if since_ns.is_none() {
            RuleUsage::NotObserved(Doubt::CameLater)
        } else if self.by_counters && counted(rule).is_none() {
            RuleUsage::NotObserved(Doubt::NoCounter)
        } else if first.zip(last).is_some_and(|(first, last)| first != last) {
            RuleUsage::NotObserved(Doubt::CounterMoved)
        } else if bases.iter().any(|base| self.untold.contains(base)) {
            RuleUsage::NotObserved(Doubt::PacketsUntold)
        } else if bases.is_empty() || !bases.iter().all(|base| self.seen.contains(base)) {
            RuleUsage::NotObserved(Doubt::ChainNotMet)
        } else {
            RuleUsage::Unused
        };
        UseEvidence { verdict, counter: first, since_ns }
    }
}

fn base_key(site: &Site) -> BaseKey {
    (site.backend, site.family, site.table.clone(), site.chain.clone())
}

/// The rule of a site; `None` if it is not known which one it is.
fn key_of(site: &Site) -> Option<RuleKey> {
    let id = match site.handle {
        Some(handle) => RuleId::Handle(handle),
        None => RuleId::Numbered(site.position?, site.text.clone()?),
    };
    let Site { backend, family, table, chain, .. } = site;
    let (table, chain) = (table.clone(), chain.clone());
    Some(RuleKey { backend: *backend, family: *family, table, chain, id })
}
