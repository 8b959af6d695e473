//! Packets without a conntrack entry, which are known by their headers alone: of which flow are they?
//!
//! Such a packet may be of either direction of a flow, its addresses may be translated, and the flow may have a
//! zone that no header tells. So its exact tuple is compared with the entries that are known, in both directions
//! and all zones; then, as entries are not known one by one where flows fold, with folded flows. Where several
//! flows fit, the packet waits: a dump may tell the entries. What no flow is found for when a report is made is a
//! line of its own there, of which the first packet seen is of the original direction.

use std::{collections::HashMap, sync::Arc};

use super::{FlowTable, line::Line, members::Member, store::Keyed};
use crate::model::{
    DropPoint, Drops, FlowKey, Origins, Paths, Tuple, Zone,
    path::{Direction, Traversal},
};

/// More tuples than this do not wait: a flood of packets that conntrack does not track. A report looks at each.
const MOST_WAITING: usize = 16_384;

/// Packets with equal headers that wait.
#[derive(Debug)]
pub(super) struct Waiting {
    paths: Option<Box<Paths>>,
    drops: Option<Box<Drops>>,
    /// Input interface, 0 for none.
    iif: u32,
    first_ns: u64,
    last_ns: u64,
    /// The flow that they quote: see [`crate::model::Flow::quotes`].
    quotes: Option<Tuple>,
    /// The kernel counts dropped packets with these headers.
    counting: bool,
}

/// What is known of some packets, in their flow or waiting for it.
pub(super) struct Gathered<'a> {
    paths: &'a mut Option<Box<Paths>>,
    drops: &'a mut Option<Box<Drops>>,
    origins: Option<&'a mut Origins>,
    /// Direction of the packets; `None`: their paths tell it, for they had an entry.
    direction: Option<Direction>,
}

impl Gathered<'_> {
    /// Adds packets that took a path.
    pub fn add_path(&mut self, path: &Arc<Traversal>, packets: u64) {
        let direction = self.direction.unwrap_or(path.direction);
        self.paths.get_or_insert_default().add(&super::paths::directed(path, direction), packets);
    }

    /// Adds dropped packets, which took a path if it is known.
    pub fn dropped(mut self, place: DropPoint, path: Option<&Arc<Traversal>>, packets: u64) {
        let by = path.and_then(|path| path.dropped_by());
        self.drops.get_or_insert_default().add(place, by, packets);
        if let Some(path) = path {
            self.add_path(path, packets);
        }
        if let Some(origins) = self.origins {
            origins.drops = true;
        }
    }
}

/// Flows that headers fit.
enum Found {
    None,
    One(FlowKey, Direction),
    Several,
}

impl FlowTable {
    /// Where packets with these headers (`entry` is false, the zone 0 if it is not known) are to be merged.
    pub(super) fn by_headers(
        &mut self,
        headers: FlowKey,
        iif: u32,
        first_ns: u64,
        last_ns: u64,
    ) -> Gathered<'_> {
        let found = match self.counting.get(&headers) {
            Some(&(key, direction)) => Found::One(key, direction),
            None if self.waiting.contains_key(&headers) => Found::None,
            None => self.find(headers, iif),
        };
        match found {
            Found::One(key, direction) => {
                return self.gathered(key, Some(direction), first_ns, last_ns);
            }
            Found::Several => self.wants_dump = true,
            Found::None => {}
        }
        if self.waiting.len() >= MOST_WAITING && !self.waiting.contains_key(&headers) {
            self.settle_waiting();
            if self.waiting.len() >= MOST_WAITING {
                self.wait_no_longer();
            }
        }
        let waiting = self.waiting.entry(headers).or_insert_with(|| Waiting {
            paths: None,
            drops: None,
            iif,
            first_ns,
            last_ns,
            quotes: None,
            counting: false,
        });
        waiting.first_ns = waiting.first_ns.min(first_ns);
        waiting.last_ns = waiting.last_ns.max(last_ns);
        if waiting.iif == 0 {
            waiting.iif = iif;
        }
        let Waiting { paths, drops, .. } = waiting;
        Gathered { paths, drops, origins: None, direction: Some(Direction::Original) }
    }

    /// What is known of packets in a flow.
    pub(super) fn gathered(
        &mut self,
        key: FlowKey,
        direction: Option<Direction>,
        first_ns: u64,
        last_ns: u64,
    ) -> Gathered<'_> {
        let flow = self.flow(key, first_ns);
        flow.seen_at(first_ns);
        flow.seen_at(last_ns);
        let Line { paths, drops, origins, .. } = flow;
        Gathered { paths, drops, origins: Some(origins), direction }
    }

    /// The kernel has begun to count dropped packets with these headers: of which flow they are may not be
    /// known any more when the counts are taken.
    pub(super) fn expect_drops(&mut self, headers: FlowKey, iif: u32, at_ns: u64) {
        if self.counting.contains_key(&headers) {
            return;
        }
        if let Found::One(key, direction) = self.find(headers, iif) {
            self.counting.insert(headers, (key, direction));
            return;
        }
        self.by_headers(headers, iif, at_ns, at_ns);
        if let Some(waiting) = self.waiting.get_mut(&headers) {
            waiting.counting = true;
        }
    }

    /// Remembers which flow ICMP errors with these headers quote.
    pub(super) fn quotes(&mut self, headers: FlowKey, quoted: Tuple) {
        if let Some(waiting) = self.waiting.get_mut(&headers) {
            waiting.quotes.get_or_insert(quoted);
        } else if let Some(flow) = self.flows.get_mut(&self.line_of(headers)) {
            flow.facts().quotes.get_or_insert(quoted);
        }
    }

    /// The kernel's counts of dropped packets were taken, and it begins anew.
    pub(super) fn drop_counts_taken(&mut self) {
        self.counting.clear();
        self.waiting.retain(|_, waiting| {
            waiting.counting = false;
            !waiting.is_empty()
        });
    }

    /// Several flows fit some packets, and a dump may tell which of them it is.
    #[must_use]
    pub fn wants_dump(&self) -> bool {
        self.wants_dump
    }

    /// The flow that the kernel's counts of packets with these headers go to, or that these headers fit.
    pub(super) fn flow_of_headers(&self, headers: FlowKey, iif: u32) -> Option<FlowKey> {
        let counting = self.counting.get(&headers).map(|&(key, _)| key);
        counting.or_else(|| match self.find(headers, iif) {
            Found::One(key, _) => Some(key),
            Found::None | Found::Several => None,
        })
    }

    /// The flow that headers fit.
    fn find(&self, headers: FlowKey, iif: u32) -> Found {
        let FlowKey { netns, zone: hint, orig, .. } = headers;
        let inverse = orig.inverted();
        let (mut exact, mut folded) = (Vec::new(), Vec::new());
        let mut many = false;
        let zones = self.zones.get(&netns).into_iter().flatten().copied();
        for zone in [Zone::DEFAULT]
            .into_iter()
            .chain(zones)
            .filter(|&zone| hint == Zone::DEFAULT || zone == hint)
        {
            let member = |orig| FlowKey { netns, zone, orig, entry: true };
            if self.members.contains(&member(orig)) {
                add(&mut exact, self.key(netns, zone, orig), Direction::Original);
            }
            if let Some(of) = self.members.replying(&member(orig)) {
                add(&mut exact, self.key(netns, zone, of), Direction::Reply);
            }
            let key = self.key(netns, zone, orig);
            if self.flows.contains(&key) {
                add(&mut folded, key, Direction::Original);
            }
            let Some(inverse) = inverse else { continue };
            if self.members.get(&member(inverse)).is_some_and(|member| member.reply().is_none()) {
                add(&mut exact, self.key(netns, zone, inverse), Direction::Reply);
            }
            let key = self.key(netns, zone, inverse);
            if self.flows.contains(&key) {
                add(&mut folded, key, Direction::Reply);
            }
            match self.flows.with_reply(key) {
                None => many = true,
                Some(flows) => {
                    for key in flows.into_iter().filter(|key| self.flows.contains(key)) {
                        add(&mut folded, key, Direction::Reply);
                    }
                }
            }
        }
        if exact.is_empty() && many {
            return Found::Several;
        }
        let found = if exact.is_empty() { &folded } else { &exact };
        match found[..] {
            [] => self.find_without_entry(headers, inverse),
            [(key, direction)] => Found::One(key, direction),
            _ => match *self.came_in_by(found, iif) {
                [(key, direction)] => Found::One(key, direction),
                _ => Found::Several,
            },
        }
    }

    /// The flow without an entry that headers fit.
    fn find_without_entry(&self, headers: FlowKey, inverse: Option<Tuple>) -> Found {
        let key = self.line_of(headers);
        if self.flows.contains(&key) {
            return Found::One(key, Direction::Original);
        }
        let Some(inverse) = inverse else { return Found::None };
        let key = self.line_of(FlowKey { orig: inverse, ..headers });
        if self.flows.contains(&key) { Found::One(key, Direction::Reply) } else { Found::None }
    }

    /// Those of several flows whose packets come in by an interface: two zones may have equal tuples, told apart
    /// by the interface alone.
    fn came_in_by(&self, flows: &[(FlowKey, Direction)], iif: u32) -> Vec<(FlowKey, Direction)> {
        let fits = |&&(key, direction): &&(FlowKey, Direction)| {
            let interfaces = self.flows.get(&key).and_then(|flow| flow.interfaces);
            interfaces.is_some_and(|(input, output)| match direction {
                Direction::Original => input == iif,
                Direction::Reply => output == iif,
            })
        };
        if iif == 0 { Vec::new() } else { flows.iter().filter(fits).copied().collect() }
    }

    /// The line that packets with these headers have if they are of no flow of conntrack.
    pub(super) fn line_of(&self, headers: FlowKey) -> FlowKey {
        let orig = if self.fold { headers.orig.folded() } else { headers.orig };
        FlowKey { orig, ..headers }
    }

    /// An entry is about to go: packets that wait for it are told.
    pub(super) fn settle_member(&mut self, key: &FlowKey) {
        if self.waiting.is_empty() {
            return;
        }
        let reply = self.members.get(key).and_then(Member::reply);
        let tuples = [Some(key.orig), reply.or_else(|| key.orig.inverted())];
        for orig in tuples.into_iter().flatten() {
            for zone in [Zone::DEFAULT, key.zone] {
                let headers = FlowKey { orig, zone, entry: false, ..*key };
                if self.waiting.contains_key(&headers) {
                    self.settle(headers);
                }
            }
        }
    }

    /// Gives packets that wait to their flows, as far as these are known now.
    pub(super) fn settle_waiting(&mut self) {
        // The paths of a flow stand in the order in which they were first seen.
        let mut all: Vec<(u64, FlowKey)> =
            self.waiting.iter().map(|(headers, waiting)| (waiting.first_ns, *headers)).collect();
        all.sort_unstable_by_key(|(first_ns, headers)| (*first_ns, headers.orig));
        for (_, headers) in all {
            self.settle(headers);
        }
    }

    fn settle(&mut self, headers: FlowKey) {
        let Some(waiting) = self.waiting.get(&headers) else { return };
        let Found::One(key, direction) = self.find(headers, waiting.iif) else { return };
        let Some(waiting) = self.waiting.remove(&headers) else { return };
        if waiting.counting {
            self.counting.insert(headers, (key, direction));
        }
        if let Some(flow) = self.flows.get_mut(&key) {
            waiting.merge_into(flow, direction);
        }
    }

    /// Lines of the packets of which no flow is known: they go on waiting.
    #[must_use]
    pub(super) fn lines_without_entry(&self) -> Vec<Line> {
        // The first packet seen is of the original direction.
        let mut waiting: Vec<(&FlowKey, &Waiting)> = self.waiting.iter().collect();
        waiting.sort_by_key(|(headers, waiting)| (waiting.first_ns, headers.orig));
        let mut lines: HashMap<FlowKey, Line> = HashMap::new();
        for (&headers, waiting) in waiting.into_iter().filter(|(_, waiting)| !waiting.is_empty()) {
            let key = self.line_of(headers);
            let inverse = headers.orig.inverted();
            let turned = inverse.map(|orig| self.line_of(FlowKey { orig, ..headers }));
            let (key, direction) = match turned {
                Some(turned) if !lines.contains_key(&key) && lines.contains_key(&turned) => {
                    (turned, Direction::Reply)
                }
                _ => (key, Direction::Original),
            };
            let line = lines.entry(key).or_insert_with(|| Line::new(key, waiting.first_ns));
            line.fits_several |= matches!(self.find(headers, waiting.iif), Found::Several);
            waiting.merge_into(line, direction);
        }
        lines.into_values().collect()
    }

    /// Those packets become lines now: there are too many to wait.
    fn wait_no_longer(&mut self) {
        for line in self.lines_without_entry() {
            self.flow(line.key(), line.first_ns).merge_without_entry(line);
        }
        self.waiting.clear();
    }
}

/// Adds a flow to those that fit, once.
fn add(flows: &mut Vec<(FlowKey, Direction)>, key: FlowKey, direction: Direction) {
    if !flows.iter().any(|&(known, _)| known == key) {
        flows.push((key, direction));
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.drops.is_none() && self.paths.is_none()
    }

    /// Adds everything to a flow, as packets of a direction.
    fn merge_into(&self, flow: &mut Line, direction: Direction) {
        if self.is_empty() {
            return;
        }
        flow.seen_at(self.first_ns);
        flow.seen_at(self.last_ns);
        if let Some(quoted) = self.quotes {
            flow.facts().quotes.get_or_insert(quoted);
        }
        for (traversal, packets) in self.paths.iter().flat_map(|paths| paths.shared()) {
            let directed = super::paths::directed(traversal, direction);
            flow.paths.get_or_insert_default().add(&directed, packets);
        }
        if let Some(drops) = &self.drops {
            flow.origins.drops = true;
            flow.drops.get_or_insert_default().merge(drops);
        }
        if direction == Direction::Original && flow.interfaces.is_none() && self.iif != 0 {
            flow.interfaces = Some((self.iif, 0));
        }
    }
}
