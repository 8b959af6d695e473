//! Namespaces that come and go while all of them are observed (`--netns all`).
//!
//! Nobody tells of them: a thread looks. A new one is dumped, then observed, then dumped again: what came
//! between the first dump and the observation is found by the second, though the kernel has not counted
//! it. One that nothing refers to any more is let go: held open it would stay, with its interfaces.

use std::{collections::HashSet, io, sync::Arc, thread, time::Duration};

use anyhow::{Result, anyhow};
use tokio::sync::mpsc;

use super::Observer;
use crate::{
    capture::NetnsChoice,
    model::{NetnsId, event::EventKind},
    os::{
        descriptors,
        netns::{
            Netns,
            find::{self, NotOpened, Sweep},
        },
        threads,
    },
};

/// How often to look: a stat(2) for each process.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Something that has happened to a namespace.
pub(super) enum Change {
    /// It is new.
    Came(Netns),
    /// It is there, but cannot be opened: why.
    Refused(String),
    /// Nothing but us refers to it any more; its inode.
    Went(u64),
}

/// Reasons that a report tells; of the rest only how many there are.
const MOST_REASONS: usize = 8;

/// Namespaces that are gone before it is looked which of them no flow is of.
const MOST_GONE: usize = 64;

/// What is known of namespaces that were not there all the time.
#[derive(Default)]
pub(super) struct NetnsWatch {
    /// Those that came later.
    pub came: u64,
    /// Those that could not be observed: how many, and of the first ones why.
    refused: u64,
    reasons: Vec<String>,
    /// Those whose first dump is under way.
    pub arriving: HashSet<NetnsId>,
    /// Those that are gone, or not observed.
    pub gone: HashSet<NetnsId>,
    /// Those among them of which flows tell.
    kept: usize,
}

impl NetnsWatch {
    /// One is not observed.
    pub fn refuse(&mut self, why: String) {
        self.refused += 1;
        if self.reasons.len() < MOST_REASONS && !self.reasons.contains(&why) {
            self.reasons.push(why);
        }
    }

    /// How many are not observed that are there.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// What the reader of a report must know of them.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        let came = (self.came > 0).then(|| {
            format!(
                "{} namespaces came after the start: flows that were over before they were noticed are missing",
                self.came
            )
        });
        let refused = self.reasons.iter().map(|why| format!("a namespace is not observed: {why}"));
        let reasons = self.reasons.len() as u64;
        let more = (self.refused > reasons)
            .then(|| format!("{} more namespaces are not observed", self.refused - reasons));
        came.into_iter().chain(refused).chain(more)
    }
}

/// Starts to look, if all namespaces are to be observed; until the receiver is dropped.
///
/// # Errors
/// No thread can be had.
pub(super) fn watch<'a>(
    choice: &NetnsChoice,
    known: impl Iterator<Item = &'a Arc<Netns>>,
) -> Result<Option<mpsc::Receiver<Change>>> {
    if *choice != NetnsChoice::All {
        return Ok(None);
    }
    let (sender, receiver) = mpsc::channel(16);
    let mut look = Look { known: known.map(|netns| netns.inode).collect(), ..Look::default() };
    threads::spawn("namespaces", move || {
        while !sender.is_closed() {
            thread::sleep(LOOK_EVERY);
            for change in look.changes(find::all()) {
                // A closed channel means that the loop has ended.
                let _ = sender.blocking_send(change);
            }
        }
    })?;
    Ok(Some(receiver))
}

/// What the last look has shown.
#[derive(Default)]
struct Look {
    /// Inodes of namespaces that are observed.
    known: HashSet<u64>,
    /// Inodes of those that could not be opened.
    refused: HashSet<u64>,
    /// It failed.
    blind: bool,
}

impl Look {
    fn changes(&mut self, found: io::Result<Sweep>) -> Vec<Change> {
        let found = match found {
            Ok(found) => found,
            // What could not be looked for is not gone.
            Err(error) => {
                if !std::mem::replace(&mut self.blind, true) {
                    log::warn!(
                        "cannot look for namespaces: {error}; those that are known are kept"
                    );
                }
                return Vec::new();
            }
        };
        self.blind = false;
        // Those that are held open keep their inodes: no other namespace can have come to their place.
        let went = self.known.extract_if(|inode| !found.has(*inode)).map(Change::Went);
        let mut changes: Vec<Change> = went.collect();
        self.refused.retain(|inode| found.has(*inode));
        for found in found.namespaces {
            if self.known.contains(&found.inode) {
                continue;
            }
            match found.open() {
                Ok(netns) => {
                    self.known.insert(found.inode);
                    changes.push(Change::Came(netns));
                }
                Err(NotOpened::Gone) => {}
                // It is tried again: descriptors may become free.
                Err(NotOpened::Refused(why)) => {
                    if self.refused.insert(found.inode) {
                        changes.push(Change::Refused(why));
                    }
                }
            }
        }
        changes
    }
}

/// The next change; pending for ever if namespaces are not watched.
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
                let id = self.add(&Arc::new(netns));
                self.netns_watch.came += 1;
                self.netns_watch.arriving.insert(id);
                self.event(id, EventKind::PacketsSeen(false));
                self.start_dump(id);
                if !self.dumping.contains(&id) {
                    self.refuse(id, &anyhow!("its conntrack table cannot be dumped"));
                }
                Ok(())
            }
            Change::Refused(why) => {
                log::warn!("a namespace is not observed: {why}");
                self.netns_watch.refuse(why);
                Ok(())
            }
            Change::Went(inode) => {
                let is = |netns: &Netns| netns.inode == inode && netns.is_held();
                match self.namespaces.iter().find(|(_, netns)| is(netns)) {
                    Some((&id, _)) => self.leave(id),
                    None => Ok(()),
                }
            }
        }
    }

    /// The first dump of a newcomer is through.
    pub(super) fn arrive(&mut self, id: NetnsId) {
        let Some(netns) = self.namespaces.get(&id).map(Arc::clone) else { return };
        match self.backend.observe(id, &netns) {
            Ok(()) => {
                log::info!("namespace {} has come, and is observed", netns.name);
                self.netns_watch.arriving.remove(&id);
                self.event(id, EventKind::PacketsSeen(true));
                self.observes(id, &netns);
                self.start_dump(id);
            }
            Err(error) => self.refuse(id, &error),
        }
    }

    /// A namespace cannot be observed. It is let go, too.
    pub(super) fn refuse(&mut self, id: NetnsId, error: &anyhow::Error) {
        let Some(netns) = self.namespaces.get(&id).map(Arc::clone) else { return };
        self.let_go(id, &netns);
        // It may have gone again; then there was nothing to be seen.
        if find::all().is_ok_and(|found| found.has(netns.inode)) {
            let why = format!("{}: {error:#}{}", netns.name, descriptors::hint(error));
            log::warn!("namespace {why}: it is not observed");
            self.netns_watch.refuse(why);
        }
    }

    /// A namespace has gone: its flows are kept.
    fn leave(&mut self, id: NetnsId) -> Result<()> {
        let Some(netns) = self.namespaces.get(&id).map(Arc::clone) else { return Ok(()) };
        log::info!("namespace {} has gone", netns.name);
        // What it has told is in the ring.
        self.drain_all()?;
        self.let_go(id, &netns);
        self.take_drops(true)
    }

    /// Held open it would stay, with its interfaces.
    fn let_go(&mut self, id: NetnsId, netns: &Netns) {
        if let Err(error) = self.backend.forget(id, netns) {
            // It leaves nothing behind but an entry in a map.
            log::warn!("namespace {}: {error:#}", netns.name);
        }
        self.interfaces.remove(id);
        self.statistics.end(id);
        self.netns_watch.arriving.remove(&id);
        self.netns_watch.gone.insert(id);
        self.event(id, EventKind::PacketsSeen(true));
        netns.release();
    }

    /// Namespaces that are gone stay known as long as flows tell of them. Where they come and go in bursts, those
    /// that nothing tells of would be many.
    pub(super) fn forget_unused(&mut self) {
        if self.netns_watch.gone.len() < self.netns_watch.kept + MOST_GONE {
            return;
        }
        let unused = self.table.forget_gone(&self.netns_watch.gone);
        for id in unused.difference(&self.dumping) {
            self.netns_watch.gone.remove(id);
            self.namespaces.remove(id);
            self.dumped_once.remove(id);
            self.interfaces.forget(*id);
            self.backend.forget_all_of(*id);
        }
        self.netns_watch.kept = self.netns_watch.gone.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_looked_for_is_not_gone() {
        let own = Netns::current().unwrap().inode;
        let mut look = Look { known: HashSet::from([own, 1]), ..Look::default() };
        let too_many = || io::Error::from_raw_os_error(libc::EMFILE);
        assert!(look.changes(Err(too_many())).is_empty());
        assert_eq!(look.known.len(), 2);
        let all = find::all().unwrap();
        assert!(all.has(own) && !all.has(1));
        let changes = look.changes(Ok(all));
        assert!(matches!(changes[0], Change::Went(1)));
        assert!(look.known.contains(&own));
    }

    #[test]
    fn reasons_are_bounded_and_the_rest_is_counted() {
        let mut netns_watch = NetnsWatch::default();
        for number in 0..100 {
            netns_watch.refuse(format!("pid:{number}: no"));
        }
        let notes: Vec<String> = netns_watch.notes().collect();
        assert_eq!(notes.len(), MOST_REASONS + 1);
        assert_eq!(notes[0], "a namespace is not observed: pid:0: no");
        assert_eq!(notes[MOST_REASONS], "92 more namespaces are not observed");
    }
}
