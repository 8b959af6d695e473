//! The loop that joins it all: sources in, one table, reports out.
//!
//! Order at the start: attach (or subscribe) first, then dump, so that no flow falls between. Until
//! the first dump of all namespaces is through, the kernel sends a record for each new flow; only
//! then does it fold (see [`crate::flowtable`] on who counts what).

pub(crate) mod asked;
pub(crate) mod assemble;
pub mod drops;
mod netns_watch;
pub mod notes;
mod recorded;
mod reporter;
mod room;
mod run;
pub mod status;
mod wanted;

use std::{
    collections::{BTreeMap, HashSet},
    ops::ControlFlow,
    sync::Arc,
};

use anyhow::Result;
use tokio::{sync::mpsc, time::Instant};

pub use self::room::{max_flows, sizes};
use self::{
    drops::DropFollower,
    netns_watch::{Change, NetnsWatch},
    status::StatusBoard,
    wanted::Wanted,
};
use crate::{
    capture::{
        Config, Hurry, NetnsChoice, Tally,
        backend::{self, Backend},
        dumps::{self, DumpMessage},
        interfaces::Interfaces,
        statistics::Statistics,
        tracing::RuleTracer,
    },
    flowtable::FlowTable,
    model::{NetnsId, TimeOfDay},
    os::{clock::Clock, netns::Netns},
    recording::Recorder,
    report::Report,
};

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
    /// The same, in new files.
    Reopen,
    /// Write the last report and end.
    Finish,
}

/// What the observation gives to its caller.
pub trait Output: Send + 'static {
    /// A report is due, the `last` one or not. Whether there is any use in going on. Called on a thread of its own.
    fn report(&mut self, report: Report, last: bool) -> Result<ControlFlow<()>>;
    /// Called about once a second.
    fn status(&mut self, status: Status);
}

/// A running observation.
pub struct Observer {
    config: Config,
    clock: Clock,
    /// Nanoseconds since boot.
    start_ns: u64,
    namespaces: BTreeMap<NetnsId, Arc<Netns>>,
    /// That of the next one.
    next_id: NetnsId,
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
    /// Lost records of flows up to the start of the last dump.
    lost_answered: u64,
    last_resync: Instant,
    /// Changes of namespaces, if all are observed.
    changes: Option<mpsc::Receiver<Change>>,
    netns_watch: NetnsWatch,
    interfaces: Interfaces,
    /// Conntrack's counters of when namespaces began to be observed.
    statistics: Statistics,
    /// A report is wanted.
    wanted: Option<Wanted>,
    /// Why the observation ends early.
    broken: Option<String>,
    /// Prints dropped packets as they happen.
    drops: Option<DropFollower>,
    /// Where it says about once a second what is so.
    board: Option<Arc<StatusBoard>>,
    /// What is seen is recorded.
    recorder: Option<Recorder>,
    /// Number of interfaces whose names are recorded.
    interfaces_recorded: usize,
    /// When the kernel's counts of folded flows are to be recorded next.
    counts_due: Instant,
    /// How the clocks were related when the flow table was last told.
    time_of_day: TimeOfDay,
}

impl Observer {
    /// Attaches or subscribes, and starts the first dump.
    ///
    /// # Errors
    /// No backend works, a namespace cannot be entered that was asked for by its name, or the recording cannot be made.
    pub async fn start(config: Config, hurry: &Hurry) -> Result<Self> {
        // Before anything is attached: the file may be there already.
        let recorder = config.record.clone().map(Recorder::create).transpose()?;
        let (namespaces, refused) = config.netns.open_or_refuse()?;
        // What is wrong with one of all is no matter of the others: they come one by one.
        let first = if config.netns == NetnsChoice::All { 1 } else { namespaces.len() };
        let (first, others) = namespaces.split_at(first.min(namespaces.len()));
        let (backend, backend_reason) = backend::start(&config, first, hurry).await?;
        let table = FlowTable::new(config.folds_at_once(), config.max_flows);
        let clock = Clock::new()?;
        let (dump_sender, dumps) = mpsc::channel(dumps::CHANNEL);
        let mut observer = Self {
            start_ns: clock.since_boot(),
            clock,
            config,
            namespaces: BTreeMap::new(),
            next_id: NetnsId(0),
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
            changes: None,
            netns_watch: NetnsWatch::default(),
            interfaces: Interfaces::default(),
            statistics: Statistics::default(),
            wanted: None,
            broken: None,
            drops: None,
            board: None,
            recorder,
            interfaces_recorded: 0,
            counts_due: Instant::now(),
            time_of_day: TimeOfDay::default(),
        };
        if observer.recorder.is_some()
            && let Some(owners) = observer.backend.owners()
        {
            owners.record();
        }
        for netns in first {
            let id = observer.add(netns);
            observer.observes(id, netns);
        }
        for netns in others {
            let id = observer.add(netns);
            match observer.backend.observe(id, netns) {
                Ok(()) => observer.observes(id, netns),
                Err(error) => observer.refuse(id, &error),
            }
        }
        for why in refused {
            observer.netns_watch.refuse(why);
        }
        observer.backend.read_rules(hurry).await?;
        // Those that could not be observed are tried once more.
        let held = observer.namespaces.values().filter(|netns| netns.is_held());
        observer.changes = netns_watch::watch(&observer.config.netns, held)?;
        // First of all: it says how the events are to be understood.
        observer.record_statements()?;
        observer.dump_all()?;
        Ok(observer)
    }

    /// The backend observes a namespace from now on.
    fn observes(&mut self, id: NetnsId, netns: &Netns) {
        self.interfaces.add(id, netns);
        self.statistics.begin(id, netns);
    }

    /// One more namespace, not observed yet.
    fn add(&mut self, netns: &Arc<Netns>) -> NetnsId {
        let id = self.next_id;
        self.next_id = NetnsId(id.0 + 1);
        self.namespaces.insert(id, Arc::clone(netns));
        id
    }

    /// Name of the backend, and why it was chosen.
    #[must_use]
    pub(crate) fn backend(&self) -> (&'static str, &backend::Reason) {
        (self.backend.name(), &self.backend_reason)
    }

    /// Names that the filter asks for and that are not there now, a sentence for each.
    pub(crate) fn missing(&self) -> Vec<String> {
        let namespaces: Vec<&Netns> = self.namespaces.values().map(Arc::as_ref).collect();
        let rulesets = self.backend.rules().into_iter().flat_map(RuleTracer::rulesets);
        asked::missing(&self.config.filter, &namespaces, rulesets)
    }

    /// What the user must know from the start.
    #[must_use]
    pub fn notes(&mut self) -> Vec<String> {
        let Self { config, backend, namespaces, netns_watch, .. } = self;
        let mut notes = notes::now(config, backend, namespaces.values(), notes::Seen::default());
        notes.extend(netns_watch.notes());
        notes
    }
}
