//! Events of dropped packets, kept until who follows drops has taken them.

use crate::model::{NetnsId, event::DroppedPackets};

/// Events that are kept at most: they are taken after each batch of records.
const MOST: usize = 65_536;

/// Dropped packets of a namespace, and when the last one was dropped (nanoseconds since boot).
#[derive(Clone, Debug)]
pub(crate) struct DroppedEvent {
    pub netns: NetnsId,
    pub at_ns: u64,
    pub packets: DroppedPackets,
}

/// Events that were not taken yet.
#[derive(Debug, Default)]
pub(crate) struct DroppedQueue {
    waiting: Vec<DroppedEvent>,
    /// Packets of events that found no room.
    left_out: u64,
}

impl DroppedQueue {
    /// Adds an event.
    pub fn push(&mut self, event: DroppedEvent) {
        if self.waiting.len() < MOST {
            self.waiting.push(event);
        } else {
            // Of packets that the kernel counts, the count follows.
            self.left_out += event.packets.packets;
        }
    }

    /// The events since the last call, and the packets of those that found no room.
    pub fn take(&mut self) -> (Vec<DroppedEvent>, u64) {
        (std::mem::take(&mut self.waiting), std::mem::take(&mut self.left_out))
    }
}
