//! One run of a recording, fed to a flow table as the live run fed its own.

use std::{collections::BTreeMap, ops::RangeInclusive};

use anyhow::{Error, Result};

use super::{Run, background, epochs::EpochRulesets};
use crate::{
    flowtable::FlowTable,
    model::{
        NetnsId, TimeOfDay,
        event::{EventKind, FlowEvent},
        filter::Filter,
        loss::Loss,
        process::{ProcessNames, SocketHolder},
    },
    os::scratch,
    recording::{Damage, End, Item, PartHead, statement},
    report::{
        Footer, Header, Report, assembly::Assembly, html::Background, recorded, time,
        timeline::Timeline,
    },
};

/// Whether flows are folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Folding {
    /// As the live run did.
    #[default]
    AsRecorded,
    /// Yes.
    Fold,
    /// No.
    NoFold,
}

/// Room for flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// So many of them; the others are summed up.
    Flows(usize),
    /// So many of them in memory; the others are in temporary files.
    InMemory(usize),
}

/// Blocks of events that wait for the header, at most: it is lost if so many come before it.
const MOST_EARLY: usize = 64;

/// What a flow takes in memory, with everything that finds it: measured, and rounded up.
const BYTES_OF_FLOW: u64 = 8_192;

impl Default for Room {
    /// 256 MiB.
    fn default() -> Self {
        Self::within(256 << 20)
    }
}

impl Room {
    /// So many bytes of memory.
    #[must_use]
    pub fn within(bytes: u64) -> Self {
        Self::InMemory(usize::try_from(bytes / BYTES_OF_FLOW).unwrap_or(usize::MAX).max(1))
    }

    /// How many flows are kept in memory where they are sorted.
    pub(super) fn in_memory(self) -> usize {
        match self {
            Self::Flows(_) => usize::MAX,
            Self::InMemory(flows) => flows,
        }
    }
}

/// What of a recording is wanted.
pub(super) struct Wanted<'a> {
    /// Times of day, nanoseconds since the epoch.
    pub times: RangeInclusive<u64>,
    pub filter: &'a Filter,
    /// The filter as options of the command line.
    pub filter_text: &'a [String],
    /// Reads the filter of the live run.
    pub recorded_filter: &'a dyn Fn(&[String]) -> Result<Filter, String>,
    pub folding: Folding,
    pub room: Room,
    /// Also the timeline and the rulesets.
    pub background: bool,
    /// Also the ruleset of each epoch, as it was stated.
    pub epochs: bool,
    /// Whether the files may grow.
    pub end: End,
}

/// A run that is being read.
pub(super) struct Replay<'a> {
    wanted: &'a Wanted<'a>,
    recording: [u8; 16],
    /// Number of the part that is being read.
    part: u32,
    table: Option<FlowTable>,
    header: Option<statement::Header>,
    /// Events that came before the header, which says whether flows fold.
    early: Vec<Vec<FlowEvent>>,
    /// Counts at the beginning of the time that is asked for, and at its end.
    counts: (Option<statement::Counts>, Option<statement::Counts>),
    names: ProcessNames,
    time_of_day: TimeOfDay,
    /// The time that is asked for has begun, and has ended.
    begun: bool,
    over: bool,
    /// Time of day of the last event that was taken.
    last_ns: u64,
    /// Something was taken since the last report, and when that ended.
    added: bool,
    since_ns: Option<u64>,
    /// What a reader must know: gaps and damage.
    remarks: Vec<String>,
    events_lost: u64,
    blocks_lost: u64,
    timeline: Option<Timeline>,
    /// The last ruleset of each namespace.
    rulesets: BTreeMap<u32, statement::Ruleset>,
    /// Rulesets that a part states before it says what time it is.
    undated: Vec<statement::Ruleset>,
    /// The rulesets of epochs, if they are asked for.
    epochs: EpochRulesets,
}

impl<'a> Replay<'a> {
    /// A run whose first part that there is has this head.
    pub fn new(wanted: &'a Wanted<'a>, head: &PartHead) -> Self {
        let mut remarks = Vec::new();
        if head.number > 1 {
            remarks.push(format!(
                "the recording begins with part {}, of {}: earlier parts are not here",
                head.number,
                time(head.made_ns)
            ));
        }
        Self {
            wanted,
            recording: head.recording,
            part: head.number,
            table: None,
            header: None,
            early: Vec::new(),
            counts: (None, None),
            names: ProcessNames::default(),
            time_of_day: TimeOfDay::default(),
            begun: *wanted.times.start() == 0,
            over: false,
            last_ns: 0,
            added: false,
            since_ns: None,
            remarks,
            events_lost: 0,
            blocks_lost: 0,
            timeline: wanted.background.then(Timeline::default),
            rulesets: BTreeMap::new(),
            undated: Vec::new(),
            epochs: EpochRulesets::default(),
        }
    }

    /// A run whose head is lost.
    pub fn unknown(wanted: &'a Wanted<'a>) -> Self {
        Self::new(wanted, &PartHead { part: [0; 16], recording: [0; 16], number: 1, made_ns: 0 })
    }

    /// A part begins: whether it is of this run.
    pub fn part(&mut self, head: &PartHead) -> bool {
        if head.recording != self.recording {
            return false;
        }
        if head.number != self.part && head.number != self.part + 1 {
            let (first, last) = (self.part + 1, head.number.saturating_sub(1));
            let missing = if first < last {
                format!("parts {first} to {last} are")
            } else {
                format!("part {first} is")
            };
            self.remarks.push(format!("{missing} missing"));
        }
        self.part = head.number;
        true
    }

    /// Takes what a file of this name has.
    ///
    /// # Errors
    /// A temporary file fails.
    pub fn take(&mut self, file: &str, item: Item) -> Result<()> {
        if let (Item::Ruleset(ruleset), true) = (&item, self.wanted.epochs) {
            self.epochs.add(ruleset);
        }
        match item {
            Item::Events(events) if self.header.is_none() && self.early.len() < MOST_EARLY => {
                self.early.push(events);
            }
            Item::Events(events) => {
                self.early_events()?;
                self.events(events)?;
            }
            Item::Header(header) => {
                if !self.over || self.header.is_none() {
                    self.header = Some(header);
                }
                self.early_events()?;
            }
            Item::Owners(owners) => self.owners(owners),
            Item::Counts(counts) => {
                let at_ns = recorded::time_of_day(&counts).of(counts.at_ns);
                if at_ns < *self.wanted.times.start() {
                    self.counts.0 = Some(counts);
                } else if at_ns <= *self.wanted.times.end() || self.counts.1.is_none() {
                    self.counts.1 = Some(counts);
                }
            }
            Item::Gap(gap) => self.gap(file, &gap),
            Item::Damage(damage) => self.damage(file, &damage),
            Item::Ruleset(ruleset) if self.time_of_day == TimeOfDay::default() => {
                self.undated.push(ruleset);
            }
            Item::Ruleset(ruleset) => self.ruleset(ruleset),
            Item::Part(_) | Item::Close(_) => {}
        }
        Ok(())
    }

    /// A part states again the ruleset that was there when it began.
    fn ruleset(&mut self, ruleset: statement::Ruleset) {
        let Some(timeline) = &mut self.timeline else { return };
        let at = self.time_of_day.of(ruleset.at_ns);
        let begun = at <= *self.wanted.times.end();
        if begun {
            timeline.epoch(NetnsId(ruleset.netns), ruleset.epoch, at);
        }
        if begun || !self.rulesets.contains_key(&ruleset.netns) {
            self.rulesets.insert(ruleset.netns, ruleset);
        }
    }

    /// A file of this name ends, without the end that its writer gives it.
    pub fn not_closed(&mut self, file: &str) {
        self.remarks.push(format!("{file} has no end: its writer was killed, or still writes"));
    }

    /// Takes the events that came before the header.
    fn early_events(&mut self) -> Result<()> {
        std::mem::take(&mut self.early).into_iter().try_for_each(|events| self.events(events))
    }

    fn events(&mut self, events: Vec<FlowEvent>) -> Result<()> {
        for event in events {
            if let EventKind::Clock(time_of_day) = event.kind {
                self.clock(time_of_day);
                for ruleset in std::mem::take(&mut self.undated) {
                    self.ruleset(ruleset);
                }
            }
            let at = self.time_of_day.of(event.at_ns);
            // What says how other events are to be understood has no time of its own.
            let timeless = matches!(
                event.kind,
                EventKind::Clock(_) | EventKind::KernelCounts | EventKind::PacketsSeen(_)
            );
            if at > *self.wanted.times.end() && !timeless {
                self.over = true;
                continue;
            }
            let table = match &mut self.table {
                Some(table) => table,
                None => self.table.insert(table(self.wanted, self.header.as_ref())?),
            };
            if !self.begun && !timeless && at >= *self.wanted.times.start() {
                self.begun = true;
                table.begin_anew();
            }
            if !timeless {
                self.last_ns = self.last_ns.max(at);
                self.added = true;
            }
            match &mut self.timeline {
                Some(timeline) if self.begun => {
                    background::take(table, event, timeline, self.time_of_day);
                }
                _ => table.take(event),
            }
        }
        let failed = self.table.as_ref().and_then(FlowTable::spill_error);
        failed.map_or(Ok(()), |error| Err(scratch::error(error)))
    }

    /// The clock may have been set.
    fn clock(&mut self, time_of_day: TimeOfDay) {
        const SET: u64 = 1_000_000_000;
        let before = std::mem::replace(&mut self.time_of_day, time_of_day);
        if before != TimeOfDay::default() && time_of_day.differs(before, SET) {
            let ((was_boot, was), (boot, is)) = (before.pair(), time_of_day.pair());
            let by = i128::from(is) - i128::from(boot) - (i128::from(was) - i128::from(was_boot));
            let direction = if by < 0 { "back" } else { "forward" };
            let seconds = by.unsigned_abs() / 1_000_000_000;
            self.remarks.push(format!(
                "the clock was set {direction} by {seconds} s: times before it are those of then"
            ));
        }
    }

    fn owners(&mut self, owners: statement::Owners) {
        let statement::Owners { same_pids, users, sockets, cgroups } = owners;
        let names = &mut self.names;
        names.same_pids |= same_pids;
        names.users.extend(users);
        let holders =
            sockets.into_iter().map(|(inode, pid, comm)| (inode, SocketHolder { pid, comm }));
        names.sockets.extend(holders);
        names.cgroups.extend(cgroups);
    }

    fn gap(&mut self, file: &str, gap: &statement::Gap) {
        let statement::Gap { records, first_ns, last_ns, why } = gap;
        self.events_lost += records;
        self.remarks.push(match records {
            0 => why.clone(),
            _ => format!(
                "{file} lacks {records} events from {} to {}: {why}",
                time(self.time_of_day.of(*first_ns)),
                time(self.time_of_day.of(*last_ns))
            ),
        });
    }

    fn damage(&mut self, file: &str, damage: &Damage) {
        let Damage { offset, bytes, blocks, records, between, what } = damage;
        self.blocks_lost += blocks.unwrap_or(1);
        self.events_lost += records;
        let size = match (bytes, records) {
            (0, 0) => String::new(),
            (0, records) => format!(" ({records} records)"),
            (bytes, _) => format!(" ({bytes} bytes)"),
        };
        let blocks = match blocks {
            Some(0) | None => String::new(),
            Some(1) => ", 1 block".to_owned(),
            Some(blocks) => format!(", {blocks} blocks"),
        };
        let time = |ns: &u64| time(self.time_of_day.of(*ns)).to_string();
        let when = match (between.0.as_ref().map(time), between.1.as_ref().map(time)) {
            (Some(from), Some(to)) => format!(", between {from} and {to}"),
            (Some(from), None) => format!(", after {from}"),
            (None, Some(to)) => format!(", before {to}"),
            (None, None) => String::new(),
        };
        let text = format!("{file}: {what} at offset {offset}{size}{blocks}{when}: left out");
        self.remarks.push(text);
    }

    /// The report of the run.
    ///
    /// # Errors
    /// A temporary file fails; the recording has a filter that cannot be read.
    pub fn finish(mut self) -> Result<Run> {
        self.early_events()?;
        let stated = self.undated.drain(..).chain(std::mem::take(&mut self.rulesets).into_values());
        let rulesets = background::rulesets(stated, &mut self.remarks);
        let background = Background { timeline: self.timeline.take(), rulesets };
        let table = match self.table.take() {
            Some(table) => table,
            None => table(self.wanted, self.header.as_ref())?,
        };
        let assembly = self.assembly(&table)?;
        let flows = table.into_flows().map(|flow| {
            let mut flow = flow?;
            if let Some(process) = flow.process.as_deref_mut() {
                self.names.complete(process);
            }
            Ok(flow)
        });
        let assembly = assembly.with_flows(flows);
        let report = assembly.sort(self.wanted.room.in_memory())?;
        Ok(Run { report, background, epochs: self.epochs })
    }

    /// The report of what was read since the last one, if anything was. For replays without temporary files.
    ///
    /// # Errors
    /// The recording has a filter that cannot be read.
    pub fn report(&mut self) -> Result<Option<Report>> {
        if !self.begun || !self.added {
            return Ok(None);
        }
        let Some(mut table) = self.table.take() else { return Ok(None) };
        let assembly = self.assembly(&table)?;
        let mut flows = table.snapshot();
        flows.processes().for_each(|process| self.names.complete(process));
        table.begin_anew();
        self.table = Some(table);
        self.added = false;
        self.counts.0.clone_from(&self.counts.1);
        self.remarks.clear();
        (self.blocks_lost, self.events_lost) = (0, 0);
        let report = assembly.with_flows(flows).finish()?;
        self.since_ns = Some(report.header.end_ns);
        Ok(Some(report))
    }

    /// The report, without its flows.
    fn assembly(&mut self, table: &FlowTable) -> Result<Assembly<()>> {
        let wanted = self.wanted;
        let whole = wanted.times == (0..=u64::MAX);
        let stated = self.header.clone().unwrap_or_else(|| {
            self.remarks.push("what was observed is not known: the header is lost".to_owned());
            statement::Header::default()
        });
        let recorded_filter = (wanted.recorded_filter)(&stated.filters).map_err(Error::msg)?;
        let end_ns = match &self.counts.1 {
            Some(counts) if whole => {
                recorded::time_of_day(counts).of(counts.at_ns).max(self.last_ns)
            }
            _ => self.last_ns,
        };
        let fold = !folds_at_once(wanted, &stated) && folds(wanted, &stated);
        let untold = stated.untold.clone();
        let without_rules = stated.without_rules.clone();
        let folded = folds(wanted, &stated);
        let mut header = Header::of_statement(stated, end_ns);
        header.folded = folded;
        header.filters.extend(wanted.filter_text.iter().cloned());
        header.start_ns = self.since_ns.unwrap_or(header.start_ns);
        let mut counted = self.counts.1.clone().unwrap_or_default();
        // The clocks as they were when the live run wrote its report.
        let time_of_day = if counted.at_ns > 0 && whole {
            recorded::time_of_day(&counted)
        } else {
            self.time_of_day
        };
        if let Some(before) = &self.counts.0 {
            subtract(&mut counted.sources, &before.sources);
            subtract(&mut counted.losses, &before.losses);
        }
        let (mut footer, unknown) = Footer::of_statement(counted, table.others().clone());
        footer.losses.extend(
            [
                Loss::RecordingDamaged.times(self.blocks_lost),
                Loss::RecordingGaps.times(self.events_lost),
            ]
            .into_iter()
            .filter(|loss| loss.count > 0),
        );
        for (loss, count) in [
            (Loss::FlowsEvicted, table.flows_evicted()),
            (Loss::EntriesForgotten, table.entries_forgotten()),
            (Loss::DropPathsForgotten, table.drop_paths_forgotten()),
        ] {
            if let Some(known) = footer.losses.iter_mut().find(|of| of.loss == loss) {
                known.count = count;
            }
        }
        header.notes.extend(self.remarks.iter().cloned());
        header.notes.extend(unknown);
        let coverage =
            Err(without_rules.unwrap_or_else(|| "a recording has no coverage".to_owned()));
        let report = Report { header, flows: (), footer, coverage, untold };
        let filters = vec![recorded_filter, wanted.filter.clone()];
        Ok(Assembly { report, flows: (), filters, fold, time_of_day })
    }
}

/// What was counted since.
fn subtract(counts: &mut [(String, u64)], before: &[(String, u64)]) {
    for (name, count) in counts {
        let earlier = before.iter().find(|(of, _)| of == name).map_or(0, |(_, count)| *count);
        *count = count.saturating_sub(earlier);
    }
}

/// Whether the report's flows are folded.
fn folds(wanted: &Wanted<'_>, header: &statement::Header) -> bool {
    match wanted.folding {
        Folding::AsRecorded => header.folded,
        Folding::Fold => true,
        Folding::NoFold => header.folded_at_once,
    }
}

/// Whether the flow table folds. What was folded as it was seen cannot be told apart any more.
fn folds_at_once(wanted: &Wanted<'_>, header: &statement::Header) -> bool {
    header.folded_at_once
        || (folds(wanted, header)
            && wanted.filter.folded_key_decides()
            && (wanted.recorded_filter)(&header.filters)
                .is_ok_and(|filter| filter.folded_key_decides()))
}

fn table(wanted: &Wanted<'_>, header: Option<&statement::Header>) -> Result<FlowTable> {
    let fold = header.is_some_and(|header| folds_at_once(wanted, header));
    Ok(match wanted.room {
        Room::Flows(most) => FlowTable::new(fold, most),
        Room::InMemory(flows) => {
            let mut table = FlowTable::new(fold, usize::MAX);
            table.spill_to(scratch::file()?, flows);
            table
        }
    })
}
