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
    /// Its number for the programs, which is reused after it has ended.
    pub slot: u32,
    /// Whether it has ended, or got no number: nothing is traced in it.
    pub gone: bool,
    pub links: ChainLinks,
    /// The present epoch and the previous one, whose records may still be in the ring.
    pub epochs: [Option<Epoch>; 2],
    /// Fingerprint of the kernel's rules when the plans were made; `None` if the plans are outdated.
    pub current: Option<Fingerprint>,
    /// Fingerprint when the rules of the present epoch were listed.
    pub listed: Option<Fingerprint>,
    /// Fingerprint when the running listing began.
    pub listing: Option<Fingerprint>,
    /// Why its rules could not be read.
    pub failed: Option<String>,
    pub not_before: Instant,
    /// Ranges of its plans: (first, number).
    pub ranges: (u32, u32),
    /// Counters of its rules that are not read, because there are too many.
    pub capped: usize,
    /// Coverage of the rules of past epochs.
    pub coverage: Coverage,
    /// Base chains at hooks where packets are not traced, which may drop some.
    pub may_drop: Vec<String>,
    /// Further remarks about its rules.
    pub notes: Vec<String>,
    /// What should be traced and is not, with the reason.
    pub untold: Vec<String>,
}

/// All namespaces. Those that have ended stay, because flows have their traversals.
#[derive(Default)]
pub(super) struct Namespaces(BTreeMap<NetnsId, Namespace>);

impl Namespaces {
    /// Adds a namespace at this address. Its rules are listed at the next poll.
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

    /// A namespace.
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

    /// All namespaces, in the order in which they were added.
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

    /// Forgets a namespace.
    pub fn remove(&mut self, id: NetnsId) {
        self.0.remove(&id);
    }

    /// Stops tracing in a namespace; `None` if it was not traced.
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
