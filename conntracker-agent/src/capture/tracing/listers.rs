//! Lists rulesets in threads of their own, because the programs that list them take long.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::Result;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    firewall::{Ruleset, program::Limits},
    model::NetnsId,
    os::{netns::Netns, threads},
};

/// Rulesets that are listed at once: each takes two processes.
const MOST: usize = 8;

/// A listed ruleset, from the thread that listed it.
pub(crate) struct Listed {
    pub(super) netns: NetnsId,
    pub(crate) result: Result<Ruleset>,
}

/// The threads. Dropping this kills the programs that they run, which ends the threads.
pub(crate) struct Listers {
    sender: UnboundedSender<Listed>,
    stopped: Arc<AtomicBool>,
    running: Vec<JoinHandle<()>>,
    /// Whether what the programs print is kept.
    keep: bool,
}

impl Listers {
    /// No threads yet. They will send their results by `sender`; `keep`: with what the programs printed.
    pub fn new(sender: UnboundedSender<Listed>, keep: bool) -> Self {
        Self { sender, stopped: Arc::default(), running: Vec::new(), keep }
    }

    /// Whether the most threads are running.
    pub fn are_busy(&mut self) -> bool {
        self.running.retain(|thread| !thread.is_finished());
        self.running.len() >= MOST
    }

    /// Lists the ruleset of a namespace.
    pub fn list(&mut self, id: NetnsId, netns: &Arc<Netns>) -> Result<()> {
        let (netns, sender) = (Arc::clone(netns), self.sender.clone());
        let limits = Limits::new(&self.stopped);
        let limits = if self.keep { limits.keeping() } else { limits.with_kernel_rules() };
        let thread = threads::spawn("rules", move || {
            let result = Ruleset::load_within(&netns, &limits);
            // A closed channel means that the loop has ended.
            let _ = sender.send(Listed { netns: id, result });
        })?;
        self.running.push(thread);
        Ok(())
    }
}

impl Drop for Listers {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.running.drain(..) {
            // One that has panicked has said so.
            let _ = thread.join();
        }
    }
}
