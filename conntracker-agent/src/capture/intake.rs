//! Where sources put what they have, and what is counted of it.

use anyhow::Result;

use super::{
    dropped::{DroppedEvent, DroppedQueue},
    interfaces::Interfaces,
};
use crate::{
    flowtable::FlowTable,
    model::{
        NetnsId,
        event::{EventKind, FlowEvent},
        filter::Filter,
    },
    os::clock::Clock,
    recording::Recorder,
};

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

/// Takes batches until there is no more. Bounded: with packets arriving faster than they are read this would
/// never end.
pub(crate) fn drain_all(mut batch: impl FnMut() -> Result<bool>) -> Result<()> {
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
    pub recorder: Option<&'a mut Recorder>,
    /// Takes dropped packets, too, if somebody follows them.
    pub dropped: Option<&'a mut DroppedQueue>,
}

impl Intake<'_> {
    /// Something was seen in a namespace.
    pub fn event(&mut self, netns: NetnsId, at_ns: u64, kind: EventKind) {
        let event = FlowEvent { netns, at_ns, kind };
        if let Some(recorder) = &mut self.recorder {
            recorder.event(&event);
        }
        if let (Some(queue), EventKind::Dropped(packets)) = (&mut self.dropped, &event.kind) {
            queue.push(DroppedEvent { netns, at_ns, packets: packets.clone() });
        }
        self.table.take(event);
    }
}
