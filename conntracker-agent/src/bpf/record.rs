//! Ring records and map entries, decoded from bytes. Pure, without a kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Buf;
use conntracker_common::{
    ABI_VERSION,
    hook::HOOKS,
    owner::Owner as OwnerBytes,
    record::{
        FAMILY_V4, FAMILY_V6, FLAG_COUNTED, FLAG_FRAGMENT, FLAG_FROM_HEADERS, FLAG_INTERFACES,
        FLAG_OWNER, FlowRecord4, FlowRecord6, HOOK_UNKNOWN, KIND_DROP, KIND_LOST, KIND_NEW,
        KIND_PARENT, KIND_REPLIED,
    },
};

use super::{owner::Owner, reasons::RawCause};
use crate::model::{L4, Mark, Status, Tuple, Zone, flow::Counted};

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A new conntrack entry.
    New,
    /// The first packet of the reply direction.
    Replied,
    /// A packet that netfilter, or another part of the kernel, dropped.
    Drop(Dropped),
    /// A new flow that another one's helper expected: [`Record::other`].
    Parent,
}

/// One ring record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What happened.
    pub kind: Kind,
    /// When (nanoseconds since boot).
    pub ktime_ns: u64,
    /// Cookie of the network namespace.
    pub netns_cookie: u64,
    /// Original direction, or the dropped packet's headers.
    pub orig: Tuple,
    /// Reply direction; `None` if the packet had no conntrack entry.
    pub reply: Option<Tuple>,
    /// Another flow: the parent, or the one that an ICMP error without a conntrack entry quotes.
    pub other: Option<Tuple>,
    /// Conntrack status.
    pub status: Status,
    /// Connmark; `None` if the packet had no conntrack entry.
    pub ct_mark: Option<Mark>,
    /// Packet mark.
    pub packet_mark: Mark,
    /// Input and output interface, 0 for none; `None` if not known.
    pub interfaces: Option<(u32, u32)>,
    /// Conntrack zone.
    pub zone: Zone,
    /// `nf_conntrack_zone.dir`: 1 original, 2 reply, 3 both.
    pub zone_dir: u8,
    /// Netfilter hook number; `None` if not known.
    pub hook: Option<u8>,
    /// A later fragment, or a packet cut short: ports are zero.
    pub fragment: bool,
    /// The programs' count for the folded key; `None` if this record stands for one flow.
    pub counted: Option<Counted>,
    /// The owner of the packet's socket.
    pub owner: Option<Owner>,
}

/// Fields of a record that only dropped packets have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Whether it is counted in the map of drops, too.
    pub counted: bool,
    /// Hash of the path on which it was dropped; 0: it was not traced.
    pub path_hash: u64,
    /// The cause of the drop.
    pub cause: RawCause,
}

/// Why a record was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Shorter than a header, or of another length than its kind and family require.
    #[error("record of {found} bytes, expected {expected}")]
    Length {
        /// Bytes there.
        found: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// The length in the header is not the record's.
    #[error("record says it has {0} bytes, but has another length")]
    Mismatch(u16),
    /// Made by another version of the programs.
    #[error("record of ABI version {0}, expected {ABI_VERSION}")]
    Version(u8),
    /// Unknown kind.
    #[error("record of unknown kind {0}")]
    Kind(u8),
    /// Neither IPv4 nor IPv6.
    #[error("record of unknown address family {0}")]
    Family(u8),
    /// A flag that this build does not know.
    #[error("record with unknown flags {0:#x}")]
    Flags(u8),
    /// A netfilter hook that does not exist.
    #[error("record of unknown netfilter hook {0}")]
    Hook(u8),
    /// A segment of a hook that does not exist.
    #[error("record of unknown hook segment {0}")]
    Segment(u8),
    /// A conntrack entry that began or was replied to, but is not there.
    #[error("record of kind {0}, which tells of a conntrack entry, without one")]
    NoEntry(u8),
    /// A second flow in a record that cannot have one, or none in a record that must.
    #[error("record with a second tuple of protocol {0} that cannot be another flow's")]
    Other(u8),
    /// An event of unknown kind, or a truncated one.
    #[error("record with an event that says nothing: {0:#x}")]
    Event(u64),
}

const ALL_FLAGS: u8 =
    FLAG_COUNTED | FLAG_FRAGMENT | FLAG_FROM_HEADERS | FLAG_INTERFACES | FLAG_OWNER;

/// The next `N` bytes; the caller has checked the length.
pub(super) fn take<const N: usize>(r: &mut &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    r.copy_to_slice(&mut bytes);
    bytes
}

/// A tuple of a family.
pub(super) fn tuple(r: &mut &[u8], v4: bool, proto: u8) -> Tuple {
    let mut address = || {
        if v4 {
            IpAddr::V4(Ipv4Addr::from(take::<4>(r)))
        } else {
            IpAddr::V6(Ipv6Addr::from(take::<16>(r)))
        }
    };
    let (src, dst) = (address(), address());
    Tuple { src, dst, proto, l4: l4(r, proto) }
}

fn l4(r: &mut &[u8], proto: u8) -> L4 {
    let (src, dst) = (take(r), take(r));
    L4::from_kernel(proto, src, dst)
}

/// The beginning of every record: its header and `FlowBody`.
pub(super) struct Common {
    pub kind: u8,
    pub ktime_ns: u64,
    pub netns_cookie: u64,
    pub status: u32,
    pub ct_mark: u32,
    pub packet_mark: u32,
    pub interfaces: (u32, u32),
    pub count: u32,
    pub since_ns: u64,
    pub zone: Zone,
    pub zone_dir: u8,
    pub proto: u8,
    pub hook: Option<u8>,
    pub flags: u8,
    pub family: u8,
    pub other_proto: u8,
}

impl Common {
    /// Decodes it; the caller has checked the length of `r`. The record has `len` bytes.
    pub fn decode(r: &mut &[u8], len: usize) -> Result<Self, RecordError> {
        let kind = r.get_u8();
        let version = r.get_u8();
        if version != ABI_VERSION {
            return Err(RecordError::Version(version));
        }
        let said = r.get_u16_ne();
        if usize::from(said) != len {
            return Err(RecordError::Mismatch(said));
        }
        let _cpu = r.get_u32_ne();
        let ktime_ns = r.get_u64_ne();
        let netns_cookie = r.get_u64_ne();
        let status = r.get_u32_ne();
        let ct_mark = r.get_u32_ne();
        let packet_mark = r.get_u32_ne();
        let interfaces = (r.get_u32_ne(), r.get_u32_ne());
        let count = r.get_u32_ne();
        let since_ns = r.get_u64_ne();
        let zone = Zone(r.get_u16_ne());
        let zone_dir = r.get_u8();
        let proto = r.get_u8();
        let hook = match r.get_u8() {
            HOOK_UNKNOWN => None,
            hook if hook < HOOKS => Some(hook),
            other => return Err(RecordError::Hook(other)),
        };
        let flags = r.get_u8();
        if flags & !ALL_FLAGS != 0 {
            return Err(RecordError::Flags(flags));
        }
        let family = r.get_u8();
        let other_proto = r.get_u8();
        Ok(Self {
            kind,
            ktime_ns,
            netns_cookie,
            status,
            ct_mark,
            packet_mark,
            interfaces,
            count,
            since_ns,
            zone,
            zone_dir,
            proto,
            hook,
            flags,
            family,
            other_proto,
        })
    }

    pub fn has_entry(&self) -> bool {
        self.flags & FLAG_FROM_HEADERS == 0
    }

    pub fn fragment(&self) -> bool {
        self.flags & FLAG_FRAGMENT != 0
    }

    /// Decodes the second tuple: the reply direction, and another flow.
    pub fn second(&self, r: &mut &[u8], v4: bool) -> (Option<Tuple>, Option<Tuple>) {
        let proto = if self.other_proto == 0 { self.proto } else { self.other_proto };
        let second = Some(tuple(r, v4, proto));
        let is_other = self.other_proto != 0;
        (second.filter(|_| self.has_entry() && !is_other), second.filter(|_| is_other))
    }
}

impl Record {
    /// Decodes one record.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let shortest = size_of::<FlowRecord4>();
        if bytes.len() < shortest {
            return Err(RecordError::Length { found: bytes.len(), expected: shortest });
        }
        let mut r = bytes;
        let common = Common::decode(&mut r, bytes.len())?;
        let Common { flags, count, since_ns, .. } = common;
        let kind = match common.kind {
            KIND_NEW => Kind::New,
            KIND_REPLIED => Kind::Replied,
            KIND_DROP | KIND_LOST => {
                let lost = common.kind == KIND_LOST;
                let (path_hash, location) = if lost { (0, since_ns) } else { (since_ns, 0) };
                let cause = RawCause { lost, reason: count, location };
                Kind::Drop(Dropped { counted: flags & FLAG_COUNTED != 0, path_hash, cause })
            }
            KIND_PARENT => Kind::Parent,
            other => return Err(RecordError::Kind(other)),
        };
        if !common.has_entry() && matches!(kind, Kind::New | Kind::Replied) {
            return Err(RecordError::NoEntry(common.kind));
        }
        // Only records of expected entries, and of ICMP errors without an entry, have a second flow.
        let other = common.other_proto != 0;
        if common.has_entry() && other != (kind == Kind::Parent) || kind == Kind::Parent && !other {
            return Err(RecordError::Other(common.other_proto));
        }
        let has_owner = common.flags & FLAG_OWNER != 0;
        let behind = if has_owner { size_of::<OwnerBytes>() } else { 0 };
        let expected = behind
            + match common.family {
                FAMILY_V4 => size_of::<FlowRecord4>(),
                FAMILY_V6 => size_of::<FlowRecord6>(),
                other => return Err(RecordError::Family(other)),
            };
        if bytes.len() != expected {
            return Err(RecordError::Length { found: bytes.len(), expected });
        }
        let v4 = common.family == FAMILY_V4;
        let orig = tuple(&mut r, v4, common.proto);
        let (reply, other) = common.second(&mut r, v4);
        let owner = has_owner.then(|| Owner::decode(&mut r));
        let (from_conntrack, fragment) = (common.has_entry(), common.fragment());
        let Common { ktime_ns, netns_cookie, ct_mark, packet_mark, interfaces, .. } = common;
        let Common { zone, zone_dir, hook, .. } = common;
        let is_drop = matches!(kind, Kind::Drop(_));
        Ok(Self {
            kind,
            ktime_ns,
            netns_cookie,
            orig,
            reply,
            other,
            status: Status(common.status),
            ct_mark: from_conntrack.then_some(Mark(ct_mark)),
            packet_mark: Mark(packet_mark),
            interfaces: (flags & FLAG_INTERFACES != 0).then_some(interfaces),
            zone,
            zone_dir,
            hook,
            fragment,
            counted: (flags & FLAG_COUNTED != 0 && !is_drop)
                .then_some(Counted { since_ns, count: u64::from(count) }),
            owner,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A good IPv4 record, as the kernel lays it out.
    fn good() -> Vec<u8> {
        let mut b = vec![KIND_NEW, ABI_VERSION];
        b.extend((size_of::<FlowRecord4>() as u16).to_ne_bytes());
        b.extend(3u32.to_ne_bytes());
        b.extend(1_000u64.to_ne_bytes());
        b.extend(77u64.to_ne_bytes());
        for word in [8u32, 5, 6, 2, 3, 4] {
            b.extend(word.to_ne_bytes());
        }
        b.extend(900u64.to_ne_bytes());
        b.extend(12u16.to_ne_bytes());
        b.extend([3, 17, 4, FLAG_COUNTED | FLAG_INTERFACES, FAMILY_V4, 0]);
        b.extend([10, 0, 0, 1, 10, 0, 0, 2, 0x9c, 0x40, 0, 53]);
        b.extend([10, 0, 0, 2, 192, 0, 2, 9, 0, 53, 0x9c, 0x40]);
        b
    }

    #[test]
    fn every_field_of_a_record_is_read() {
        let tuple = |src: [u8; 4], dst: [u8; 4], sport, dport| Tuple {
            src: src.into(),
            dst: dst.into(),
            proto: 17,
            l4: L4::Ports { src: sport, dst: dport },
        };
        assert_eq!(
            Record::decode(&good()).unwrap(),
            Record {
                kind: Kind::New,
                ktime_ns: 1_000,
                netns_cookie: 77,
                orig: tuple([10, 0, 0, 1], [10, 0, 0, 2], 40_000, 53),
                reply: Some(tuple([10, 0, 0, 2], [192, 0, 2, 9], 53, 40_000)),
                other: None,
                status: Status(8),
                ct_mark: Some(Mark(5)),
                packet_mark: Mark(6),
                interfaces: Some((2, 3)),
                zone: Zone(12),
                zone_dir: 3,
                hook: Some(4),
                fragment: false,
                counted: Some(Counted { since_ns: 900, count: 4 }),
                owner: None,
            }
        );
        let mut dropped = good();
        dropped[0] = KIND_DROP;
        let Record { counted, kind, .. } = Record::decode(&dropped).unwrap();
        let cause = RawCause { lost: false, reason: 4, location: 0 };
        let drop = Kind::Drop(Dropped { counted: true, path_hash: 900, cause });
        assert_eq!((counted, kind), (None, drop));
    }

    /// [`good`], with an owner behind it.
    fn owned() -> Vec<u8> {
        let mut b = good();
        b[61] |= FLAG_OWNER;
        b.extend(4_242u64.to_ne_bytes());
        b.extend(31_337u64.to_ne_bytes());
        b.extend(1_000u32.to_ne_bytes());
        b.extend(812u32.to_ne_bytes());
        b.extend(*b"ssh\0\0\0\0\0\0\0\0\0\0\0\0\0");
        let len = (b.len() as u16).to_ne_bytes();
        b[2..4].copy_from_slice(&len);
        b
    }

    #[test]
    fn an_owner_may_follow_and_changes_nothing_else() {
        let record = Record::decode(&owned()).unwrap();
        let comm = *b"ssh\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let owner = Owner {
            uid: 1_000,
            cgroup: Some(4_242),
            inode: Some(31_337),
            sender: Some((812, comm)),
        };
        assert_eq!(record.owner, Some(owner));
        assert_eq!(Record { owner: None, ..record }, Record::decode(&good()).unwrap());
        let mut nobody = owned();
        nobody[88..].fill(0);
        let owner = Owner { uid: 0, cgroup: None, inode: None, sender: None };
        assert_eq!(Record::decode(&nobody).unwrap().owner, Some(owner));
        let mut cut = owned();
        cut.truncate(88);
        cut[2..4].copy_from_slice(&88u16.to_ne_bytes());
        assert_eq!(Record::decode(&cut), Err(RecordError::Length { found: 88, expected: 128 }));
    }

    #[test]
    fn each_kind_of_damage_has_its_reason() {
        let with = |at: usize, value: u8| {
            let mut bytes = good();
            bytes[at] = value;
            Record::decode(&bytes).unwrap_err()
        };
        assert_eq!(with(0, 9), RecordError::Kind(9));
        assert_eq!(with(1, 9), RecordError::Version(9));
        assert_eq!(with(2, 9), RecordError::Mismatch(9));
        assert_eq!(with(60, 7), RecordError::Hook(7));
        assert_eq!(with(61, 0x80), RecordError::Flags(0x80));
        assert_eq!(with(62, 3), RecordError::Family(3));
        assert_eq!(with(62, FAMILY_V6), RecordError::Length { found: 88, expected: 136 });
        assert_eq!(
            Record::decode(&good()[..30]),
            Err(RecordError::Length { found: 30, expected: 88 })
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn random_bytes_are_decoded_or_rejected_never_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = Record::decode(&bytes);
        }

        #[test]
        fn mutated_records_are_decoded_or_rejected_never_a_panic(
            flips in prop::collection::vec((0usize..88, any::<u8>()), 1..6),
            len in 0usize..=128,
            whole in any::<bool>(),
        ) {
            let mut bytes = owned();
            for (at, value) in flips {
                bytes[at] = value;
            }
            bytes.truncate(len);
            if whole && len >= 4 {
                bytes[2..4].copy_from_slice(&(len as u16).to_ne_bytes());
            }
            if len < 88 {
                prop_assert!(Record::decode(&bytes).is_err());
            } else {
                let _ = Record::decode(&bytes);
            }
        }
    }
}
