//! Records a run. Events become columns on the thread that takes them, which is little work; a thread of the recording
//! compresses the columns and writes them.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{
    EVENTS_PER_BLOCK,
    dictionary::Dictionaries,
    events::EventWriter,
    files::{PartFile, Target},
    head::BlockType,
    part::RawBlock,
    queue::{Missing, Queue, Work},
    statement::{Close, Counts, Gap, Header, Owners, Ruleset},
};
use crate::{
    model::{
        NetnsId,
        event::{EventKind, FlowEvent},
    },
    os::threads,
};

/// How long an event waits for others before it is written: with what the loop adds, no more than a second.
const FLUSH_AFTER: Duration = Duration::from_millis(800);

/// What was written is on the disk after this time.
const SYNC_AFTER: Duration = Duration::from_secs(5);

/// Counts are stated this often.
const COUNTS_EVERY: Duration = Duration::from_secs(10);

/// Sockets and control groups that a new part states again, at most: those that came last.
const MOST_OWNERS: usize = 65_536;

/// When a new part begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotate {
    /// When a part has so many bytes.
    Bytes(u64),
    /// This often.
    Time(Duration),
}

/// Where to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The file; with `rotate`, numbers are added to its name.
    pub path: PathBuf,
    /// When a new part begins; `None` for one file.
    pub rotate: Option<Rotate>,
    /// Bytes that all parts may have together: the oldest are removed.
    pub keep: Option<u64>,
}

/// What the writing thread tells.
#[derive(Debug, Default)]
struct Shared {
    /// The part is as long as it may be.
    full: AtomicBool,
    /// Events that could not be written.
    lost: AtomicU64,
    /// Bytes of the part.
    length: AtomicU64,
}

/// A running recording.
pub struct Recorder {
    options: Options,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    events: EventWriter,
    dictionaries: Dictionaries,
    /// Since when events wait.
    waiting: Option<Instant>,
    counted: Option<Instant>,
    part_began: Instant,
    /// A part has begun, and no dump of the tables since.
    wants_dump: bool,
    stated: Restated,
    /// Events that found no room in the queue.
    lost: u64,
}

/// What each part states, so that it stands alone.
#[derive(Debug, Default)]
struct Restated {
    header: Option<Header>,
    owners: Owners,
    rulesets: BTreeMap<u32, Ruleset>,
    /// Of events: those that say how the others are to be understood.
    clock: Option<FlowEvent>,
    kernel_counts: Option<FlowEvent>,
    unseen: BTreeMap<NetnsId, FlowEvent>,
}

impl Recorder {
    /// Makes the first part.
    ///
    /// # Errors
    /// The file is there already, or cannot be made; no thread can be had.
    pub fn create(options: Options) -> Result<Self> {
        let numbered = options.rotate.is_some();
        let target = Target { path: options.path.clone(), numbered, keep: options.keep };
        let (part, remark) = PartFile::create(target)?;
        let most = match options.rotate {
            Some(Rotate::Bytes(bytes)) => bytes,
            Some(Rotate::Time(_)) | None => u64::MAX,
        };
        let (queue, shared) = (Arc::new(Queue::default()), Arc::new(Shared::default()));
        let writing = Writing {
            queue: Arc::clone(&queue),
            shared: Arc::clone(&shared),
            part,
            most,
            missing: Missing::default(),
            broken: None,
            kept: VecDeque::new(),
        };
        let thread = threads::spawn("recording", move || writing.run())
            .context("a recording needs a thread")?;
        let recorder = Self {
            options,
            queue,
            shared,
            thread: Some(thread),
            events: EventWriter::new(),
            dictionaries: Dictionaries::default(),
            waiting: None,
            counted: None,
            part_began: Instant::now(),
            wants_dump: false,
            stated: Restated::default(),
            lost: 0,
        };
        if let Some(why) = remark {
            recorder.state(BlockType::Gap, &Gap { why, ..Gap::default() }, 0);
        }
        Ok(recorder)
    }

    /// Where it records.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Events that were not recorded.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost + self.shared.lost.load(Ordering::Relaxed)
    }

    /// Bytes of the part that is being written.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.shared.length.load(Ordering::Relaxed)
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// Records an event.
    pub fn event(&mut self, event: &FlowEvent) {
        match event.kind {
            EventKind::Clock(_) => self.stated.clock = Some(event.clone()),
            EventKind::KernelCounts => self.stated.kernel_counts = Some(event.clone()),
            EventKind::PacketsSeen(false) => {
                self.stated.unseen.insert(event.netns, event.clone());
            }
            EventKind::PacketsSeen(true) => {
                self.stated.unseen.remove(&event.netns);
            }
            _ => {}
        }
        self.add(event);
    }

    fn add(&mut self, event: &FlowEvent) {
        self.events.add(event, &mut self.dictionaries);
        if self.events.len() >= EVENTS_PER_BLOCK {
            self.flush();
            self.rotate();
        } else if self.waiting.is_none() {
            self.waiting = Some(Instant::now());
        }
    }

    /// Has events written that wait for long enough, and begins a new part if one is due. To be called often: events
    /// alone do it as well, but perhaps there are none.
    pub fn tick(&mut self) {
        if self.waiting.is_some_and(|since| since.elapsed() >= FLUSH_AFTER) {
            self.flush();
        }
        self.rotate();
    }

    /// Begins a new part if one is due.
    fn rotate(&mut self) {
        let due = match self.options.rotate {
            Some(Rotate::Bytes(_)) => self.shared.full.swap(false, Ordering::Relaxed),
            Some(Rotate::Time(time)) => self.part_began.elapsed() >= time,
            None => false,
        };
        if due {
            self.begin_part();
        }
    }

    /// Has all events written that wait.
    pub fn flush(&mut self) {
        self.waiting = None;
        if self.events.len() == 0 {
            return;
        }
        let times = self.events.times();
        if let Some(strings) = self.dictionaries.new_strings() {
            self.state(BlockType::Strings, &strings, times.0);
        }
        if let Some(paths) = self.dictionaries.new_paths() {
            self.state(BlockType::Paths, &paths, times.0);
        }
        let records = self.events.len() as u32;
        let columns = self.events.take();
        let block = RawBlock { kind: BlockType::Events, columns, records, times };
        self.lost += self.queue.add(Work::Block(block));
    }

    /// Begins a new part, which states again what it needs. Without numbers: a new file, if the old one was moved away.
    pub fn begin_part(&mut self) {
        self.flush();
        self.queue.add(Work::Part);
        self.dictionaries = Dictionaries::default();
        self.part_began = Instant::now();
        self.wants_dump = true;
        let Restated { header, owners, rulesets, clock, kernel_counts, unseen } = &self.stated;
        let statements = [
            header.as_ref().map(|header| RawBlock::statement(BlockType::Header, header, 0)),
            Some(RawBlock::statement(BlockType::Owners, owners, 0)),
        ];
        let rulesets = rulesets.values().map(RawBlock::ruleset);
        for block in statements.into_iter().flatten().chain(rulesets).flatten() {
            self.queue.add(Work::Block(block));
        }
        let events: Vec<FlowEvent> =
            clock.iter().chain(kernel_counts).chain(unseen.values()).cloned().collect();
        for event in &events {
            self.add(event);
        }
    }

    /// Whether the part that has begun needs a dump of conntrack's tables to stand alone; asked once.
    pub fn wants_dump(&mut self) -> bool {
        std::mem::take(&mut self.wants_dump)
    }

    /// States what is observed, if that has changed.
    pub fn header(&mut self, header: Header, at_ns: u64) {
        if self.stated.header.as_ref() != Some(&header) {
            // Events before it are of the time before it, but for the first one, which says how all are understood.
            if self.stated.header.is_some() {
                self.flush();
            }
            self.state(BlockType::Header, &header, at_ns);
            self.stated.header = Some(header);
        }
    }

    /// Whether counts are to be stated by now.
    #[must_use]
    pub fn wants_counts(&self) -> bool {
        self.counted.is_none_or(|last| last.elapsed() >= COUNTS_EVERY)
    }

    /// States counts, behind all events so far.
    pub fn counts(&mut self, counts: &Counts) {
        self.flush();
        self.counted = Some(Instant::now());
        self.state(BlockType::Counts, counts, counts.at_ns);
    }

    /// States owners that were not stated yet.
    pub fn owners(&mut self, owners: Owners, at_ns: u64) {
        if owners.is_empty() {
            return;
        }
        self.state(BlockType::Owners, &owners, at_ns);
        let all = &mut self.stated.owners;
        all.same_pids = owners.same_pids;
        all.users.extend(owners.users);
        all.sockets.extend(owners.sockets);
        all.cgroups.extend(owners.cgroups);
        let older = |length: usize| length.saturating_sub(MOST_OWNERS);
        all.sockets.drain(..older(all.sockets.len()));
        all.cgroups.drain(..older(all.cgroups.len()));
    }

    /// States the ruleset of an epoch.
    pub fn ruleset(&mut self, ruleset: Ruleset) {
        self.flush();
        self.add_block(BlockType::Ruleset, RawBlock::ruleset(&ruleset));
        self.stated.rulesets.insert(ruleset.netns, ruleset);
    }

    fn state(&self, kind: BlockType, what: &impl Serialize, at_ns: u64) {
        self.add_block(kind, RawBlock::statement(kind, what, at_ns));
    }

    fn add_block(&self, kind: BlockType, block: io::Result<RawBlock>) {
        match block {
            Ok(block) => {
                self.queue.add(Work::Block(block));
            }
            Err(error) => log::error!("a {kind:?} is not recorded: {error}"),
        }
    }

    /// Writes all that waits, and ends the recording.
    pub fn finish(mut self) {
        self.flush();
        self.end();
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.queue.add(Work::End);
            if thread.join().is_err() {
                log::error!("the thread that writes the recording has ended early");
            }
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.flush();
        self.end();
    }
}

/// The thread that writes.
struct Writing {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    part: PartFile,
    /// Bytes that a part may have.
    most: u64,
    /// Events that were not written.
    missing: Missing,
    /// Why nothing can be written now.
    broken: Option<String>,
    /// Blocks other than events that could not be written: later ones refer to them.
    kept: VecDeque<RawBlock>,
}

impl Writing {
    fn run(mut self) {
        let mut synced = Instant::now();
        loop {
            match self.queue.take(SYNC_AFTER) {
                Some((work, dropped)) => {
                    match work {
                        Work::Block(block) => self.block(block),
                        Work::Part => self.next_part(),
                        Work::End => break,
                    }
                    self.say_missing(&dropped, "the disk is too slow");
                }
                None => self.try_again(),
            }
            if synced.elapsed() >= SYNC_AFTER {
                self.part.sync();
                synced = Instant::now();
            }
        }
        self.try_again();
        self.close(true);
        self.part.sync();
    }

    fn block(&mut self, block: RawBlock) {
        self.try_again();
        if self.broken.is_none() {
            match self.part.write(&block) {
                Ok(()) => {
                    let length = self.part.length();
                    self.shared.length.store(length, Ordering::Relaxed);
                    if length >= self.most {
                        self.shared.full.store(true, Ordering::Relaxed);
                    }
                    return;
                }
                Err(error) => self.breaks(&error),
            }
        }
        if block.kind == BlockType::Events {
            self.shared.lost.fetch_add(block.records.into(), Ordering::Relaxed);
            self.missing.add(&block);
        } else {
            // Counts go up: the last ones say what the ones before did.
            self.kept.retain(|kept| kept.kind != BlockType::Counts || kept.kind != block.kind);
            self.kept.push_back(block);
        }
    }

    fn breaks(&mut self, error: &io::Error) {
        log::error!(
            "cannot write {}: {error}; what happens until it can be written is missing in it",
            self.part.path().display()
        );
        self.broken = Some(error.to_string());
    }

    /// If something could not be written before: perhaps it can now.
    fn try_again(&mut self) {
        let Some(why) = &self.broken else { return };
        let gap = self.missing.gap(why.clone());
        while let Some(block) = self.kept.front() {
            if self.part.write(block).is_err() {
                return;
            }
            self.kept.pop_front();
        }
        if let Some(gap) = gap {
            let block = RawBlock::statement(BlockType::Gap, &gap, gap.first_ns);
            if block.and_then(|block| self.part.write(&block)).is_err() {
                return;
            }
            self.missing = Missing::default();
            log::info!("{} can be written again", self.part.path().display());
        }
        self.broken = None;
    }

    fn next_part(&mut self) {
        self.try_again();
        self.close(false);
        if let Err(error) = self.part.next_part() {
            log::error!("{error:#}; going on in {}", self.part.path().display());
            // Not again for each block.
            self.most = self.most.saturating_mul(2);
        }
        self.shared.length.store(self.part.length(), Ordering::Relaxed);
        self.shared.full.store(false, Ordering::Relaxed);
    }

    fn close(&mut self, last: bool) {
        let block = RawBlock::statement(BlockType::Close, &Close { last }, 0);
        let written = block.and_then(|block| self.part.write(&block));
        if let Err(error) = written
            && self.broken.is_none()
        {
            self.breaks(&error);
        }
    }

    fn say_missing(&mut self, missing: &Missing, why: &str) {
        if let Some(gap) = missing.gap(why.to_owned())
            && let Ok(block) = RawBlock::statement(BlockType::Gap, &gap, gap.first_ns)
        {
            self.block(block);
        }
    }
}
