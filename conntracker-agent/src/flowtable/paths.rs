//! Where packets went: ways through hooks, merged into the flows they belong to.

use std::sync::Arc;

use super::{FlowKey, FlowTable, NetnsId};
use crate::model::{
    Tuple,
    path::{Direction, Outcome, Traversal},
};

/// One packet's way through a hook, and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct PacketPath<'a> {
    /// Conntrack zone; 0 if it is not known.
    pub zone: u16,
    /// Original direction of the entry, or the packet's headers.
    pub orig: Tuple,
    /// The packet had an entry.
    pub from_conntrack: bool,
    /// Input and output interface, 0 for none.
    pub interfaces: (u32, u32),
    /// Hash of the path, by which the kernel counts dropped packets.
    pub path_hash: u64,
    /// The way.
    pub traversal: &'a Arc<Traversal>,
}

impl FlowTable {
    /// Merges one packet's way through a hook.
    pub fn path(&mut self, netns: NetnsId, path: &PacketPath<'_>, at_ns: u64) {
        let PacketPath { zone, orig, from_conntrack, interfaces: (iif, oif), .. } = *path;
        let PacketPath { path_hash, traversal, .. } = *path;
        let key = if from_conntrack {
            self.key(netns, zone, orig)
        } else {
            FlowKey { netns, zone, orig, entry: false }
        };
        // Dropped packets are counted by the kernel, those of a path together.
        let dropped = traversal.outcome == Outcome::Dropped;
        if dropped {
            self.drops_take(key, path_hash, traversal);
        }
        let packets = u64::from(!dropped);
        if !from_conntrack {
            return self.by_headers(key, iif, at_ns, at_ns).add_path(traversal, packets);
        }
        let flow = self.flow(key, at_ns);
        flow.seen_at(at_ns);
        flow.paths.add(traversal, packets);
        // Of a flow that began in the trace its first packet tells both.
        if traversal.direction == Direction::Original && !flow.origins.packets {
            let (known_iif, known_oif) = flow.interfaces.unwrap_or_default();
            let either = |known, now| if known == 0 { now } else { known };
            let interfaces = (either(known_iif, iif), either(known_oif, oif));
            flow.interfaces = Some(interfaces).filter(|&interfaces| interfaces != (0, 0));
        }
    }
}

/// The same way in a direction.
pub(super) fn directed(traversal: &Arc<Traversal>, direction: Direction) -> Arc<Traversal> {
    if traversal.direction == direction {
        return Arc::clone(traversal);
    }
    Arc::new(Traversal { direction, ..Traversal::clone(traversal) })
}
