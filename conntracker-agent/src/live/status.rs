//! What a running agent says of itself: the loop publishes it about once a second, others read it without disturbing
//! the loop.

mod document;
pub mod protocol;

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

pub use self::document::{AgentStatus, State};
use super::{Observer, Request, assemble};
use crate::{
    model::loss::{Loss, LossCount},
    os::clock::Clock,
};

/// What the loop published last, and what has become of the reports.
#[derive(Debug)]
pub struct StatusBoard {
    clock: Clock,
    filters: Vec<String>,
    destination: String,
    /// Locked for an exchange or a copy alone: nobody waits for the other.
    now: Mutex<Now>,
}

/// What is so now.
#[derive(Clone, Debug)]
struct Now {
    state: State,
    published: Option<Arc<Published>>,
    report: Option<ReportWritten>,
}

/// A report that was written.
#[derive(Clone, Copy, Debug)]
struct ReportWritten {
    /// When (nanoseconds since boot).
    at_ns: u64,
    /// Lines of flows in it.
    flows: u64,
}

/// What the loop published. Times are nanoseconds since boot.
#[derive(Debug)]
struct Published {
    at_ns: u64,
    start_ns: u64,
    backend: &'static str,
    backend_reason: String,
    namespaces: Vec<String>,
    flows: usize,
    max_flows: usize,
    records: u64,
    losses: Vec<LossCount>,
    untold: Vec<String>,
    /// How many epochs there were, and when the last one began; why rules are not traced.
    epochs: Result<(u64, u64), String>,
}

impl StatusBoard {
    /// Of an agent that starts, with these filters, whose reports go to `destination`.
    ///
    /// # Errors
    /// There is no clock.
    pub fn new(filters: Vec<String>, destination: String) -> Result<Self> {
        let now = Now { state: State::Starting, published: None, report: None };
        Ok(Self { clock: Clock::new()?, filters, destination, now: Mutex::new(now) })
    }

    /// A report of so many lines was written.
    pub fn report_written(&self, flows: u64) {
        let at_ns = self.clock.since_boot();
        self.change(|now| now.report = Some(ReportWritten { at_ns, flows }));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Now) -> T) -> T {
        // A thread that panics leaves whole values.
        change(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn now(&self) -> Now {
        self.change(|now| now.clone())
    }
}

impl Observer {
    /// Says on a board what is so, about once a second.
    pub fn publish_on(&mut self, board: Arc<StatusBoard>) {
        self.board = Some(board);
    }

    /// Says what is so.
    pub(super) fn publish(&self) -> Result<()> {
        let Some(board) = &self.board else { return Ok(()) };
        let Self { config, backend, table, tally, clock, .. } = self;
        let mut losses =
            assemble::footer(self, backend.counters()?.as_ref(), backend.missed()?).losses;
        // The kernel's counts of flows are taken for a report: until then this one is not to be had.
        losses.retain(|lost| lost.loss != Loss::NewFlowsUncounted);
        let here = self.namespaces.iter().filter(|(id, _)| !self.netns_watch.gone.contains(id));
        let finishes = self.wanted.as_ref().is_some_and(|wanted| wanted.request == Request::Finish);
        let published = Arc::new(Published {
            at_ns: clock.since_boot(),
            start_ns: self.start_ns,
            backend: backend.name(),
            backend_reason: self.backend_reason.short.clone(),
            namespaces: here.map(|(_, netns)| netns.name.clone()).collect(),
            flows: table.len(),
            max_flows: config.max_flows,
            records: tally.records + tally.events,
            losses,
            untold: assemble::untold(self),
            epochs: match backend.rules() {
                Some(rules) => Ok((rules.epochs(), rules.tally.epoch_began_ns)),
                None => Err(backend.without_rules().to_owned()),
            },
        });
        let state = if finishes { State::Finishing } else { State::Observing };
        let before = board.change(|now| {
            now.state = state;
            now.published.replace(published)
        });
        drop(before);
        Ok(())
    }

    /// The last report is due.
    pub(super) fn finishes(&self, last: bool) {
        if let Some(board) = self.board.as_ref().filter(|_| last) {
            board.change(|now| now.state = State::Finishing);
        }
    }
}
