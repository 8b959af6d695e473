//! The loop: what each source has, as it comes, and reports when they are wanted.

use std::{future::Future, ops::ControlFlow, sync::Arc, time::Duration};

use anyhow::Result;
use conntracker_common::counters::Counter;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{
    Observer, Output, Request, Status, assemble, drops::DropFollower, netns_watch,
    reporter::Reporter, wanted::Wanted,
};
use crate::{
    capture::{
        Intake,
        backend::Backend,
        drain_all,
        dumps::{self, DumpMessage},
    },
    conntrack::DumpStats,
    model::{
        NetnsId, TimeOfDay,
        event::{EntrySource, EventKind},
    },
    report::assembly::Assembly,
};

/// How often the ring is drained when the kernel saw no reason for a wakeup.
const DRAIN_EVERY: Duration = Duration::from_millis(50);

/// How often losses are looked for, and at most how often they are answered with a dump.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// At most how often a dump is made because packets without an entry fit several flows.
const LOOK_CLOSER_EVERY: Duration = Duration::from_secs(10);

/// By how much the relation of the clocks must have changed to be told: nanoseconds.
const CLOCK_CHANGES: u64 = 100_000;

/// Dumps of a namespace at the start before the kernel folds although records are still being lost:
/// a flood that does not end must not keep it from folding, which is what helps against floods.
const MAX_FIRST_DUMPS: u64 = 10;

impl Observer {
    /// Observes until [`Request::Finish`] comes from `requests`, has the last report written, and detaches
    /// everything. Gives the output back.
    ///
    /// # Errors
    /// The last report cannot be written; or something failed that nothing can go on without: what was known by
    /// then is written first.
    pub async fn run<R, F, O>(mut self, requests: R, output: O) -> Result<O>
    where
        R: FnMut() -> F,
        F: Future<Output = Request>,
        O: Output,
    {
        let mut reporter = Reporter::new(output);
        match self.until_told(requests, &mut reporter).await {
            Ok(written) => written.and_then(|()| reporter.into_output()),
            Err(error) => {
                self.last_words(&mut reporter, &error).await;
                Err(error)
            }
        }
    }

    /// The loop; what writing the last report came to.
    async fn until_told<R, F, O>(
        &mut self,
        mut requests: R,
        reporter: &mut Reporter<O>,
    ) -> Result<Result<()>>
    where
        R: FnMut() -> F,
        F: Future<Output = Request>,
        O: Output,
    {
        let mut drain = interval_at(Instant::now() + DRAIN_EVERY, DRAIN_EVERY);
        let mut check = interval_at(Instant::now() + CHECK_EVERY, CHECK_EVERY);
        drain.set_missed_tick_behavior(MissedTickBehavior::Delay);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut request = Box::pin(requests());
        // When the report began that is being written.
        let mut snapshot_ns = 0;
        self.publish()?;
        loop {
            let finishes =
                self.wanted.as_ref().is_some_and(|wanted| wanted.request == Request::Finish);
            tokio::select! {
                ready = self.backend.ready() => { ready?; self.drain()?; }
                _ = drain.tick() => {
                    self.backend.watch_rules();
                    self.drain()?;
                    if self.reader_of_drops_is_gone() && !finishes {
                        self.ask(Request::Finish)?;
                    }
                }
                Some(message) = self.dumps.recv() => self.on_dump(message)?,
                change = netns_watch::next(&mut self.changes) => self.on_change(change)?,
                changed = self.interfaces.changed() => { changed?; self.on_interfaces()?; }
                _ = check.tick() => {
                    self.answer_losses()?;
                    self.take_drops(self.drops.is_some())?;
                    self.tell_unprinted_drops();
                    self.forget_unused();
                    self.shed();
                    self.record_statements()?;
                    reporter.status(self.status()?);
                    self.publish()?;
                }
                asked = &mut request, if !finishes => {
                    self.ask(asked)?;
                    request = Box::pin(requests());
                }
                written = reporter.written() => match written {
                    Ok(ControlFlow::Break(())) => return Ok(Ok(())),
                    Ok(ControlFlow::Continue(())) => self.leave_written(snapshot_ns),
                    // A full disk, say, may be empty again by the time of the next report.
                    Err(error) => log::error!("{error:#}; going on"),
                },
            }
            if reporter.is_idle()
                && let Some(wanted) = self.wanted.take_if(|wanted| wanted.is_due())
            {
                self.drain_all()?;
                self.take_drops(true)?;
                self.print_drops(true);
                let (snapshot, incomplete) = self.assemble();
                let last = wanted.request == Request::Finish || incomplete.is_some();
                self.finishes(last);
                reporter.begin(snapshot, last);
                snapshot_ns = self.clock.since_boot();
                if last {
                    let written = reporter.written().await.map(|_| ());
                    self.end_drops();
                    return Ok(written.and(incomplete.map_or(Ok(()), Err)));
                }
            }
        }
    }

    /// A report is written: in a daemon, flows leave that will tell nothing more.
    fn leave_written(&mut self, snapshot_ns: u64) {
        if self.config.leave_written {
            self.table.leave_written(snapshot_ns);
        }
    }

    /// A report is asked for.
    fn ask(&mut self, request: Request) -> Result<()> {
        if request == Request::Reopen
            && let Some(recorder) = &mut self.recorder
        {
            recorder.begin_part();
        }
        if let Some(wanted) = Wanted::next(self.wanted.as_ref(), request, &self.dumping) {
            self.wanted = Some(wanted);
            let before = self.dumping.clone();
            self.dump_all()?;
            let begun: Vec<NetnsId> = self.dumping.difference(&before).copied().collect();
            if let Some(wanted) = &mut self.wanted {
                for id in begun {
                    wanted.waits_for(id);
                }
            }
        }
        Ok(())
    }

    /// Something failed that nothing can go on without: what is known is written, as far as it can be had.
    async fn last_words<O: Output>(&mut self, reporter: &mut Reporter<O>, error: &anyhow::Error) {
        log::warn!("the trace ends early: what is known is written");
        self.broken = Some(format!("{error:#}"));
        let taken = self.drain_all().and_then(|()| self.take_drops(true));
        if let Err(error) = taken {
            log::warn!("{error:#}");
        }
        if !reporter.is_idle()
            && let Err(error) = reporter.written().await
        {
            log::error!("{error:#}");
        }
        self.print_drops(true);
        let (snapshot, _) = self.assemble();
        reporter.begin(snapshot, true);
        if let Err(error) = reporter.written().await {
            log::error!("{error:#}");
        }
        self.end_drops();
    }

    pub(super) fn dump_all(&mut self) -> Result<()> {
        self.lost_answered = self.backend.lost_flows(&self.tally)?;
        let all: Vec<NetnsId> = self.namespaces.keys().copied().collect();
        for id in all {
            self.start_dump(id);
        }
        Ok(())
    }

    /// Starts the dump of a namespace, unless one is under way.
    pub(super) fn start_dump(&mut self, id: NetnsId) {
        let Some(netns) = self.namespaces.get(&id) else { return };
        if self.netns_watch.gone.contains(&id) || !self.dumping.insert(id) {
            return;
        }
        let netns = Arc::clone(netns);
        self.event(id, EventKind::DumpBegan);
        self.tally.dumps += 1;
        let filter = dumps::lasting(&self.config.filter);
        let started = dumps::spawn(Arc::clone(&netns), id, filter, self.dump_sender.clone());
        if let Err(error) = started {
            let name = &netns.name;
            log::warn!("cannot dump the conntrack table of namespace `{name}`: {error}");
            self.tally.dump_failed += 1;
            self.event(id, EventKind::DumpEnded { whole: false });
            self.dumping.remove(&id);
        }
    }

    fn on_dump(&mut self, message: DumpMessage) -> Result<()> {
        match message {
            DumpMessage::Entries(id, entries) => {
                // An entry's record is in the ring before the entry is in the table: taken first,
                // it finds the flow unknown, and the dump then finds it known.
                self.drain_all()?;
                let now = self.clock.since_boot();
                let (_, mut intake) = self.intake();
                for entry in entries {
                    if intake.filter.allows_tuple(&entry.orig, entry.zone) {
                        intake.event(id, now, EventKind::Entry(EntrySource::Dump, Box::new(entry)));
                    }
                }
                Ok(())
            }
            DumpMessage::Done(id, result) => {
                // The end of an entry that the dump did not show any more is in the ring by now: taken
                // first, it finds the entry known.
                self.drain_all()?;
                self.on_dump_end(id, result)
            }
        }
    }

    fn on_dump_end(&mut self, id: NetnsId, result: Result<DumpStats>) -> Result<()> {
        self.dumping.remove(&id);
        // What a dump did not show that is not whole may be there all the same.
        let whole =
            result.as_ref().is_ok_and(|stats| stats.rejected == 0 && stats.interrupted == 0);
        self.event(id, EventKind::DumpEnded { whole });
        match result {
            Ok(stats) => {
                self.tally.dump_entries += stats.entries;
                self.tally.dump_rejected += stats.rejected;
                self.tally.dump_interrupted += stats.interrupted;
                if self.netns_watch.arriving.contains(&id) {
                    self.arrive(id);
                }
            }
            // Nothing is missed of what is gone.
            Err(_) if self.netns_watch.gone.contains(&id) => {}
            Err(error) if self.netns_watch.arriving.contains(&id) => {
                self.refuse(id, &error);
            }
            // Without a first dump the report misses every flow that was there before: for one namespace that is
            // a failure, among several it is the failure of one.
            Err(error) if self.dumped_once.contains(&id) || self.namespaces.len() > 1 => {
                self.tally.dump_failed += 1;
                log::warn!("{error:#}");
            }
            Err(error) => return Err(error),
        }
        self.dumped_once.insert(id);
        if self.wanted.as_mut().is_some_and(|wanted| wanted.dumped(id)) {
            self.start_dump(id);
            if let Some(wanted) = self.wanted.as_mut().filter(|_| self.dumping.contains(&id)) {
                wanted.waits_for(id);
            }
        }
        if self.dumping.is_empty() { self.fold_if_exact() } else { Ok(()) }
    }

    /// Lets the kernel fold and count once every flow up to now is known one by one. Records that
    /// were lost meanwhile would be in no count: another dump finds their flows first.
    fn fold_if_exact(&mut self) -> Result<()> {
        if self.folded_from.is_some()
            || !self.config.folds_at_once()
            || !self.backend.counts_in_kernel()
        {
            return Ok(());
        }
        let exact = self.backend.lost_flows(&self.tally)? == self.lost_answered;
        if !exact && self.tally.dumps < MAX_FIRST_DUMPS * self.namespaces.len() as u64 {
            self.tally.resyncs += 1;
            return self.dump_all();
        }
        self.backend.fold_from_now_on()?;
        self.event(NetnsId::default(), EventKind::KernelCounts);
        // Read after the switch: the programs count a flow before they look at the mode.
        self.folded_from = self.backend.counters()?.map(|c| c.get(Counter::NewFlows));
        Ok(())
    }

    /// Takes what the sources have now, up to a bound.
    fn drain(&mut self) -> Result<()> {
        self.relate_clocks();
        if let Some(recorder) = &mut self.recorder {
            recorder.tick();
        }
        let (backend, mut intake) = self.intake();
        backend.drain(&mut intake)?;
        self.print_drops(false);
        Ok(())
    }

    /// Takes everything that the sources have now.
    pub(super) fn drain_all(&mut self) -> Result<()> {
        self.relate_clocks();
        let (backend, mut intake) = self.intake();
        drain_all(|| backend.drain(&mut intake))?;
        self.print_drops(false);
        Ok(())
    }

    /// Takes the kernel's counts of dropped packets: all, or those of a map that is getting full.
    pub(super) fn take_drops(&mut self, all: bool) -> Result<()> {
        let (backend, mut intake) = self.intake();
        backend.take_drops(&mut intake, all)?;
        self.print_drops(false);
        Ok(())
    }

    /// The backend, and where it puts what it has.
    pub(super) fn intake(&mut self) -> (&mut Backend, Intake<'_>) {
        let Self { backend, table, tally, clock, config, interfaces, recorder, drops, .. } = self;
        let recorder = recorder.as_mut();
        let dropped = drops.as_mut().map(DropFollower::queue);
        let filter = &config.filter;
        (backend, Intake { table, tally, clock, filter, interfaces, recorder, dropped })
    }

    /// Something happens to a namespace that the flow table must know.
    pub(super) fn event(&mut self, id: NetnsId, kind: EventKind) {
        let now = self.clock.since_boot();
        self.intake().1.event(id, now, kind);
    }

    /// How the clocks are related. Before the flow table is told, a recording is: its first statements have times.
    pub(super) fn clocks(&self) -> TimeOfDay {
        if self.time_of_day == TimeOfDay::default() {
            self.clock.time_of_day()
        } else {
            self.time_of_day
        }
    }

    /// The time of day may have been set. Reading both clocks takes some time, which is no change.
    fn relate_clocks(&mut self) {
        let time_of_day = self.clock.time_of_day();
        if time_of_day.differs(self.time_of_day, CLOCK_CHANGES) {
            self.time_of_day = time_of_day;
            self.event(NetnsId::default(), EventKind::Clock(time_of_day));
        }
    }

    /// Interfaces have changed: what packets have told by now is of their old names.
    fn on_interfaces(&mut self) -> Result<()> {
        let renamed = self.interfaces.read();
        if !renamed.is_empty() {
            self.drain_all()?;
            self.take_drops(true)?;
            self.interfaces.apply(renamed);
        }
        Ok(())
    }

    /// Lost records of flows are answered with a dump: it finds every flow that is still in the kernel's table. So are
    /// packets that several flows fit, less often: it tells the entries that they are compared with.
    fn answer_losses(&mut self) -> Result<()> {
        let lost = self.backend.lost_flows(&self.tally)?;
        let since = self.last_resync.elapsed();
        if self.dumping.is_empty()
            && ((lost > self.lost_answered && since >= CHECK_EVERY)
                || (self.table.wants_dump() && since >= LOOK_CLOSER_EVERY))
        {
            self.last_resync = Instant::now();
            self.tally.resyncs += 1;
            self.dump_all()?;
        }
        Ok(())
    }

    fn status(&self) -> Result<Status> {
        Ok(Status {
            flows: self.table.len(),
            records: self.tally.records + self.tally.events,
            lost: self.backend.lost(&self.tally)?,
        })
    }

    fn assemble(&mut self) -> (Assembly, Option<anyhow::Error>) {
        assemble::assemble(self)
    }
}

#[cfg(test)]
mod tests;
