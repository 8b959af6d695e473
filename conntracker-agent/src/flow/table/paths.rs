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
        let key = self.key(netns, zone, orig);
        if from_conntrack {
            let flow = self.flows.entry(key).or_insert_with(|| Flow::new(key, at_ns));
            flow.seen_at(at_ns);
            flow.paths.add(traversal, 1);
            return;
        }
        let Some((found, direction)) = self.known_by_headers(key) else {
            let waiting = self.waiting.entry(key).or_insert_with(|| Waiting {
                paths: Paths::default(),
                first_ns: at_ns,
                last_ns: at_ns,
            });
            waiting.last_ns = at_ns;
            waiting.paths.add(traversal, 1);
            return;
        };
        if let Some(flow) = self.flows.get_mut(&found) {
            flow.seen_at(at_ns);
            flow.paths.add(&directed(traversal, direction), 1);
        }
    }

    /// The flow of a packet that is known by its headers, and the packet's direction.
    fn known_by_headers(&self, key: FlowKey) -> Option<(FlowKey, Direction)> {
        if self.flows.contains_key(&key) {
            return Some((key, Direction::Original));
        }
        self.replied_to(key).map(|found| (found, Direction::Reply))
    }

    /// Gives the ways that wait to their flows; those that find none become flows.
    pub fn settle_paths(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        // Where zones are in use, a flow of any zone will do if no other has the same addresses.
        let mut zoned: HashMap<FlowKey, Option<(FlowKey, Direction)>> = HashMap::new();
        let mut offer = |key: FlowKey, found: (FlowKey, Direction)| {
            zoned
                .entry(FlowKey { zone: 0, ..key })
                .and_modify(|known| *known = None)
                .or_insert(Some(found));
        };
        for (key, flow) in self.flows.iter().filter(|(key, _)| key.zone != 0) {
            offer(*key, (*key, Direction::Original));
            if let Some(reply) = flow.reply {
                let replies = self.key(key.netns, key.zone, reply);
                if replies != *key {
                    offer(replies, (*key, Direction::Reply));
                }
            }
        }
        for (key, Waiting { paths, first_ns, last_ns }) in std::mem::take(&mut self.waiting) {
            let found = self.known_by_headers(key).or_else(|| *zoned.get(&key)?);
            let (key, direction) = found.unwrap_or((key, Direction::Original));
            let flow = self.flows.entry(key).or_insert_with(|| Flow::new(key, first_ns));
            flow.seen_at(first_ns);
            flow.seen_at(last_ns);
            for (traversal, packets) in paths.shared() {
                flow.paths.add(&directed(traversal, direction), packets);
            }
        }
    }
}

/// The same way in a direction.
fn directed(traversal: &Arc<Traversal>, direction: Direction) -> Arc<Traversal> {
    if traversal.direction == direction {
        return Arc::clone(traversal);
    }
    Arc::new(Traversal { direction, ..Traversal::clone(traversal) })
}
