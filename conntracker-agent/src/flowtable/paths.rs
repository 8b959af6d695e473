//! Paths of packets through hooks, merged into the flows that the packets are of.

use std::sync::Arc;

use super::FlowTable;
use crate::model::{
    FlowKey, NetnsId,
    event::PacketPath,
    path::{Direction, Outcome, Traversal},
};

impl FlowTable {
    /// Merges one packet's path through a hook.
    pub(super) fn path(&mut self, netns: NetnsId, path: &PacketPath, at_ns: u64) {
        let &PacketPath { zone, orig, has_entry, interfaces: (iif, oif), path_hash, .. } = path;
        let traversal = &path.traversal;
        let key = if has_entry {
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
        if !has_entry {
            return self.by_headers(key, iif, at_ns, at_ns).add_path(traversal, packets);
        }
        let flow = self.flow(key, at_ns);
        flow.seen_at(at_ns);
        flow.paths.get_or_insert_default().add(traversal, packets);
        // Of a flow that began in the trace its first packet tells both.
        if traversal.direction == Direction::Original && !flow.origins.packets {
            let (known_iif, known_oif) = flow.interfaces.unwrap_or_default();
            let either = |known, now| if known == 0 { now } else { known };
            let interfaces = (either(known_iif, iif), either(known_oif, oif));
            flow.interfaces = Some(interfaces).filter(|&interfaces| interfaces != (0, 0));
        }
    }
}

/// The same path, of a packet in a direction.
pub(super) fn directed(traversal: &Arc<Traversal>, direction: Direction) -> Arc<Traversal> {
    if traversal.direction == direction {
        return Arc::clone(traversal);
    }
    Arc::new(Traversal { direction, ..Traversal::clone(traversal) })
}
