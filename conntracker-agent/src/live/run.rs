//! The loop: what each source has, as it comes, and reports when they are wanted.

use std::{future::Future, ops::ControlFlow, sync::Arc, time::Duration};

use anyhow::Result;
use conntracker_common::counters::Counter;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{
    Observer, Output, Request, Status,
    assemble::{self, Snapshot},
    netns_watch,
    reporter::Reporter,
    wanted::Wanted,
};
use crate::capture::{
    Intake, drain_all,
    dumps::{self, DumpMessage},
};
use crate::{conntrack::DumpStats, flowtable::DumpId, model::NetnsId};

/// How often the ring is drained when the kernel saw no reason for a wakeup.
const DRAIN_EVERY: Duration = Duration::from_millis(50);

/// How often losses are looked for, and at most how often they are answered with a dump.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// At most how often a dump is made because packets without an entry fit several flows.
const LOOK_CLOSER_EVERY: Duration = Duration::from_secs(10);

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
        loop {
            let finishes =
                self.wanted.as_ref().is_some_and(|wanted| wanted.request == Request::Finish);
            tokio::select! {
                ready = self.backend.ready() => { ready?; self.drain()?; }
                _ = drain.tick() => {
                    self.backend.watch_rules();
                    self.drain()?;
                }
                Some(message) = self.dumps.recv() => self.on_dump(message)?,
                change = netns_watch::next(&mut self.changes) => self.on_change(change)?,
                changed = self.interfaces.changed() => { changed?; self.on_interfaces()?; }
                _ = check.tick() => {
                    self.answer_losses()?;
                    self.take_drops(false)?;
                    self.forget_unused();
                    reporter.status(self.status()?);
                }
                asked = &mut request, if !finishes => {
                    self.ask(asked)?;
                    request = Box::pin(requests());
                }
                written = reporter.written() => match written {
                    Ok(ControlFlow::Break(())) => return Ok(Ok(())),
                    Ok(ControlFlow::Continue(())) => {}
                    // A full disk, say, may be empty again by the time of the next report.
                    Err(error) => log::error!("{error:#}; going on"),
                },
            }
            if reporter.is_idle()
                && let Some(wanted) = self.wanted.take_if(|wanted| wanted.is_due())
            {
                self.drain_all()?;
                self.take_drops(true)?;
                let (snapshot, incomplete) = self.assemble();
                let last = wanted.request == Request::Finish || incomplete.is_some();
                reporter.begin(snapshot, last);
                if last {
                    let written = reporter.written().await.map(|_| ());
                    return Ok(written.and(incomplete.map_or(Ok(()), Err)));
                }
            }
        }
    }

    /// A report is asked for.
    fn ask(&mut self, request: Request) -> Result<()> {
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
        let (snapshot, _) = self.assemble();
        reporter.begin(snapshot, true);
        if let Err(error) = reporter.written().await {
            log::error!("{error:#}");
        }
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
        let dump = self.table.begin_dump(id, self.clock.since_boot());
        self.tally.dumps += 1;
        let filter = dumps::lasting(&self.config.filter);
        let started = dumps::spawn(Arc::clone(netns), dump, id, filter, self.dump_sender.clone());
        if let Err(error) = started {
            let name = &netns.name;
            log::warn!("cannot dump the conntrack table of namespace `{name}`: {error}");
            self.tally.dump_failed += 1;
            self.table.give_up_dump(dump);
            self.dumping.remove(&id);
        }
    }

    fn on_dump(&mut self, message: DumpMessage) -> Result<()> {
        match message {
            DumpMessage::Entries(dump, entries) => {
                // An entry's record is in the ring before the entry is in the table: taken first,
                // it finds the flow unknown, and the dump then finds it known.
                self.drain_all()?;
                let now = self.clock.since_boot();
                for entry in entries {
                    if self.config.filter.allows_tuple(&entry.orig, entry.zone) {
                        self.table.dumped(dump, &entry, now);
                    }
                }
                Ok(())
            }
            DumpMessage::Done(dump, id, result) => {
                // The end of an entry that the dump did not show any more is in the ring by now: taken
                // first, it finds the entry known.
                self.drain_all()?;
                self.on_dump_end(dump, id, result)
            }
        }
    }

    fn on_dump_end(&mut self, dump: DumpId, id: NetnsId, result: Result<DumpStats>) -> Result<()> {
        self.dumping.remove(&id);
        match result {
            Ok(stats) => {
                self.tally.dump_entries += stats.entries;
                self.tally.dump_rejected += stats.rejected;
                self.tally.dump_interrupted += stats.interrupted;
                if stats.rejected == 0 && stats.interrupted == 0 {
                    self.table.end_dump(dump);
                } else {
                    // What it did not show may be there all the same.
                    self.table.give_up_dump(dump);
                }
                if self.netns_watch.arriving.contains(&id) {
                    self.arrive(id);
                }
            }
            // Nothing is missed of what is gone.
            Err(_) if self.netns_watch.gone.contains(&id) => self.table.give_up_dump(dump),
            Err(error) if self.netns_watch.arriving.contains(&id) => {
                self.table.give_up_dump(dump);
                self.refuse(id, &error);
            }
            // Without a first dump the report misses every flow that was there before: for one namespace that is
            // a failure, among several it is the failure of one.
            Err(error) if self.dumped_once.contains(&id) || self.namespaces.len() > 1 => {
                self.tally.dump_failed += 1;
                self.table.give_up_dump(dump);
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
        self.table.kernel_counts_from_now_on();
        // Read after the switch: the programs count a flow before they look at the mode.
        self.folded_from = self.backend.counters()?.map(|c| c.get(Counter::NewFlows));
        Ok(())
    }

    /// Takes what the sources have now, up to a bound.
    fn drain(&mut self) -> Result<()> {
        self.table.set_time_of_day(self.clock.time_of_day());
        let Self { backend, table, tally, clock, config, interfaces, .. } = self;
        backend.drain(&mut Intake { table, tally, clock, filter: &config.filter, interfaces })?;
        Ok(())
    }

    /// Takes everything that the sources have now.
    pub(super) fn drain_all(&mut self) -> Result<()> {
        self.table.set_time_of_day(self.clock.time_of_day());
        let Self { backend, table, tally, clock, config, interfaces, .. } = self;
        let mut intake = Intake { table, tally, clock, filter: &config.filter, interfaces };
        drain_all(|| backend.drain(&mut intake))
    }

    /// Takes the kernel's counts of dropped packets: all, or those of a map that is getting full.
    pub(super) fn take_drops(&mut self, all: bool) -> Result<()> {
        let Self { backend, table, tally, clock, config, interfaces, .. } = self;
        backend.take_drops(
            &mut Intake { table, tally, clock, filter: &config.filter, interfaces },
            all,
        )
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

    fn assemble(&mut self) -> (Snapshot, Option<anyhow::Error>) {
        assemble::assemble(self)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use anyhow::anyhow;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        bpf::object::Sizes,
        capture::{BackendChoice, Config, Hurry, NetnsChoice},
        model::filter::Filter,
        netlink::{
            ctnetlink::{ConntrackEntry, Entry},
            wire::{Message, Messages},
        },
        report::Report,
    };

    /// The notes of each report, and whether it was the last one.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<Notes>>>);

    type Notes = (Vec<String>, bool);

    impl Output for Kept {
        fn report(&mut self, report: Report, last: bool) -> Result<ControlFlow<()>> {
            self.0.lock().unwrap().push((report.header.notes, last));
            Ok(ControlFlow::Continue(()))
        }

        fn status(&mut self, _: Status) {}
    }

    /// An observer by netlink of the namespace that the test runs in, and what its dumps come by.
    async fn observer() -> (Observer, mpsc::Sender<DumpMessage>) {
        let config = Config {
            netns: NetnsChoice::Current,
            backend: BackendChoice::Netlink,
            attach: None,
            avoid: Vec::new(),
            filter: Filter::default(),
            filter_text: Vec::new(),
            fold: true,
            rules: None,
            lost: true,
            sizes: Sizes::default(),
            event_buffer: 1 << 20,
        };
        let mut observer = Observer::start(config, &Hurry::within(Duration::ZERO)).await.unwrap();
        let sender;
        (sender, observer.dumps) = mpsc::channel(8);
        (observer, sender)
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    #[test]
    fn what_is_known_is_written_before_a_failure_ends_it() {
        run(async {
            let (mut observer, dumps) = observer().await;
            let dump = observer.table.begin_dump(NetnsId(0), 0);
            let failed = DumpMessage::Done(dump, NetnsId(0), Err(anyhow!("the kernel is gone")));
            assert!(dumps.send(failed).await.is_ok());
            let kept = Kept::default();
            let ran = observer.run(std::future::pending, kept.clone()).await;
            let error = ran.err().unwrap();
            assert_eq!(error.to_string(), "the kernel is gone");
            let reports = kept.0.lock().unwrap();
            let [(notes, true)] = &reports[..] else { panic!("{reports:?}") };
            let note = "the trace ended early: the kernel is gone".to_owned();
            assert!(notes.contains(&note), "{notes:?}");
        });
    }

    /// Waits in its first report until somebody says that the loop has gone on.
    struct Slow(std::sync::mpsc::Receiver<()>, Vec<bool>);

    impl Output for Slow {
        fn report(&mut self, _: Report, last: bool) -> Result<ControlFlow<()>> {
            let went_on = last || self.0.recv_timeout(Duration::from_secs(20)).is_ok();
            self.1.push(went_on);
            Ok(ControlFlow::Continue(()))
        }

        fn status(&mut self, _: Status) {}
    }

    #[test]
    fn the_loop_goes_on_while_a_report_is_written() {
        run(async {
            let config = observer().await.0.config;
            let observer = Observer::start(config, &Hurry::within(Duration::ZERO)).await.unwrap();
            let (went_on, slow) = std::sync::mpsc::channel();
            let mut asked = 0;
            let requests = || {
                asked += 1;
                let (asked, went_on) = (asked, went_on.clone());
                async move {
                    if asked == 1 {
                        return Request::Report;
                    }
                    // By then the first report is being written.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    went_on.send(()).unwrap();
                    Request::Finish
                }
            };
            let Slow(_, reports) = observer.run(requests, Slow(slow, Vec::new())).await.unwrap();
            assert_eq!(reports, [true, true]);
        });
    }

    #[test]
    fn a_dump_that_is_not_whole_concludes_nothing() {
        let datagram = include_bytes!("../netlink/ctnetlink/fixtures/dump.bin");
        let entry = |message: Message<'_>| Some((&Entry::decode(message.payload).ok()?).into());
        let entries: Vec<ConntrackEntry> =
            Messages::new(datagram).flatten().filter_map(entry).collect();
        let counts = |observer: &Observer| -> u64 {
            observer.table.flows().map(|flow| flow.flows.total()).sum()
        };
        let dump = |observer: &mut Observer, entries: &[ConntrackEntry], stats: DumpStats| {
            let id = NetnsId(0);
            observer.dumping.insert(id);
            let dump = observer.table.begin_dump(id, observer.clock.since_boot());
            observer.on_dump(DumpMessage::Entries(dump, entries.to_vec())).unwrap();
            observer.on_dump(DumpMessage::Done(dump, id, Ok(stats))).unwrap();
        };
        run(async {
            let (mut observer, _dumps) = observer().await;
            let whole = DumpStats::default();
            dump(&mut observer, &entries, whole);
            let before = counts(&observer);
            assert!(before > 0);
            for stats in [DumpStats { rejected: 1, ..whole }, DumpStats { interrupted: 1, ..whole }]
            {
                dump(&mut observer, &[], stats);
                dump(&mut observer, &entries, whole);
                assert_eq!(counts(&observer), before, "{stats:?}");
            }
            // After one that is whole and shows nothing, entries like these are other flows.
            dump(&mut observer, &[], whole);
            dump(&mut observer, &entries, whole);
            assert_eq!(counts(&observer), 2 * before);
        });
    }

    #[test]
    fn of_several_namespaces_one_that_cannot_be_dumped_does_not_end_it() {
        run(async {
            let (mut observer, dumps) = observer().await;
            let other = observer.namespaces[&NetnsId(0)].clone();
            let id = observer.add(&other);
            let dump = observer.table.begin_dump(id, 0);
            let failed = DumpMessage::Done(dump, id, Err(anyhow!("that one is broken")));
            assert!(dumps.send(failed).await.is_ok());
            // The dump of the first one, which it began by itself.
            let first = observer.table.begin_dump(NetnsId(0), 0);
            let done = DumpMessage::Done(first, NetnsId(0), Ok(DumpStats::default()));
            assert!(dumps.send(done).await.is_ok());
            while let Ok(message) = observer.dumps.try_recv() {
                observer.on_dump(message).unwrap();
            }
            assert_eq!((observer.tally.dump_failed, observer.dumped_once.len()), (1, 2));
        });
    }
}
