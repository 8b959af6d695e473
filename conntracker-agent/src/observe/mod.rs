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
mod hurry;
mod interfaces;
pub(crate) mod kernel;
mod newcomers;
pub mod notes;
mod owners;
pub(crate) use self::owners::program as program_of_socket;
mod packets;
pub mod rules;
mod run;
mod statistics;
mod wanted;

use std::{
    collections::{BTreeMap, HashSet},
    ops::ControlFlow,
    sync::Arc,
};

use anyhow::Result;
use tokio::{sync::mpsc, time::Instant};

pub use self::hurry::Hurry;
use crate::{
    asked,
    flow::{FlowTable, NetnsId, filter::Filter},
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
use rules::{RuleOptions, RuleTracer};
use statistics::Statistics;
use wanted::Wanted;

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
    /// Opens them. Says which of all are there but cannot be opened.
    pub fn open(&self) -> Result<Vec<Arc<Netns>>> {
        let (opened, refused) = self.open_or_refuse()?;
        for why in refused {
            log::warn!("a namespace is left out: {why}");
        }
        Ok(opened)
    }

    /// Opens them, and tells which of all are there but cannot be opened, and why.
    fn open_or_refuse(&self) -> Result<(Vec<Arc<Netns>>, Vec<String>)> {
        let mut refused = Vec::new();
        let opened = match self {
            Self::Current => vec![Netns::current()?],
            Self::Named(names) => {
                let mut seen = HashSet::new();
                let all: Vec<Netns> =
                    names.iter().map(|name| Netns::named(name)).collect::<Result<_>>()?;
                all.into_iter().filter(|netns| seen.insert(netns.inode)).collect()
            }
            Self::All => {
                let opened;
                (opened, refused) = Netns::all()?;
                opened
            }
        };
        Ok((opened.into_iter().map(Arc::new).collect(), refused))
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
    /// A report is due, the `last` one or not. Whether there is any use in going on.
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
    /// Losses up to the start of the last dump.
    lost_answered: u64,
    last_resync: Instant,
    /// Changes of namespaces, if all are observed.
    changes: Option<mpsc::Receiver<Change>>,
    newcomers: Newcomers,
    interfaces: Interfaces,
    /// Conntrack's counters of when namespaces began to be observed.
    statistics: Statistics,
    /// A report is wanted.
    wanted: Option<Wanted>,
    /// Why the observation ends early.
    broken: Option<String>,
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
    pub events_foreign: u64,
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
    /// No backend works, or a namespace cannot be entered that was asked for by its name.
    pub async fn start(config: Config, hurry: &Hurry) -> Result<Self> {
        let (namespaces, refused) = config.netns.open_or_refuse()?;
        // What is wrong with one of all is no matter of the others: they come one by one.
        let first = if config.netns == NetnsChoice::All { 1 } else { namespaces.len() };
        let (first, others) = namespaces.split_at(first.min(namespaces.len()));
        let (backend, backend_reason) = backend::start(&config, first, hurry).await?;
        let table = FlowTable::new(config.folds_at_once());
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
            newcomers: Newcomers::default(),
            interfaces: Interfaces::default(),
            statistics: Statistics::default(),
            wanted: None,
            broken: None,
        };
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
            observer.newcomers.refuse(why);
        }
        observer.backend.read_rules(hurry).await?;
        // Those that could not be observed are tried once more.
        let held = observer.namespaces.values().filter(|netns| netns.is_held());
        observer.changes = newcomers::watch(&observer.config.netns, held)?;
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
        let Self { config, backend, namespaces, newcomers, .. } = self;
        let mut notes = notes::now(config, backend, namespaces.values(), notes::Seen::default());
        notes.extend(newcomers.notes());
        notes
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
