//! The loop that joins it all: sources in, one table, reports out.
//!
//! Order at the start: attach (or subscribe) first, then dump, so that no flow falls between. Until
//! the first dump of all namespaces is through, the kernel sends a record for each new flow; only
//! then does it fold (see [`crate::flow::table`] on who counts what).

pub(crate) mod assemble;
pub mod backend;
pub(crate) mod clock;
pub(crate) mod dumps;
mod events;
mod interfaces;
pub(crate) mod kernel;
mod newcomers;
pub mod notes;
mod owners;
pub(crate) use self::owners::program as program_of_socket;
mod packets;
pub mod rules;

use std::{collections::HashSet, future::Future, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use conntracker_common::counters::Counter;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at},
};

use crate::{
    flow::{FlowTable, NetnsId, filter::Filter, table::DumpId},
    kernel::{
        bpf::{object::Sizes, probes::Method},
        netns::Netns,
    },
    report::Report,
};
use backend::{Backend, BackendChoice};
use clock::Clock;
use dumps::DumpMessage;
use interfaces::Interfaces;
use newcomers::{Change, Newcomers};
use rules::RuleOptions;

/// How often the ring is drained when the kernel saw no reason for a wakeup.
const DRAIN_EVERY: Duration = Duration::from_millis(50);

/// How often losses are looked for, and at most how often they are answered with a dump.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// At most how often a dump is made because packets without an entry fit several flows.
const LOOK_CLOSER_EVERY: Duration = Duration::from_secs(10);

/// Dumps of a namespace at the start before the kernel folds although records are still being lost:
/// a flood that does not end must not keep it from folding, which is what helps against floods.
const MAX_FIRST_DUMPS: u64 = 10;

/// Which network namespaces to observe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NetnsChoice {
    /// The agent's own.
    #[default]
    Current,
    /// These.
    Named(Vec<String>),
    /// All that there are, also those that come later.
    All,
}

impl NetnsChoice {
    /// Opens them.
    pub fn open(&self) -> Result<Vec<Arc<Netns>>> {
        let opened = match self {
            Self::Current => vec![Netns::current()?],
            Self::Named(names) => {
                let mut seen = HashSet::new();
                let all: Vec<Netns> =
                    names.iter().map(|name| Netns::named(name)).collect::<Result<_>>()?;
                all.into_iter().filter(|netns| seen.insert(netns.inode)).collect()
            }
            Self::All => Netns::all()?,
        };
        Ok(opened.into_iter().map(Arc::new).collect())
    }
}

/// What to observe, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespaces.
    pub netns: NetnsChoice,
    /// Backend.
    pub backend: BackendChoice,
    /// How probes are attached; `None`: by fentry, and where that does not work by kprobes.
    pub attach: Option<Method>,
    /// Functions of the kernel that probes leave alone: alternatives are taken.
    pub avoid: Vec<String>,
    /// Which flows.
    pub filter: Filter,
    /// The filters as the user wrote them, for the report's header.
    pub filter_text: Vec<String>,
    /// Merge flows by their folded key.
    pub fold: bool,
    /// How to trace rules; `None` for flows only (`-c`).
    pub rules: Option<RuleOptions>,
    /// Tell packets, too, that get lost elsewhere in the kernel than in netfilter.
    pub lost: bool,
    /// Sizes of the kernel side.
    pub sizes: Sizes,
    /// Receive buffer of the event sockets in bytes.
    pub event_buffer: usize,
}

impl Config {
    /// Whether flows fold as they are seen, in the kernel and in the table: not if the filter asks
    /// for something that the folded key does not decide. They fold when the report is made then.
    fn folds_at_once(&self) -> bool {
        self.fold && self.filter.folded_key_decides()
    }
}

/// What the live status line shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Flows in the table.
    pub flows: usize,
    /// Records and events so far.
    pub records: u64,
    /// Records and events lost so far.
    pub lost: u64,
}

/// What the caller wants from a running observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Write a report and go on.
    Report,
    /// Write the last report and end.
    Finish,
}

/// What the observation gives to its caller.
pub trait Output {
    /// A report is due.
    fn report(&mut self, report: Report) -> Result<()>;
    /// Called about once a second.
    fn status(&mut self, status: Status);
}

/// A running observation.
pub struct Observer {
    config: Config,
    clock: Clock,
    start_ns: u64,
    namespaces: Vec<Arc<Netns>>,
    table: FlowTable,
    backend: Backend,
    backend_reason: backend::Reason,
    tally: Tally,
    dumps: mpsc::Receiver<DumpMessage>,
    dump_sender: mpsc::Sender<DumpMessage>,
    /// Namespaces with a dump under way.
    dumping: HashSet<NetnsId>,
    /// Namespaces whose first dump is through.
    dumped_once: HashSet<NetnsId>,
    /// The new flows that the kernel had seen when it began to fold and count; until then each new
    /// flow has a record of its own.
    folded_from: Option<u64>,
    /// Losses up to the start of the last dump.
    lost_answered: u64,
    last_resync: Instant,
    /// Changes of namespaces, if all are observed.
    changes: Option<mpsc::Receiver<Change>>,
    newcomers: Newcomers,
    interfaces: Interfaces,
    /// A report is wanted, and whether the dump it starts with has begun.
    wanted: Option<(Request, bool)>,
}

/// Counts of the agent's own side.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub records: u64,
    pub records_rejected: u64,
    pub records_foreign: u64,
    pub events: u64,
    pub events_rejected: u64,
    pub event_overruns: u64,
    pub dumps: u64,
    pub dump_entries: u64,
    pub dump_rejected: u64,
    pub dump_interrupted: u64,
    pub dump_failed: u64,
    pub resyncs: u64,
    /// Packets that the kernel had counted as dropped when its counts were taken last.
    pub drop_packets: u64,
    /// Packets that the kernel had counted as lost then.
    pub lost_packets: u64,
    /// Packets of these that were not lost: functions freed them that have no reason to give.
    pub not_lost: u64,
}

impl Observer {
    /// Attaches or subscribes, and starts the first dump.
    ///
    /// # Errors
    /// No backend works, or a namespace cannot be entered.
    pub fn start(config: Config) -> Result<Self> {
        let namespaces = config.netns.open()?;
        let (backend, backend_reason) = backend::start(&config, &namespaces)?;
        let table = FlowTable::new(config.folds_at_once());
        let clock = Clock::new()?;
        let changes = newcomers::watch(&config.netns, &namespaces);
        let (dump_sender, dumps) = mpsc::channel(dumps::CHANNEL);
        let mut observer = Self {
            start_ns: clock.now(),
            clock,
            config,
            namespaces,
            table,
            backend,
            backend_reason,
            tally: Tally::default(),
            dumps,
            dump_sender,
            dumping: HashSet::new(),
            dumped_once: HashSet::new(),
            folded_from: None,
            lost_answered: 0,
            last_resync: Instant::now(),
            changes,
            newcomers: Newcomers::default(),
            interfaces: Interfaces::default(),
            wanted: None,
        };
        for (id, netns) in (0..).map(NetnsId).zip(&observer.namespaces) {
            observer.interfaces.add(id, netns);
        }
        observer.dump_all()?;
        Ok(observer)
    }

    /// Name of the backend, and why it was chosen.
    #[must_use]
    pub(crate) fn backend(&self) -> (&'static str, &backend::Reason) {
        (self.backend.name(), &self.backend_reason)
    }

    /// What the user must know from the start.
    #[must_use]
    pub fn notes(&mut self) -> Vec<String> {
        let Self { config, backend, namespaces, .. } = self;
        notes::now(config, backend, namespaces, notes::Seen::default())
    }

    /// Observes until [`Request::Finish`] comes from `requests`, writes the last report, and detaches
    /// everything.
    pub async fn run<R, F>(mut self, mut requests: R, output: &mut dyn Output) -> Result<()>
    where
        R: FnMut() -> F,
        F: Future<Output = Request>,
    {
        let mut drain = interval_at(Instant::now() + DRAIN_EVERY, DRAIN_EVERY);
        let mut check = interval_at(Instant::now() + CHECK_EVERY, CHECK_EVERY);
        drain.set_missed_tick_behavior(MissedTickBehavior::Delay);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut request = Box::pin(requests());
        loop {
            tokio::select! {
                ready = self.backend.ready() => { ready?; self.drain()?; }
                _ = drain.tick() => {
                    self.backend.watch_rules()?;
                    self.drain()?;
                }
                Some(message) = self.dumps.recv() => self.on_dump(message)?,
                change = newcomers::next(&mut self.changes) => self.on_change(change)?,
                changed = self.interfaces.changed() => { changed?; self.on_interfaces()?; }
                _ = check.tick() => {
                    self.answer_losses()?;
                    self.take_drops(false)?;
                    output.status(self.status()?);
                }
                asked = &mut request, if !matches!(self.wanted, Some((Request::Finish, _))) => {
                    self.wanted = Some((asked, false));
                    request = Box::pin(requests());
                }
            }
            if self.dumping.is_empty()
                && let Some((wanted, dumped)) = self.wanted
            {
                if !dumped {
                    // A report starts with a dump: accounting and states of now. One that was under
                    // way will not do, it may have passed by what has changed since.
                    self.wanted = Some((wanted, true));
                    self.dump_all()?;
                    continue;
                }
                self.wanted = None;
                self.drain_all()?;
                self.take_drops(true)?;
                let report = self.assemble()?;
                let written = output.report(report);
                if wanted == Request::Finish {
                    return written;
                }
                // A full disk, say, may be empty again by the time of the next report.
                if let Err(error) = written {
                    log::error!("{error:#}; going on");
                }
            }
        }
    }

    fn dump_all(&mut self) -> Result<()> {
        self.lost_answered = self.backend.lost(&self.tally)?;
        for index in 0..self.namespaces.len() {
            self.start_dump(NetnsId(index as u32));
        }
        Ok(())
    }

    fn start_dump(&mut self, id: NetnsId) {
        if self.newcomers.gone.contains(&id) || !self.dumping.insert(id) {
            return;
        }
        let dump = self.table.begin_dump(id, self.clock.now());
        self.tally.dumps += 1;
        dumps::spawn(
            Arc::clone(&self.namespaces[id.0 as usize]),
            dump,
            id,
            dumps::lasting(&self.config.filter),
            self.dump_sender.clone(),
        );
    }

    fn on_dump(&mut self, message: DumpMessage) -> Result<()> {
        match message {
            DumpMessage::Entries(dump, entries) => {
                // An entry's record is in the ring before the entry is in the table: taken first,
                // it finds the flow unknown, and the dump then finds it known.
                self.drain_all()?;
                let now = self.clock.now();
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

    fn on_dump_end(
        &mut self,
        dump: DumpId,
        id: NetnsId,
        result: Result<crate::conntrack::DumpStats>,
    ) -> Result<()> {
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
                if self.newcomers.arriving.contains(&id) {
                    self.arrive(id);
                }
            }
            // Nothing is missed of what is gone.
            Err(_) if self.newcomers.gone.contains(&id) => self.table.give_up_dump(dump),
            Err(error) if self.dumped_once.contains(&id) => {
                self.tally.dump_failed += 1;
                self.table.give_up_dump(dump);
                log::warn!("{error:#}");
            }
            Err(error) if self.newcomers.arriving.remove(&id) => {
                self.table.give_up_dump(dump);
                let netns = Arc::clone(&self.namespaces[id.0 as usize]);
                self.refuse(&netns, &error);
            }
            // Without a first dump the report would miss every flow that was there before.
            Err(error) => return Err(error),
        }
        self.dumped_once.insert(id);
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
        let exact = self.backend.lost(&self.tally)? == self.lost_answered;
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
        let Self { backend, table, tally, clock, config, interfaces, .. } = self;
        backend.drain(&mut Intake { table, tally, clock, filter: &config.filter, interfaces })?;
        Ok(())
    }

    /// Takes everything that the sources have now.
    fn drain_all(&mut self) -> Result<()> {
        let Self { backend, table, tally, clock, config, interfaces, .. } = self;
        let mut intake = Intake { table, tally, clock, filter: &config.filter, interfaces };
        drain_all(|| backend.drain(&mut intake))
    }

    /// Takes the kernel's counts of dropped packets: all, or those of a map that is getting full.
    fn take_drops(&mut self, all: bool) -> Result<()> {
        let Self { backend, table, tally, clock, config, interfaces, .. } = self;
        backend.take_drops(
            &mut Intake { table, tally, clock, filter: &config.filter, interfaces },
            all,
        )
    }

    /// Interfaces have changed: what packets have told by now is of their old names.
    fn on_interfaces(&mut self) -> Result<()> {
        let renamed = self.interfaces.read().context("cannot watch interfaces")?;
        if !renamed.is_empty() {
            self.drain_all()?;
            self.take_drops(true)?;
            self.interfaces.apply(renamed);
        }
        Ok(())
    }

    /// Losses are answered with a dump: it finds every flow that is still in the kernel's table. So are
    /// packets that several flows fit, less often: it tells the entries that they are compared with.
    fn answer_losses(&mut self) -> Result<()> {
        let lost = self.backend.lost(&self.tally)?;
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

    fn assemble(&mut self) -> Result<Report> {
        assemble::assemble(self).context("cannot assemble the report")
    }
}

/// Takes batches until there is no more. Bounded: with packets arriving faster than they are read this would
/// never end.
fn drain_all(mut batch: impl FnMut() -> Result<bool>) -> Result<()> {
    for _ in 0..256 {
        if !batch()? {
            break;
        }
    }
    Ok(())
}

/// Where sources put what they have.
pub(crate) struct Intake<'a> {
    pub table: &'a mut FlowTable,
    pub tally: &'a mut Tally,
    pub clock: &'a Clock,
    pub filter: &'a Filter,
    pub interfaces: &'a mut Interfaces,
}
