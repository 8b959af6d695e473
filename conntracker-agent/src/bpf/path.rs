//! Ring records of packets' paths through hooks, decoded from bytes. Pure, without a kernel.

use bytes::Buf;
use conntracker_common::{
    conntrack::IPS_NAT,
    path::{
        DeviceName, KIND_PATH, MAX_EVENT_WORDS, MAX_MOVED, Marks, Moved, PATH_ANSWERED, PATH_NAT,
        PATH_NESTED, PATH_PROBED, PATH_TRUNCATED, PathHead, event,
    },
    plan::{SEGMENT_EARLY, hook_point},
    record::{FAMILY_V4, FAMILY_V6, Tuple4, Tuple6},
};

use super::record::{Common, RecordError, tuple};
use crate::model::{Tuple, Zone};

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
    /// Reply direction at the beginning, if it differed.
    pub reply_before: Option<Tuple>,
    /// Conntrack zone.
    pub zone: Zone,
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
    /// Input interface, as the hook functions got it.
    pub iif: Option<Device>,
    /// Interface of output.
    pub oif: Option<Device>,
    /// Number of the hook point ([`hook_point`]).
    pub hook_point: u32,
    /// Epoch of the ruleset.
    pub epoch: u32,
    /// Hash of the path; dropped packets are counted by it.
    pub path_hash: u64,
    /// It was dropped.
    pub dropped: bool,
    /// Links between base chains that it passed.
    pub gaps: u8,
    /// Others moved the same counters meanwhile.
    pub nested: bool,
    /// Not all counters that moved are named.
    pub truncated: bool,
    /// A rule of the hook sent a packet.
    pub answered: bool,
    /// Packet mark and connmark at each of those links.
    pub marks: Vec<(u32, u32)>,
    /// Counters that moved: slot, packets.
    pub moved: Vec<(u16, u16)>,
    /// Events from probes, in order; `None` from links, which see only counters.
    pub events: Option<Vec<Event>>,
}

/// An interface, with its name when the packet met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// Its index.
    pub index: u32,
    /// Its name, zeros behind it.
    pub name: [u8; IFNAMSIZ],
}

impl Device {
    fn new(index: u32, name: [u8; IFNAMSIZ]) -> Option<Self> {
        (index != 0).then_some(Self { index, name })
    }
}

/// Length of the name of an interface (include/uapi/linux/if.h).
pub const IFNAMSIZ: usize = size_of::<DeviceName>();

fn device_name(r: &mut &[u8]) -> [u8; IFNAMSIZ] {
    let mut name = [0; IFNAMSIZ];
    r.copy_to_slice(&mut name);
    name
}

/// An event that a probe saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The n-th base chain of the hook point begins.
    Enter(u32),
    /// It ends, its function having returned this.
    Leave(u32),
    /// The rule matched whose last expression, or an earlier one that gave a verdict, is at this address.
    Rule {
        /// The address.
        expression: u64,
        /// The verdict, if it is not written in the rule: `nft_verdict.code`, and the address of the chain that it
        /// leads to.
        verdict: Option<(i32, Option<u64>)>,
    },
    /// A target of ip_tables ran.
    Target {
        /// The address of its data.
        data: u64,
        /// The return value.
        result: u32,
    },
}

/// Decodes events from their numbers.
fn events(numbers: &[u64]) -> Result<Vec<Event>, RecordError> {
    let mut events = Vec::new();
    let mut numbers = numbers.iter().copied();
    while let Some(number) = numbers.next() {
        let value = number >> event::SHIFT;
        let address = number & !event::TAG;
        events.push(match number & event::TAG {
            event::RULE => Event::Rule { expression: address, verdict: None },
            event::ENTER => Event::Enter(value as u32),
            event::LEAVE => Event::Leave(value as u32),
            event::VERDICT => {
                let code = numbers.next().ok_or(RecordError::Event(number))? as u32;
                let code = code.cast_signed();
                let chain = match code {
                    event::NFT_JUMP | event::NFT_GOTO => {
                        Some(numbers.next().ok_or(RecordError::Event(number))?)
                    }
                    _ => None,
                };
                Event::Rule { expression: address, verdict: Some((code, chain)) }
            }
            event::TARGET => {
                let result = numbers.next().ok_or(RecordError::Event(number))? as u32;
                Event::Target { data: address, result }
            }
            _ => return Err(RecordError::Event(number)),
        });
    }
    Ok(events)
}

/// Whether bytes of the ring are such a record.
#[must_use]
pub fn is_path(bytes: &[u8]) -> bool {
    bytes.first() == Some(&KIND_PATH)
}

impl PathRecord {
    /// Decodes one record.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        const SHORTEST: usize = size_of::<PathHead>();
        if bytes.len() < SHORTEST {
            return Err(RecordError::Length { found: bytes.len(), expected: SHORTEST });
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
        let known = PATH_NAT | PATH_NESTED | PATH_TRUNCATED | PATH_PROBED | PATH_ANSWERED;
        if flags & !known != 0 {
            return Err(RecordError::Flags(flags));
        }
        let count = usize::from(r.get_u8());
        let event_words = usize::from(r.get_u8());
        let _reserved = r.get_u8();
        let [iif_name, oif_name] = [device_name(&mut r), device_name(&mut r)];
        let path_hash = r.get_u64_ne();
        let nat = flags & PATH_NAT != 0;
        let each = if v4 { size_of::<Tuple4>() } else { size_of::<Tuple6>() };
        let tuples = if nat { 3 } else { 2 };
        let expected = SHORTEST
            + event_words * size_of::<u32>()
            + count * size_of::<Moved>()
            + tuples * each
            + usize::from(gaps) * size_of::<Marks>();
        let fits = count <= MAX_MOVED && event_words <= MAX_EVENT_WORDS && event_words % 2 == 0;
        if bytes.len() != expected || !fits {
            return Err(RecordError::Length { found: bytes.len(), expected });
        }
        let numbers: Vec<u64> = (0..event_words / 2)
            .map(|_| u64::from(r.get_u32_ne()) | u64::from(r.get_u32_ne()) << 32)
            .collect();
        let events = if flags & PATH_PROBED != 0 { Some(events(&numbers)?) } else { None };
        let moved = (0..count).map(|_| (r.get_u16_ne(), r.get_u16_ne())).collect();
        let orig = tuple(&mut r, v4, common.proto);
        let (reply, _) = common.second(&mut r, v4);
        let mut next = || tuple(&mut r, v4, common.proto);
        let reply_before = match (nat, status & IPS_NAT != 0) {
            (false, _) => None,
            (true, before) => Some(next()).filter(|_| before).or_else(|| orig.inverted()),
        };
        let marks = (0..gaps).map(|_| (r.get_u32_ne(), r.get_u32_ne())).collect();
        Ok(Self {
            ktime_ns: common.ktime_ns,
            netns_cookie: common.netns_cookie,
            orig,
            reply,
            reply_before,
            zone: common.zone,
            fragment: common.fragment(),
            packet_mark: (packet_mark, common.packet_mark),
            ct_mark: (ct_mark, common.ct_mark),
            status,
            info,
            iif: Device::new(common.interfaces.0, iif_name),
            oif: Device::new(common.interfaces.1, oif_name),
            hook_point: hook_point(!v4, segment, hook),
            epoch,
            path_hash,
            dropped,
            gaps,
            marks,
            nested: flags & PATH_NESTED != 0,
            truncated: flags & PATH_TRUNCATED != 0,
            answered: flags & PATH_ANSWERED != 0,
            moved,
            events,
        })
    }
}

#[cfg(test)]
mod tests {
    use conntracker_common::{ABI_VERSION, record::FLAG_FROM_HEADERS};
    use proptest::prelude::*;

    use super::*;
    use crate::model::L4;

    /// Where the path's own part begins.
    const PATH: usize = 24 + 40;

    /// Length of the good record: two counters, three tuples, one pair of marks.
    const BYTES: usize = size_of::<PathHead>() + 2 * 4 + 3 * 12 + 8;

    fn name(text: &str) -> [u8; IFNAMSIZ] {
        let mut name = [0; IFNAMSIZ];
        name[..text.len()].copy_from_slice(text.as_bytes());
        name
    }

    /// A good IPv4 record with two counters, as the kernel lays it out.
    fn good() -> Vec<u8> {
        let mut b = vec![KIND_PATH, ABI_VERSION];
        b.extend((BYTES as u16).to_ne_bytes());
        b.extend(3u32.to_ne_bytes());
        b.extend(1_000u64.to_ne_bytes());
        b.extend(77u64.to_ne_bytes());
        for word in [0x10u32, 5, 6, 7, 0, 0] {
            b.extend(word.to_ne_bytes());
        }
        b.extend(0u64.to_ne_bytes());
        b.extend(12u16.to_ne_bytes());
        b.extend([3, 17, 2, 0, FAMILY_V4, 0]);
        for word in [4u32, 8, 9, 0] {
            b.extend(word.to_ne_bytes());
        }
        b.extend([2, 1, 0, 1, PATH_NAT | PATH_NESTED, 2, 0, 0]);
        b.extend(name("eth7"));
        b.extend([0; IFNAMSIZ]);
        b.extend(99u64.to_ne_bytes());
        for (slot, packets) in [(3u16, 1u16), (700, 2)] {
            b.extend(slot.to_ne_bytes());
            b.extend(packets.to_ne_bytes());
        }
        b.extend([10, 0, 0, 1, 10, 0, 0, 2, 0x9c, 0x40, 0, 53]);
        b.extend([10, 0, 0, 2, 192, 0, 2, 9, 0, 53, 0x9c, 0x40]);
        b.extend([10, 0, 0, 3, 192, 0, 2, 9, 0, 53, 0x9c, 0x40]);
        for mark in [21u32, 22] {
            b.extend(mark.to_ne_bytes());
        }
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
            PathRecord::decode(&good()).unwrap(),
            PathRecord {
                ktime_ns: 1_000,
                netns_cookie: 77,
                orig: tuple([10, 0, 0, 1], [10, 0, 0, 2], 40_000, 53),
                reply: Some(tuple([10, 0, 0, 2], [192, 0, 2, 9], 53, 40_000)),
                // Nothing was translated before, so it is the original direction inverted.
                reply_before: Some(tuple([10, 0, 0, 2], [10, 0, 0, 1], 53, 40_000)),
                zone: Zone(12),
                fragment: false,
                packet_mark: (8, 6),
                ct_mark: (9, 5),
                status: 0,
                info: 2,
                iif: Some(Device { index: 7, name: name("eth7") }),
                oif: None,
                hook_point: hook_point(false, 0, 2),
                epoch: 4,
                path_hash: 99,
                dropped: true,
                gaps: 1,
                marks: vec![(21, 22)],
                nested: true,
                truncated: false,
                answered: false,
                moved: vec![(3, 1), (700, 2)],
                events: None,
            }
        );
    }

    /// A record of probes with these numbers.
    fn probed(numbers: &[u64]) -> Vec<u8> {
        let mut bytes = good();
        let at = size_of::<PathHead>();
        let events: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
        bytes.splice(at..at, events);
        bytes[PATH + 20] |= PATH_PROBED;
        bytes[PATH + 22] = 2 * numbers.len() as u8;
        let len = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&len.to_ne_bytes());
        bytes
    }

    #[test]
    fn events_are_read_in_order() {
        const RULE: u64 = 0xffff_8881_0000_4010;
        const CHAIN: u64 = 0xffff_8881_0000_9000;
        let jump = u64::from(event::NFT_JUMP.cast_unsigned());
        let record = PathRecord::decode(&probed(&[
            event::ENTER | 3 << event::SHIFT,
            RULE,
            RULE | event::VERDICT,
            jump,
            CHAIN,
            RULE | event::VERDICT,
            0,
            RULE | event::TARGET,
            event::XT_CONTINUE.into(),
            event::LEAVE | 0x10002 << event::SHIFT,
        ]));
        let rule = |verdict| Event::Rule { expression: RULE, verdict };
        assert_eq!(
            record.unwrap().events.unwrap(),
            [
                Event::Enter(3),
                rule(None),
                rule(Some((event::NFT_JUMP, Some(CHAIN)))),
                rule(Some((0, None))),
                Event::Target { data: RULE, result: event::XT_CONTINUE },
                Event::Leave(0x10002),
            ]
        );
        for half in [
            &[RULE | event::VERDICT][..],
            &[RULE | event::VERDICT, jump],
            &[RULE | event::TARGET],
            &[7],
        ] {
            let error = PathRecord::decode(&probed(half)).unwrap_err();
            assert!(matches!(error, RecordError::Event(_)), "{error}");
        }
    }

    #[test]
    fn what_was_translated_before_has_its_own_reply() {
        let mut bytes = good();
        bytes[PATH + 12] = 0x20;
        let before = PathRecord::decode(&bytes).unwrap().reply_before.unwrap();
        assert_eq!(before.src.to_string(), "10.0.0.3");
    }

    #[test]
    fn a_packet_without_an_entry_has_no_reply() {
        let mut bytes = good();
        bytes[61] = FLAG_FROM_HEADERS;
        assert_eq!(PathRecord::decode(&bytes).unwrap().reply, None);
    }

    #[test]
    fn each_kind_of_damage_has_its_reason() {
        let with = |at: usize, value: u8| {
            let mut bytes = good();
            bytes[at] = value;
            PathRecord::decode(&bytes).unwrap_err()
        };
        assert_eq!(with(0, 1), RecordError::Kind(1));
        assert_eq!(with(60, 0xff), RecordError::Hook(0xff));
        assert_eq!(with(PATH + 18, 2), RecordError::Segment(2));
        assert_eq!(with(PATH + 20, 0x80), RecordError::Flags(0x80));
        let length = |expected| RecordError::Length { found: BYTES, expected };
        assert_eq!(with(PATH + 21, 3), length(BYTES + 4));
        assert_eq!(with(PATH + 20, 0), length(BYTES - 12));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn random_and_mutated_bytes_are_decoded_or_rejected_never_a_panic(
            random in prop::collection::vec(any::<u8>(), 0..300),
            flips in prop::collection::vec((0usize..BYTES, any::<u8>()), 1..6),
            len in 0usize..=BYTES,
        ) {
            let _ = PathRecord::decode(&random);
            let _ = PathRecord::decode(&probed(
                &random.chunks_exact(8).take(60).map(|mut number| number.get_u64_ne()).collect::<Vec<_>>(),
            ));
            let mut bytes = good();
            for (at, value) in flips {
                bytes[at] = value;
            }
            bytes.truncate(len);
            let decoded = PathRecord::decode(&bytes);
            prop_assert!(len == BYTES || decoded.is_err());
        }
    }
}
