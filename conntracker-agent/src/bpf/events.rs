//! Ring records and map entries as [`FlowEvent`](crate::model::event::FlowEvent)s.
//!
//! What records have in numbers that mean nothing without the running kernel (who dropped a packet, indexes of
//! interfaces) is looked up by the caller.

use conntracker_common::hook::POST_ROUTING;

use super::{
    counts::{DropCount, Seen},
    end::End,
    owner::Owner,
    record::{Dropped, Kind, Record},
};
use crate::model::{
    Cause, DropPoint, ZoneDir,
    event::{
        CountedFlows, DroppedEntry, DroppedPackets, EntryEnd, EntryPacket, EntryState, EventKind,
    },
    path::Direction,
    process::Process,
};

impl Record {
    /// What it tells. Of a dropped packet, `cause` says who dropped it; `number` gives the number of the interface that
    /// has an index. `None`: a record of an entry without an entry, which [`Record::decode`] gives of none.
    #[must_use]
    pub fn event(&self, cause: Cause, mut number: impl FnMut(u32) -> u32) -> Option<EventKind> {
        let &Self { zone, orig, packet_mark, counted, .. } = self;
        let interfaces = self.interfaces.map(|(input, output)| (number(input), number(output)));
        let state = self.reply.map(|reply| EntryState {
            reply,
            zone_dir: ZoneDir::from_kernel(self.zone_dir),
            status: self.status,
            mark: self.ct_mark,
            process: self.owner.map(|owner| Box::new(process(self, &owner))),
        });
        let packet = |entry| EntryPacket { zone, orig, entry, packet_mark, interfaces, counted };
        Some(match self.kind {
            Kind::New => EventKind::New(packet(state?)),
            Kind::Replied => EventKind::Replied(packet(state?)),
            Kind::Parent => EventKind::Related { zone, orig, parent: self.other? },
            Kind::Drop(Dropped { counted, path_hash, .. }) => {
                let (iif, oif) = interfaces.unwrap_or_default();
                let without = DroppedEntry::None { quotes: self.other };
                EventKind::Dropped(DroppedPackets {
                    zone,
                    orig,
                    entry: state.map_or(without, DroppedEntry::State),
                    point: DropPoint { cause, hook: cause.last_hook(self.hook), iif, oif },
                    path_hash,
                    packets: u64::from(!counted),
                    first_ns: self.ktime_ns,
                })
            }
        })
    }
}

/// The process that a record tells of. Of packets that go out it is the one that sends them.
fn process(record: &Record, owner: &Owner) -> Process {
    let out = record.hook == Some(POST_ROUTING);
    let original = (record.kind == Kind::New) == out;
    let comm = |comm: &[u8]| {
        let end = comm.iter().position(|&byte| byte == 0).unwrap_or(comm.len());
        String::from_utf8_lossy(&comm[..end]).into_owned()
    };
    Process {
        direction: if original { Direction::Original } else { Direction::Reply },
        uid: owner.uid,
        user: None,
        pid: owner.sender.map(|(pid, _)| pid),
        comm: owner.sender.map(|(_, name)| comm(&name)),
        cgroup_id: owner.cgroup,
        cgroup: None,
        inode: owner.inode,
    }
}

impl DropCount {
    /// The packets, of which `cause` says who dropped them; `number` gives the number of the interface that has an
    /// index. They were dropped until the last time in [`Self::seen_ns`].
    #[must_use]
    pub fn event(&self, cause: Cause, mut number: impl FnMut(u32) -> u32) -> EventKind {
        let (input, output) = self.interfaces;
        let (iif, oif) = (number(input), number(output));
        EventKind::Dropped(DroppedPackets {
            zone: self.zone,
            orig: self.orig,
            entry: if self.from_headers {
                DroppedEntry::None { quotes: None }
            } else {
                DroppedEntry::Tuple
            },
            point: DropPoint { cause, hook: cause.last_hook(self.hook), iif, oif },
            path_hash: self.path_hash,
            packets: self.packets,
            first_ns: self.seen_ns.0,
        })
    }
}

impl Seen {
    /// The count.
    #[must_use]
    pub fn flows(&self) -> CountedFlows {
        let &Self { zone, orig, counted, replied, .. } = self;
        CountedFlows { zone, orig, counted, replied }
    }
}

impl End {
    /// The end of the entry, whose time was over `overdue_ns` before it was seen.
    #[must_use]
    pub fn event(&self, overdue_ns: u64) -> EventKind {
        EventKind::Ended(EntryEnd {
            zone: self.zone,
            orig: self.orig,
            reply: self.reply,
            zone_dir: ZoneDir::from_kernel(self.zone_dir),
            status: self.status,
            mark: self.mark,
            confirmed: self.confirmed,
            counters: self.counters,
            start_ns: self.start_ns,
            stop_ns: self.ktime_ns.saturating_sub(overdue_ns),
            state: self.state,
        })
    }
}
