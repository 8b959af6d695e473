//! Records of ends of flows, decoded from bytes, and the offsets that the programs need for them.

use bytes::Buf;
use conntracker_common::{
    IPPROTO_SCTP, IPPROTO_TCP,
    end::{
        END_COUNTERS, END_START, END_STATE, END_UNCONFIRMED, EndNumbers, EndRecord4, EndRecord6,
        KIND_END,
    },
    offsets::EndOffsets,
    probes::ABSENT,
    record::{FAMILY_V4, FAMILY_V6},
};

use super::{
    btf::{BtfError, KernelBtf},
    record::{Common, RecordError, tuple},
};
use crate::model::{Mark, Status, Tuple, Zone, counters::Counters, state::ProtoState};

/// Offsets and numbers that the programs need to report an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndLayout {
    /// Member offsets.
    pub offsets: EndOffsets,
    /// Further numbers that they need.
    pub numbers: EndNumbers,
}

impl EndLayout {
    /// None: ends are not reported.
    pub const NONE: Self = Self { offsets: EndOffsets::ZERO, numbers: EndNumbers::ZERO };

    /// Resolves it.
    pub fn resolve(btf: &KernelBtf) -> Result<Self, BtfError> {
        let numbers = EndNumbers {
            wanted: 1,
            ext_acct: btf.enumerator("NF_CT_EXT_ACCT")?,
            // Kernels can be built without these.
            ext_tstamp: btf.enumerator("NF_CT_EXT_TSTAMP").unwrap_or(ABSENT),
            sctp_state: btf.member_offset("nf_conn", "proto.sctp.state").unwrap_or(ABSENT),
        };
        Ok(Self {
            offsets: EndOffsets::from_array(&btf.member_offsets(EndOffsets::MEMBERS)?),
            numbers,
        })
    }
}

/// The end of a conntrack entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// When it was seen (nanoseconds since boot).
    pub ktime_ns: u64,
    /// Cookie of the network namespace.
    pub netns_cookie: u64,
    /// Original direction.
    pub orig: Tuple,
    /// Reply direction.
    pub reply: Tuple,
    /// Conntrack status.
    pub status: Status,
    /// Connmark.
    pub mark: Mark,
    /// Conntrack zone.
    pub zone: Zone,
    /// `nf_conntrack_zone.dir`: 1 original, 2 reply, 3 both.
    pub zone_dir: u8,
    /// Whether the entry was in the table; otherwise its first packet was lost before that.
    pub confirmed: bool,
    /// Accounting of the original and the reply direction, where it is on.
    pub counters: Option<[Counters; 2]>,
    /// When it was confirmed (nanoseconds since the epoch), where timestamps are on.
    pub start_ns: Option<u64>,
    /// Ticks of the kernel's clock since its timeout.
    pub overdue: u32,
    /// State of the protocol's tracker.
    pub state: Option<ProtoState>,
}

/// Whether a record is one of these.
#[must_use]
pub fn is_end(bytes: &[u8]) -> bool {
    bytes.first() == Some(&KIND_END)
}

const ALL_FLAGS: u8 = END_UNCONFIRMED | END_COUNTERS | END_START | END_STATE;

impl End {
    /// Decodes one record.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let shortest = size_of::<EndRecord4>();
        if bytes.len() < shortest {
            return Err(RecordError::Length { found: bytes.len(), expected: shortest });
        }
        let mut r = bytes;
        let common = Common::decode(&mut r, bytes.len())?;
        if common.kind != KIND_END {
            return Err(RecordError::Kind(common.kind));
        }
        let expected = match common.family {
            FAMILY_V4 => size_of::<EndRecord4>(),
            FAMILY_V6 => size_of::<EndRecord6>(),
            other => return Err(RecordError::Family(other)),
        };
        if bytes.len() != expected {
            return Err(RecordError::Length { found: bytes.len(), expected });
        }
        let packets = [r.get_u64_ne(), r.get_u64_ne()];
        let bytes = [r.get_u64_ne(), r.get_u64_ne()];
        let start_ns = r.get_u64_ne();
        let overdue = r.get_u32_ne();
        let state = r.get_u8();
        let flags = r.get_u8();
        if flags & !ALL_FLAGS != 0 {
            return Err(RecordError::Flags(flags));
        }
        let _reserved = r.get_u16_ne();
        let v4 = common.family == FAMILY_V4;
        let has = |flag| flags & flag != 0;
        let counters = |n: usize| Counters { packets: packets[n], bytes: bytes[n] };
        Ok(Self {
            ktime_ns: common.ktime_ns,
            netns_cookie: common.netns_cookie,
            orig: tuple(&mut r, v4, common.proto),
            reply: tuple(&mut r, v4, common.proto),
            status: Status(common.status),
            mark: Mark(common.ct_mark),
            zone: common.zone,
            zone_dir: common.zone_dir,
            confirmed: !has(END_UNCONFIRMED),
            counters: has(END_COUNTERS).then(|| [counters(0), counters(1)]),
            start_ns: has(END_START).then_some(start_ns),
            overdue,
            state: if has(END_STATE) { proto_state(common.proto, state) } else { None },
        })
    }
}

fn proto_state(proto: u8, state: u8) -> Option<ProtoState> {
    match proto {
        IPPROTO_TCP => Some(ProtoState::Tcp { state, wscale: [None; 2], flags: [None; 2] }),
        IPPROTO_SCTP => Some(ProtoState::Sctp { state, vtag: [None; 2] }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use conntracker_common::ABI_VERSION;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        bpf::btf::fixtures::{KERNELS, kernel},
        model::L4,
    };

    /// A good IPv4 record, as the kernel lays it out.
    fn good() -> Vec<u8> {
        let mut b = vec![KIND_END, ABI_VERSION];
        b.extend((size_of::<EndRecord4>() as u16).to_ne_bytes());
        b.extend(3u32.to_ne_bytes());
        b.extend(1_000u64.to_ne_bytes());
        b.extend(77u64.to_ne_bytes());
        for word in [0x8eu32, 5, 0, 0, 0, 0] {
            b.extend(word.to_ne_bytes());
        }
        b.extend(0u64.to_ne_bytes());
        b.extend(12u16.to_ne_bytes());
        b.extend([3, IPPROTO_TCP, 0xff, 0, FAMILY_V4, 0]);
        for number in [10u64, 8, 840, 9_000, 1_700] {
            b.extend(number.to_ne_bytes());
        }
        b.extend(25u32.to_ne_bytes());
        b.extend([7, END_COUNTERS | END_START | END_STATE, 0, 0]);
        b.extend([10, 0, 0, 1, 10, 0, 0, 2, 0x9c, 0x40, 0, 80]);
        b.extend([10, 0, 0, 2, 192, 0, 2, 9, 0, 80, 0x9c, 0x40]);
        b
    }

    #[test]
    fn every_field_of_an_end_is_read() {
        let tuple = |src: [u8; 4], dst: [u8; 4], sport, dport| Tuple {
            src: src.into(),
            dst: dst.into(),
            proto: IPPROTO_TCP,
            l4: L4::Ports { src: sport, dst: dport },
        };
        let end = End {
            ktime_ns: 1_000,
            netns_cookie: 77,
            orig: tuple([10, 0, 0, 1], [10, 0, 0, 2], 40_000, 80),
            reply: tuple([10, 0, 0, 2], [192, 0, 2, 9], 80, 40_000),
            status: Status(0x8e),
            mark: Mark(5),
            zone: Zone(12),
            zone_dir: 3,
            confirmed: true,
            counters: Some([
                Counters { packets: 10, bytes: 840 },
                Counters { packets: 8, bytes: 9_000 },
            ]),
            start_ns: Some(1_700),
            overdue: 25,
            state: Some(ProtoState::Tcp { state: 7, wscale: [None; 2], flags: [None; 2] }),
        };
        assert_eq!(End::decode(&good()).unwrap(), end);
        let mut unconfirmed = good();
        unconfirmed[109] = END_UNCONFIRMED;
        assert_eq!(
            End::decode(&unconfirmed).unwrap(),
            End { confirmed: false, counters: None, start_ns: None, state: None, ..end }
        );
    }

    #[test]
    fn each_kind_of_damage_has_its_reason() {
        let with = |at: usize, value: u8| {
            let mut bytes = good();
            bytes[at] = value;
            End::decode(&bytes).unwrap_err()
        };
        assert_eq!(with(0, 1), RecordError::Kind(1));
        assert_eq!(with(2, 9), RecordError::Mismatch(9));
        assert_eq!(with(62, 3), RecordError::Family(3));
        assert_eq!(with(62, FAMILY_V6), RecordError::Length { found: 136, expected: 184 });
        assert_eq!(with(109, 0x80), RecordError::Flags(0x80));
    }

    #[test]
    fn every_kernel_has_what_ends_need() {
        for name in KERNELS {
            let EndLayout { offsets, numbers } = EndLayout::resolve(&kernel(name)).unwrap();
            assert_eq!((numbers.ext_acct, numbers.ext_tstamp), (3, 5), "{name}");
            let EndOffsets { acct_packets, acct_bytes, acct_reply_bytes, .. } = offsets;
            assert_eq!((acct_packets, acct_bytes, acct_reply_bytes), (0, 8, 24), "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn mutated_ends_are_decoded_or_rejected_never_a_panic(
            flips in prop::collection::vec((0usize..136, any::<u8>()), 0..6),
            len in 0usize..=136,
        ) {
            let mut bytes = good();
            for (at, value) in flips {
                bytes[at] = value;
            }
            bytes.truncate(len);
            let decoded = End::decode(&bytes);
            prop_assert!(len == 136 || decoded.is_err());
        }
    }
}
