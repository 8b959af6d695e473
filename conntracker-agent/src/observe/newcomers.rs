//! Namespaces that come and go while all of them are observed (`--netns all`).
//!
//! Nobody tells of them: a thread looks. A new one is dumped, then observed, then dumped again: what came
//! between the first dump and the observation is found by the second, though the kernel has not counted
//! it. One that nothing refers to any more is let go: held open it would stay, with its interfaces.

use std::{collections::HashSet, sync::Arc, thread, time::Duration};

use anyhow::Result;
use tokio::sync::mpsc;

use super::{NetnsChoice, Observer};
use crate::{
    flow::NetnsId,
    kernel::netns::{Netns, find},
};

/// How often to look: a stat(2) for each process.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Something that has happened to a namespace.
pub(super) enum Change {
    /// It is new.
    Came(Netns),
    /// Nothing but us refers to it any more; its inode.
    Went(u64),
}

/// What is known of namespaces that were not there all the time.
#[derive(Default)]
pub(super) struct Newcomers {
    /// Those that came later.
    pub came: u64,
    /// Those that could not be observed, and why.
    pub refused: Vec<String>,
    /// Those whose first dump is under way.
    pub arriving: HashSet<NetnsId>,
    /// Those that are gone.
    pub gone: HashSet<NetnsId>,
}

impl Newcomers {
    /// What the reader of a report must know of them.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        let came = (self.came > 0).then(|| {
            format!(
                "{} namespaces came after the start: flows that were over before they were noticed are missing",
                self.came
            )
        });
        let refused = self.refused.iter().map(|why| format!("a namespace is not observed: {why}"));
        came.into_iter().chain(refused)
    }
}

/// Starts to look, if all namespaces are to be observed; until the receiver is dropped.
pub(super) fn watch(choice: &NetnsChoice, known: &[Arc<Netns>]) -> Option<mpsc::Receiver<Change>> {
    if *choice != NetnsChoice::All {
        return None;
    }
    let mut known: HashSet<u64> = known.iter().map(|netns| netns.inode).collect();
    let (sender, receiver) = mpsc::channel(16);
    thread::spawn(move || {
        while !sender.is_closed() {
            thread::sleep(LOOK_EVERY);
            for change in look(&mut known) {
                // A closed channel means that the loop has ended.
                let _ = sender.blocking_send(change);
            }
        }
    });
    Some(receiver)
}

fn look(known: &mut HashSet<u64>) -> Vec<Change> {
    let found = find::all();
    let now: HashSet<u64> = found.iter().map(|found| found.inode).collect();
    // Those that are held open keep their inodes: no other namespace can have come to their place.
    let went = known.extract_if(|inode| !now.contains(inode)).map(Change::Went);
    let mut changes: Vec<Change> = went.collect();
    for found in found {
        // What is gone already is not there the next time either.
        if !known.contains(&found.inode)
            && let Ok(netns) = found.open()
        {
            known.insert(found.inode);
            changes.push(Change::Came(netns));
        }
    }
    changes
}

/// The next change; never, if nobody looks.
pub(super) async fn next(changes: &mut Option<mpsc::Receiver<Change>>) -> Change {
    if let Some(changes) = changes
        && let Some(change) = changes.recv().await
    {
        return change;
    }
    std::future::pending().await
}

impl Observer {
    pub(super) fn on_change(&mut self, change: Change) -> Result<()> {
        match change {
            Change::Came(netns) => {
                let id = NetnsId(self.namespaces.len() as u32);
                self.namespaces.push(Arc::new(netns));
                self.newcomers.came += 1;
                self.newcomers.arriving.insert(id);
                self.table.count_each(id);
                self.start_dump(id);
                Ok(())
            }
            Change::Went(inode) => {
                let is = |netns: &Arc<Netns>| netns.inode == inode && netns.is_held();
                match self.namespaces.iter().position(is) {
                    Some(at) => self.leave(NetnsId(at as u32)),
                    None => Ok(()),
                }
            }
        }
    }

    /// The first dump of a newcomer is through.
    pub(super) fn arrive(&mut self, id: NetnsId) {
        self.newcomers.arriving.remove(&id);
        self.table.count_with_others(id);
        let netns = Arc::clone(&self.namespaces[id.0 as usize]);
        match self.backend.observe(id, &netns) {
            Ok(()) => {
                log::info!("namespace {} has come, and is observed", netns.name);
                self.interfaces.add(id, &netns);
                self.start_dump(id);
            }
            Err(error) => self.refuse(&netns, &error),
        }
    }

    /// A newcomer cannot be observed.
    pub(super) fn refuse(&mut self, netns: &Netns, error: &anyhow::Error) {
        // It may have gone again; then there was nothing to be seen.
        if find::all().iter().any(|found| found.inode == netns.inode) {
            log::warn!("namespace {} is not observed: {error:#}", netns.name);
            self.newcomers.refused.push(format!("{}: {error:#}", netns.name));
        }
    }

    /// A namespace is let go: its flows are kept.
    fn leave(&mut self, id: NetnsId) -> Result<()> {
        let netns = Arc::clone(&self.namespaces[id.0 as usize]);
        log::info!("namespace {} has gone", netns.name);
        // What it has told is in the ring.
        self.drain_all()?;
        self.backend.forget(id, &netns)?;
        self.take_drops(true)?;
        self.interfaces.remove(id);
        self.newcomers.arriving.remove(&id);
        self.newcomers.gone.insert(id);
        netns.release();
        Ok(())
    }
}
