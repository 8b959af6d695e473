//! Ring records of packets' ways through hooks, decoded from bytes. Pure: no kernel needed.

use bytes::Buf;
use conntracker_common::{
    path::{
        IPS_NAT, KIND_PATH, MAX_MOVED, Moved, PATH_BYTES, PATH_NAT, PATH_NESTED, PATH_NOT_READ,
        PATH_TRUNCATED,
    },
    plan::{SEGMENT_EARLY, place},
    record::{FAMILY_V4, FAMILY_V6},
};

use super::record::{Common, RecordError, tuple_of};
use crate::flow::Tuple;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRecord {
    /// When (nanoseconds since boot).
    pub ktime_ns: u64,
    /// Cookie of the network namespace.
    pub netns_cookie: u64,
    /// Original direction, or the packet's headers.
    pub orig: Tuple,
    /// Reply direction at the end; `None` if the packet had no conntrack entry.
    pub reply: Option<Tuple>,
    /// Reply direction at the beginning, if it was another one.
    pub reply_before: Option<Tuple>,
    /// Conntrack zone.
    pub zone: u16,
    /// The packet was a fragment without a transport header.
    pub fragment: bool,
    /// Packet mark at the beginning and the end.
    pub packet_mark: (u32, u32),
    /// Connmark at the beginning and the end.
    pub ct_mark: (u32, u32),
    /// Conntrack status at the beginning.
    pub status: u32,
    /// `enum ip_conntrack_info`.
    pub info: u8,
    /// Number of the hook's place ([`place`]).
    pub place: u32,
    /// Epoch of the ruleset.
    pub epoch: u32,
    /// It was dropped.
    pub dropped: bool,
    /// Links between base chains that it passed.
    pub gaps: u8,
    /// Others moved the same counters meanwhile.
    pub nested: bool,
    /// Not all counters that moved are named.
    pub truncated: bool,
    /// No counters were read.
    pub not_read: bool,
    /// Counters that moved: slot, packets.
    pub moved: Vec<(u16, u16)>,
}

/// Whether bytes of the ring are such a record.
#[must_use]
pub fn is_path(bytes: &[u8]) -> bool {
    bytes.first() == Some(&KIND_PATH)
}

impl PathRecord {
    /// Decodes one record.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() < PATH_BYTES {
            return Err(RecordError::Length { found: bytes.len(), expected: PATH_BYTES });
        }
        let mut r = bytes;
        let common = Common::decode(&mut r, bytes.len())?;
        if common.kind != KIND_PATH {
            return Err(RecordError::Kind(common.kind));
        }
        let hook = common.hook.ok_or(RecordError::Hook(u8::MAX))?;
        let v4 = match common.family {
            FAMILY_V4 => true,
            FAMILY_V6 => false,
            other => return Err(RecordError::Family(other)),
        };
        let epoch = r.get_u32_ne();
        let packet_mark = r.get_u32_ne();
        let ct_mark = r.get_u32_ne();
        let status = r.get_u32_ne();
        let info = r.get_u8();
        let dropped = r.get_u8() != 0;
        let segment = r.get_u8();
        if segment > SEGMENT_EARLY {
            return Err(RecordError::Segment(segment));
        }
        let gaps = r.get_u8();
        let flags = r.get_u8();
        let known = PATH_NAT | PATH_NESTED | PATH_NOT_READ | PATH_TRUNCATED;
        if flags & !known != 0 {
            return Err(RecordError::Flags(flags));
        }
        let count = usize::from(r.get_u8());
        let _reserved = r.get_u16_ne();
        let expected = PATH_BYTES + count.min(MAX_MOVED) * size_of::<Moved>();
        if bytes.len() != expected || count > MAX_MOVED {
            return Err(RecordError::Length { found: bytes.len(), expected });
        }
        let mut tuple = || tuple_of(&mut r, v4, common.proto);
        let (orig, reply, before) = (tuple(), tuple(), tuple());
        let moved = (0..count).map(|_| (r.get_u16_ne(), r.get_u16_ne())).collect();
        Ok(Self {
            ktime_ns: common.ktime_ns,
            netns_cookie: common.netns_cookie,
            orig,
            reply: common.has_entry().then_some(reply),
            reply_before: match (flags & PATH_NAT != 0, status & IPS_NAT != 0) {
                (false, _) => None,
                (true, false) => orig.inverted(),
                (true, true) => Some(before),
            },
            zone: common.zone,
            fragment: common.fragment(),
            packet_mark: (packet_mark, common.packet_mark),
            ct_mark: (ct_mark, common.ct_mark),
            status,
            info,
            place: place(!v4, segment, hook),
            epoch,
            dropped,
            gaps,
            nested: flags & PATH_NESTED != 0,
            truncated: flags & PATH_TRUNCATED != 0,
            not_read: flags & PATH_NOT_READ != 0,
            moved,
        })
    }
}
