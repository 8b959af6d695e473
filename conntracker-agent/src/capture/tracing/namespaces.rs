//! The namespaces whose rules are traced, and their numbers for the programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context, Result};
use conntracker_common::plan::MAX_NAMESPACES;
use tokio::time::Instant;

use super::{epoch::Epoch, links::ChainLinks};
use crate::{
    bpf::index::Fingerprint, model::NetnsId, os::netns::Netns, report::coverage::Coverage,
};

/// One namespace.
pub(super) struct Namespace {
    pub netns: Arc<Netns>,
    pub cookie: u64,
    /// Address of its `struct net`.
    pub net: u64,
    /// Its number for the programs, free again when it is gone.
    pub slot: u32,
    /// It is gone, or there was no number left: nothing is done any more.
    pub gone: bool,
    pub links: ChainLinks,
    /// The epoch of now, and that before: its records may still be in the ring.
    pub epochs: [Option<Epoch>; 2],
    /// What stood in the kernel when plans were made; `None` when they do not hold.
    pub current: Option<Fingerprint>,
    /// What stood there when the rules of the epoch of now were listed.
    pub listed: Option<Fingerprint>,
    /// What stood there when the listing began that is under way.
    pub listing: Option<Fingerprint>,
    /// Its rules could not be read: why, and when to try again.
    pub failed: Option<String>,
    pub not_before: Instant,
    /// Ranges of its plans: (first, number).
    pub ranges: (u32, u32),
    /// Counters of its rules that are not read: there are too many.
    pub capped: usize,
    /// What was seen of the rules of epochs that are over.
    pub coverage: Coverage,
    /// Base chains that hang where no packets are traced, and may drop some.
    pub may_drop: Vec<String>,
    /// What else there is to be said of its rules.
    pub notes: Vec<String>,
    /// What should be traced and is not, and why.
    pub untold: Vec<String>,
}

/// All of them. Those that are gone stay known: they have no records any more, but had.
#[derive(Default)]
pub(super) struct Namespaces(BTreeMap<NetnsId, Namespace>);

impl Namespaces {
    /// One more, at this address. Its rules are listed at the next poll.
    pub fn add(&mut self, id: NetnsId, netns: &Arc<Netns>, net: u64) -> Result<&Namespace> {
        let taken: BTreeSet<u32> = self.traced().map(|(_, of)| of.slot).collect();
        let free = (0..MAX_NAMESPACES).find(|slot| !taken.contains(slot));
        let none_left = || {
            format!("rules are not traced: {MAX_NAMESPACES} other namespaces are traced already")
        };
        let namespace = Namespace {
            netns: Arc::clone(netns),
            cookie: netns.cookie.context("the namespace has no cookie")?,
            net,
            slot: free.unwrap_or(MAX_NAMESPACES),
            gone: free.is_none(),
            links: ChainLinks::default(),
            epochs: [None, None],
            current: None,
            listed: None,
            listing: None,
            failed: None,
            not_before: Instant::now(),
            ranges: (0, 0),
            capped: 0,
            coverage: Coverage::default(),
            may_drop: Vec::new(),
            notes: Vec::new(),
            untold: if free.is_none() { vec![none_left()] } else { Vec::new() },
        };
        Ok(self.0.entry(id).insert_entry(namespace).into_mut())
    }

    /// One of them.
    ///
    /// # Errors
    /// It was never added.
    pub fn get(&mut self, id: NetnsId) -> Result<&mut Namespace> {
        self.0.get_mut(&id).context("a namespace is not known")
    }

    /// One of them, to look at.
    pub fn known(&self, id: NetnsId) -> Option<&Namespace> {
        self.0.get(&id)
    }

    /// All, in the order in which they came.
    pub fn all(&self) -> impl Iterator<Item = &Namespace> {
        self.0.values()
    }

    /// All, to change.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Namespace> {
        self.0.values_mut()
    }

    /// Those that are traced.
    pub fn traced(&self) -> impl Iterator<Item = (NetnsId, &Namespace)> {
        self.0.iter().filter(|(_, of)| !of.gone).map(|(id, of)| (*id, of))
    }

    /// Nothing is to be known of it any more.
    pub fn remove(&mut self, id: NetnsId) {
        self.0.remove(&id);
    }

    /// Ends what is done for one; `None` if nothing is.
    pub fn end(&mut self, id: NetnsId) -> Option<&Namespace> {
        let namespace = self.0.get_mut(&id).filter(|namespace| !namespace.gone)?;
        namespace.gone = true;
        namespace.links = ChainLinks::default();
        namespace.epochs = [None, None];
        namespace.ranges = (0, 0);
        namespace.notes.clear();
        namespace.untold.clear();
        namespace.failed = None;
        Some(namespace)
    }
}
