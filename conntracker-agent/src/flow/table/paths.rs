//! Where packets went: ways through hooks, merged into the flows they belong to.
//!
//! A packet that conntrack has not seen yet, or never will, is known by its headers alone. It may be of
//! either direction, and the flow may have a zone that no header tells. Such ways wait until the flow is
//! known, or until a report is made: then they are flows of their own.

use std::{collections::HashMap, sync::Arc};

use super::{Flow, FlowKey, FlowTable, NetnsId};
use crate::flow::{
    Paths, Tuple,
    path::{Direction, Traversal},
};

/// More tuples than this do not wait: a flood of packets that conntrack does not track.
const MOST_WAITING: usize = 65_536;

/// Ways of packets of which no flow is known.
#[derive(Debug)]
pub(super) struct Waiting {
    paths: Paths,
    first_ns: u64,
    last_ns: u64,
}

impl FlowTable {
    /// Merges one packet's way through a hook.
    pub fn path(
        &mut self,
        netns: NetnsId,
        zone: u16,
        orig: Tuple,
        from_conntrack: bool,
        traversal: &Arc<Traversal>,
        at_ns: u64,
    ) {
        if from_conntrack {
            let key = self.key(netns, zone, orig);
            let flow = self.flows.entry(key).or_insert_with(|| Flow::new(key, at_ns));
            flow.seen_at(at_ns);
            flow.paths.add(traversal, 1);
            return;
        }
        // Unfolded: the port of a server that folds away tells whose reply this is.
        let headers = FlowKey { netns, zone, orig };
        let Some((found, direction)) = self.known_by_headers(headers) else {
            let waiting = self.waiting.entry(headers).or_insert_with(|| Waiting {
                paths: Paths::default(),
                first_ns: at_ns,
                last_ns: at_ns,
            });
            waiting.last_ns = at_ns;
            waiting.paths.add(traversal, 1);
            if self.waiting.len() > MOST_WAITING {
                self.settle_paths();
            }
            return;
        };
        if let Some(flow) = self.flows.get_mut(&found) {
            flow.seen_at(at_ns);
            flow.paths.add(&directed(traversal, direction), 1);
        }
    }

    /// The flow of a packet that is known by its headers, and the packet's direction.
    fn known_by_headers(&self, headers: FlowKey) -> Option<(FlowKey, Direction)> {
        let key = self.key(headers.netns, headers.zone, headers.orig);
        if self.flows.contains_key(&key) {
            return Some((key, Direction::Original));
        }
        self.replied_to(headers).map(|found| (found, Direction::Reply))
    }

    /// Gives the ways that wait to their flows; those that find none become flows.
    pub fn settle_paths(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let zoned = Zoned::new(self);
        for (headers, Waiting { paths, first_ns, last_ns }) in std::mem::take(&mut self.waiting) {
            let found = self.known_by_headers(headers).or_else(|| zoned.find(self, headers));
            let (key, direction) = found.unwrap_or_else(|| {
                (self.key(headers.netns, headers.zone, headers.orig), Direction::Original)
            });
            let flow = self.flows.entry(key).or_insert_with(|| Flow::new(key, first_ns));
            flow.seen_at(first_ns);
            flow.seen_at(last_ns);
            for (traversal, packets) in paths.shared() {
                flow.paths.add(&directed(traversal, direction), packets);
            }
        }
    }
}

/// Flows of zones other than 0, found without their zone. No header tells a zone: a flow of any zone will
/// do if no other has the same addresses.
struct Zoned {
    originals: HashMap<FlowKey, Option<FlowKey>>,
    /// As [`FlowTable::translated`].
    translated: HashMap<FlowKey, Option<FlowKey>>,
}

impl Zoned {
    fn new(table: &FlowTable) -> Self {
        let unique = |all: &mut dyn Iterator<Item = (FlowKey, FlowKey)>| {
            let mut found: HashMap<FlowKey, Option<FlowKey>> = HashMap::new();
            for (seen_as, flow) in all.filter(|(_, flow)| flow.zone != 0) {
                let key = FlowKey { zone: 0, ..seen_as };
                found.entry(key).and_modify(|known| *known = None).or_insert(Some(flow));
            }
            found
        };
        Self {
            originals: unique(&mut table.flows.keys().map(|key| (*key, *key))),
            translated: unique(&mut table.translated.iter().map(|(seen, flow)| (*seen, *flow))),
        }
    }

    fn find(&self, table: &FlowTable, headers: FlowKey) -> Option<(FlowKey, Direction)> {
        let Self { originals, translated } = self;
        let key = table.key(headers.netns, 0, headers.orig);
        if let Some(&Some(flow)) = originals.get(&key) {
            return Some((flow, Direction::Original));
        }
        let replied_to = table.key(headers.netns, 0, headers.orig.inverted()?);
        let flow = originals.get(&replied_to).or_else(|| translated.get(&replied_to));
        flow.copied().flatten().map(|flow| (flow, Direction::Reply))
    }
}

/// The same way in a direction.
fn directed(traversal: &Arc<Traversal>, direction: Direction) -> Arc<Traversal> {
    if traversal.direction == direction {
        return Arc::clone(traversal);
    }
    Arc::new(Traversal { direction, ..Traversal::clone(traversal) })
}
