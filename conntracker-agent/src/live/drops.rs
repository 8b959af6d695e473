//! Dropped packets, printed as they happen (`--follow-drops`).
//!
//! A record tells of the first packet of a key (addresses, hook, interfaces, path), and the kernel's count, which is
//! taken each second, of all of them: what a record has told of is taken off. The path of a packet may come just after
//! its drop, so a drop waits for it for a short time; those behind it wait, too, and stay in order.

mod first;
mod rate;

use std::{collections::VecDeque, num::NonZeroU32, time::Duration};

use tokio::time::Instant;

use self::{first::Firsts, rate::Rate};
use super::Observer;
use crate::{
    capture::{DroppedEvent, DroppedQueue},
    model::event::DroppedEntry,
    report::drops::{DropLine, DropOutput},
};

/// How long a drop waits for its path.
const PATH_WITHIN: Duration = Duration::from_millis(200);

/// Drops that wait at most; others are not printed.
const MOST_WAITING: usize = 65_536;

/// Who prints drops. It must not wait.
pub trait DropPrinter: Send {
    /// Takes a line to print.
    fn print(&mut self, output: DropOutput) -> Printed;
    /// No more lines come. Waits until there is room for this one, if there is one.
    fn end(self: Box<Self>, last: Option<DropOutput>);
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Printed {
    /// It is, or will be, printed.
    Yes,
    /// There was no room for it.
    Full,
    /// Nobody reads any more.
    Closed,
}

/// Drops on their way to who prints them.
pub struct DropFollower {
    queue: DroppedQueue,
    waiting: VecDeque<Waiting>,
    firsts: Firsts,
    rate: Rate,
    /// `None` when no more lines come.
    printer: Option<Box<dyn DropPrinter>>,
    /// Packets that no line tells of, and that no line has said so of.
    not_printed: u64,
    /// Packets that were not printed because there was no room for them.
    unprinted: u64,
    closed: bool,
}

/// Dropped packets that wait for their path.
struct Waiting {
    event: DroppedEvent,
    /// How many are told.
    packets: u64,
    until: Instant,
}

impl DropFollower {
    /// So many lines a second at most; `None` for no limit.
    #[must_use]
    pub fn new(printer: Box<dyn DropPrinter>, rate: Option<NonZeroU32>) -> Self {
        Self {
            queue: DroppedQueue::default(),
            waiting: VecDeque::new(),
            firsts: Firsts::default(),
            rate: Rate::new(rate),
            printer: Some(printer),
            not_printed: 0,
            unprinted: 0,
            closed: false,
        }
    }

    /// Where dropped packets go.
    pub(super) fn queue(&mut self) -> &mut DroppedQueue {
        &mut self.queue
    }

    /// Packets that were not printed because there was no room for them.
    pub(super) fn unprinted(&self) -> u64 {
        self.unprinted
    }

    /// Takes what is new.
    fn take(&mut self) {
        let (events, left_out) = self.queue.take();
        self.left_out(left_out);
        let until = Instant::now() + PATH_WITHIN;
        for event in events {
            let packets = self.firsts.untold(event.netns, &event.packets);
            if packets == 0 {
                continue;
            }
            if self.waiting.len() < MOST_WAITING {
                self.waiting.push_back(Waiting { event, packets, until });
            } else {
                self.left_out(packets);
            }
        }
    }

    fn left_out(&mut self, packets: u64) {
        self.not_printed += packets;
        self.unprinted += packets;
    }

    fn print(&mut self, line: DropLine) {
        let Some(printer) = &mut self.printer else { return };
        let packets = line.packets;
        if !self.rate.allows(Instant::now()) {
            self.not_printed += packets;
            return;
        }
        match printer.print(DropOutput::Drop(Box::new(line))) {
            Printed::Yes => {}
            Printed::Full => self.left_out(packets),
            Printed::Closed => self.closed = true,
        }
    }

    /// What the line says that packets were not printed.
    fn not_printed(&self, at_ns: u64) -> Option<DropOutput> {
        let packets = self.not_printed;
        (packets > 0).then_some(DropOutput::NotPrinted { at_ns, packets })
    }
}

impl Observer {
    /// Has dropped packets printed as they happen. False if this backend does not see them.
    pub fn follow_drops(&mut self, follower: DropFollower) -> bool {
        self.drops = Some(follower).filter(|_| self.backend.sees_drops());
        self.drops.is_some()
    }

    /// Prints what need not wait any longer, or `all`.
    pub(super) fn print_drops(&mut self, all: bool) {
        // The follower is apart while the rest is looked at.
        let Some(mut follower) = self.drops.take() else { return };
        follower.take();
        let now = Instant::now();
        while let Some(Waiting { event, until, .. }) = follower.waiting.front() {
            let waits = event.packets.path_hash != 0 && !all && now < *until;
            if waits && self.table.path_of_dropped(event.netns, &event.packets).is_none() {
                break;
            }
            if let Some(waiting) = follower.waiting.pop_front()
                && let Some(line) = self.drop_line(waiting)
            {
                follower.print(line);
            }
        }
        self.drops = Some(follower);
    }

    /// The line of dropped packets, if their flow is to be reported.
    fn drop_line(&mut self, Waiting { event, packets, .. }: Waiting) -> Option<DropLine> {
        let DroppedEvent { netns, at_ns, packets: drops } = event;
        let Self { table, config, interfaces, clock, backend, .. } = self;
        let path = table.path_of_dropped(netns, &drops).cloned();
        let name = |number| interfaces.name(netns, number).map(str::to_owned);
        if !config.filter.is_everything() {
            // In a report the packets count for their flow, with their path.
            let mut flow = table.flow_or_line_of_dropped(netns, &drops);
            let by = path.as_deref().and_then(|path| path.dropped_by());
            flow.drops.get_or_insert_default().add(drops.point, by, packets);
            if let Some(path) = &path {
                flow.paths.add(path, packets);
            }
            if !config.filter.allows(&flow, name) {
                return None;
            }
        }
        let own = match &drops.entry {
            DroppedEntry::State(state) => state.process.as_deref(),
            DroppedEntry::None { .. } | DroppedEntry::Tuple => None,
        };
        let process = own.or_else(|| table.process_of_dropped(netns, &drops));
        let mut process = process.cloned().map(Box::new);
        if let (Some(process), Some(owners)) = (&mut process, backend.owners()) {
            owners.names().complete(process);
        }
        let time_of_day = clock.time_of_day();
        Some(DropLine {
            at_ns: time_of_day.of(at_ns),
            first_ns: time_of_day.of(drops.first_ns),
            netns: self.namespaces.get(&netns).map(|of| of.name.clone()).unwrap_or_default(),
            several_namespaces: self.namespaces.len() > 1,
            zone: drops.zone,
            orig: drops.orig,
            // A record has the packet's own tuple, a count the folded one of its key.
            folded: config.folds_at_once()
                && drops.entry == DroppedEntry::Tuple
                && drops.orig.may_be_folded(),
            has_entry: drops.has_entry(),
            point: drops.point,
            iif: name(drops.point.iif),
            oif: name(drops.point.oif),
            path,
            process,
            packets,
        })
    }

    /// Says how many packets were not printed since it was said the last time. Called about once a second.
    pub(super) fn tell_unprinted_drops(&mut self) {
        let now_ns = self.clock.now();
        let Some(follower) = &mut self.drops else { return };
        if let (Some(output), Some(printer)) = (follower.not_printed(now_ns), &mut follower.printer)
        {
            match printer.print(output) {
                Printed::Yes => follower.not_printed = 0,
                // The next line says it.
                Printed::Full => {}
                Printed::Closed => follower.closed = true,
            }
        }
    }

    /// Whether nobody reads drops any more.
    pub(super) fn reader_of_drops_is_gone(&self) -> bool {
        self.drops.as_ref().is_some_and(|follower| follower.closed)
    }

    /// No more drops come: the last line says how many were not printed.
    pub(super) fn end_drops(&mut self) {
        let now_ns = self.clock.now();
        let Some(follower) = &mut self.drops else { return };
        let last = follower.not_printed(now_ns);
        if let Some(printer) = follower.printer.take() {
            printer.end(last);
        }
    }
}
