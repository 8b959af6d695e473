//! The decoder against what kernels sent, and against what no kernel should send.

mod requests;

use crate::model::{Mark, Zone, counters::Counters, state::ProtoState};
use proptest::collection::vec;
use proptest::prelude::*;

use super::dump::message_type;
use super::uapi::*;
use super::*;
use crate::model::{L4, Status, Tuple};
use crate::netlink::DecodeError;
use crate::netlink::request::Request;
use crate::netlink::wire::{Messages, NFGENMSG};

/// A dump of Linux 6.18 with accounting, timestamps, zones, marks, labels, a helper, a DNAT, and
/// TCP, UDP, UDP-Lite, SCTP, DCCP, GRE, ESP, ICMP and ICMPv6 flows; ends with NLMSG_DONE.
const DUMP: &[u8] = include_bytes!("../fixtures/dump.bin");
/// The events of such traffic, one datagram after the other.
const EVENTS: &[u8] = include_bytes!("../fixtures/events.bin");

fn entries() -> Vec<ConntrackEntry> {
    let (mut stats, any) = (DumpStats::default(), DumpRequest::default());
    let entries: Vec<_> = Messages::new(DUMP)
        .map(Result::unwrap)
        .filter(|message| message.kind == message_type(IPCTNL_MSG_CT_NEW))
        .map(|message| (&stats.decode(&any, &message).unwrap().unwrap()).into())
        .collect();
    assert_eq!(stats, DumpStats { entries: entries.len() as u64, ..DumpStats::default() });
    entries
}

/// The one flow to this destination port.
fn to_port(port: u16) -> ConntrackEntry {
    let is = |e: &ConntrackEntry| matches!(e.orig.l4, L4::Ports { dst, .. } if dst == port);
    entries().into_iter().find(is).unwrap()
}

fn of_proto(proto: u8) -> Vec<ConntrackEntry> {
    entries().into_iter().filter(|e| e.orig.proto == proto).collect()
}

#[test]
fn every_entry_of_a_dump_is_decoded_in_full() {
    let entries = entries();
    assert_eq!(entries.len(), 17);
    for entry in &entries {
        assert_eq!(entry.unknown, []);
        assert!(entry.reply.is_some() && entry.id.is_some() && entry.start.is_some());
        assert!(entry.counters.iter().all(Option::is_some));
        assert_eq!((entry.stop, entry.use_count), (None, Some(1)));
        assert_eq!(entry.family, if entry.orig.is_ipv4() { 2 } else { 10 });
    }
}

#[test]
fn tcp_has_a_state_a_helper_and_counters() {
    let ftp = to_port(2121);
    assert_eq!(ftp.helper.as_deref(), Some("ftp"));
    assert_eq!(ftp.state.and_then(|s| s.name()), Some("ESTABLISHED"));
    assert!(ftp.status.contains(Status::SEEN_REPLY.union(Status::ASSURED)));
    assert_eq!(ftp.timeout, Some(431_999));
    assert_eq!(
        ftp.counters,
        [Some(Counters { packets: 2, bytes: 112 }), Some(Counters { packets: 1, bytes: 60 })]
    );
    let Some(ProtoState::Tcp { state: 3, wscale: [Some(_), Some(_)], flags }) = ftp.state else {
        panic!("{:?}", ftp.state)
    };
    assert!(flags.iter().all(Option::is_some));
    assert_eq!(to_port(8080).state.and_then(|s| s.name()), Some("TIME_WAIT"));
}

#[test]
fn zones_of_one_direction_and_of_both_are_told_apart() {
    let zones = |port| {
        let entry = to_port(port);
        (entry.zone, entry.zone_orig, entry.zone_reply)
    };
    assert_eq!(zones(5301), (Zone(7), None, None));
    assert_eq!(zones(5302), (Zone(8), Some(Zone(8)), None));
    assert_eq!(zones(5303), (Zone(9), None, Some(Zone(9))));
    assert_eq!(zones(5304), (Zone::DEFAULT, None, None));
}

#[test]
fn marks_labels_and_translated_ports_are_read() {
    assert_eq!(to_port(5304).mark, Some(Mark(0xabcd)));
    assert_eq!(to_port(5305).labels, [5, 127]);
    let translated = to_port(5306);
    assert!(matches!(translated.reply.unwrap().l4, L4::Ports { src: 5399, .. }));
}

#[test]
fn each_protocol_has_its_own_fields() {
    let l4 = |proto| of_proto(proto).iter().map(|e| e.orig.l4).collect::<Vec<_>>();
    assert_eq!(l4(1), [L4::Icmp { kind: 8, code: 0, id: 6368 }]);
    assert_eq!(l4(58), [L4::Icmp { kind: 128, code: 0, id: 6369 }]);
    assert_eq!(l4(47), [L4::Gre { src: 0, dst: 0 }, L4::Gre { src: 0, dst: 0x1234 }]);
    assert_eq!(l4(50), [L4::None]);
    assert_eq!(l4(136), [L4::Ports { src: 7001, dst: 7002 }]);
    assert_eq!(l4(132), [L4::Ports { src: 5000, dst: 6000 }]);
    // Linux 6.17 dropped the DCCP tracker: no attribute for ports, and zeros in the kernel.
    assert_eq!(l4(33), [L4::Ports { src: 0, dst: 0 }]);
    assert_eq!(of_proto(1)[0].reply.unwrap().l4, L4::Icmp { kind: 0, code: 0, id: 6368 });
    let sctp = of_proto(132)[0].state.unwrap();
    assert_eq!(sctp.name(), Some("CLOSED"));
    assert!(matches!(sctp, ProtoState::Sctp { vtag: [Some(_), Some(_)], .. }));
}

#[test]
fn events_are_told_apart_by_type_and_flags() {
    let mut drained = Drained::default();
    let mut kinds = [0; 3];
    let mut deleted = 0;
    drained.datagram(EVENTS, &mut |event| {
        let event = event.unwrap();
        assert_eq!(event.entry.unknown, 0);
        assert!(event.entry.timestamp_event.is_some());
        assert_eq!(event.entry.stop.is_some(), event.kind == Kind::Destroy);
        deleted += u64::from(event.portid != 0);
        kinds[event.kind as usize] += 1;
    });
    assert_eq!(drained, Drained { messages: kinds.iter().sum(), ..Drained::default() });
    // The counts of `conntrack -E` at the same time: the 17 flows of the dump and two connections
    // that were refused.
    assert_eq!(kinds, [19, 12, 9]);
    // `conntrack -D -p udp` deleted these from user space.
    assert_eq!(deleted, 7);
}

/// An entry of family `family` with the addresses of `ip`, and what `more` appends.
fn entry(
    family: u8,
    ip: impl Fn(Request) -> Request,
    more: impl FnOnce(Request) -> Request,
) -> Vec<u8> {
    let tuple = |r: Request| {
        r.nested(CTA_TUPLE_IP, &ip).nested(CTA_TUPLE_PROTO, |r| {
            r.attribute(CTA_PROTO_NUM, &[17])
                .attribute(CTA_PROTO_SRC_PORT, &[0, 53])
                .attribute(CTA_PROTO_DST_PORT, &[1, 0])
        })
    };
    let request = Request::netfilter(1, 0, 0, family).nested(CTA_TUPLE_ORIG, tuple);
    let bytes = more(request).finish(0, 0).unwrap();
    Messages::new(&bytes).next().unwrap().unwrap().payload.to_vec()
}

fn v4(r: Request) -> Request {
    r.attribute(CTA_IP_V4_SRC, &[192, 0, 2, 1]).attribute(CTA_IP_V4_DST, &[192, 0, 2, 2])
}

fn v6(r: Request) -> Request {
    r.attribute(CTA_IP_V6_SRC, &[1; 16]).attribute(CTA_IP_V6_DST, &[2; 16])
}

#[test]
fn attributes_that_this_machine_does_not_send_are_read_too() {
    let payload = entry(2, v4, |r| {
        r.nested(CTA_COUNTERS_ORIG, |r| {
            r.attribute(CTA_COUNTERS32_PACKETS, &[0, 0, 0, 3])
                .attribute(CTA_COUNTERS32_BYTES, &[0, 0, 1, 0])
        })
        .attribute(CTA_STATUS, &[0, 0, 0, 8])
        .attribute(CTA_STATUS, &[])
        .attribute(CTA_SECMARK, &[0, 0, 0, 9])
        .nested(CTA_SECCTX, |r| r.attribute(CTA_SECCTX_NAME, b"system_u\0"))
        .nested(CTA_SEQ_ADJ_REPLY, |r| {
            r.attribute(CTA_SEQADJ_CORRECTION_POS, &[0, 0, 0, 1])
                .attribute(CTA_SEQADJ_OFFSET_BEFORE, &[0xff; 4])
                .attribute(CTA_SEQADJ_OFFSET_AFTER, &[0, 0, 0, 2])
        })
        .nested(CTA_SYNPROXY, |r| {
            r.attribute(CTA_SYNPROXY_ISN, &[0, 0, 0, 4])
                .attribute(CTA_SYNPROXY_ITS, &[0, 0, 0, 5])
                .attribute(CTA_SYNPROXY_TSOFF, &[0, 0, 0, 6])
        })
        .nested(CTA_PROTOINFO, |r| {
            r.nested(CTA_PROTOINFO_DCCP, |r| {
                r.attribute(CTA_PROTOINFO_DCCP_STATE, &[4])
                    .attribute(CTA_PROTOINFO_DCCP_ROLE, &[1])
                    .attribute(CTA_PROTOINFO_DCCP_PAD, &[])
                    .attribute(CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ, &[0, 0, 0, 0, 0, 0, 0, 7])
            })
        })
        .attribute(99, &[])
        .nested(CTA_HELP, |r| r.attribute(CTA_HELP_INFO, &[1]).attribute(77, &[2, 3]))
    });
    let entry = Entry::decode(&payload).unwrap();
    assert_eq!(entry.counters, [Some(Counters { packets: 3, bytes: 256 }), None]);
    assert_eq!(entry.status, Status::CONFIRMED);
    assert_eq!((entry.secmark, entry.secctx), (Some(9), Some(&b"system_u"[..])));
    let seqadj = SeqAdj { correction_pos: 1, offset_before: -1, offset_after: 2 };
    assert_eq!(entry.seqadj, [None, Some(seqadj)]);
    assert_eq!(entry.synproxy, Some(SynProxy { isn: 4, its: 5, tsoff: 6 }));
    let dccp = ProtoState::Dccp { state: 4, role: Some(1), handshake_seq: Some(7) };
    assert_eq!((entry.state, dccp.name()), (Some(dccp), Some("OPEN")));
    assert_eq!((entry.helper, entry.helper_info), (None, Some(&[1][..])));
    assert_eq!(entry.unknown, 2);
    let unknown: Vec<_> = entry.unknown_attributes().collect();
    assert_eq!(
        unknown,
        [
            UnknownAttribute { within: [None; 3], kind: 99, payload: &[] },
            UnknownAttribute { within: [Some(CTA_HELP), None, None], kind: 77, payload: &[2, 3] },
        ]
    );
    let (src, dst) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    assert_eq!(entry.orig, Tuple { src, dst, proto: 17, l4: L4::Ports { src: 53, dst: 256 } });
    assert_eq!(entry.reply, None);
}

#[test]
fn an_entry_that_cannot_be_is_rejected_with_its_reason() {
    let mixed =
        |r: Request| r.attribute(CTA_IP_V4_SRC, &[192, 0, 2, 1]).attribute(CTA_IP_V6_DST, &[2; 16]);
    let no_tuple = entry(2, v4, |r| r)[..NFGENMSG].to_vec();
    let cases = [
        (vec![2, 0, 0], "nfgenmsg header truncated to 3 bytes"),
        (no_tuple, "attribute CTA_TUPLE_ORIG is missing"),
        (entry(7, v4, |r| r), "unknown layer 3 family 7"),
        (entry(10, v4, |r| r), "addresses are not of family 10"),
        (entry(2, v6, |r| r), "addresses are not of family 2"),
        (entry(2, mixed, |r| r), "addresses are not of family 2"),
        (
            entry(2, v4, |r| r.attribute(CTA_TIMEOUT, &[0; 3])),
            "attribute CTA_TIMEOUT has 3 bytes, want 4",
        ),
        (entry(2, v4, |r| r.attribute(CTA_TUPLE_REPLY, &[])), "attribute CTA_TUPLE_IP is missing"),
        (
            entry(2, v4, |r| r.nested(CTA_COUNTERS_ORIG, |r| r)),
            "attribute CTA_COUNTERS_PACKETS is missing",
        ),
    ];
    for (payload, reason) in cases {
        assert_eq!(Entry::decode(&payload).unwrap_err().to_string(), reason);
    }
}

/// Decodes bytes both ways and checks that no message is lost from the counts.
fn check(bytes: &[u8]) {
    let framed = Messages::new(bytes).count() as u64;
    let mut drained = Drained::default();
    let (mut decoded, mut rejected) = (0, 0);
    drained.datagram(bytes, &mut |event| match event {
        Ok(event) => {
            decoded += 1;
            assert_eq!(event.entry.unknown_attributes().count(), event.entry.unknown as usize);
            let owned = ConntrackEntry::from(&event.entry);
            assert_eq!(owned.labels.len(), event.entry.label_numbers().count());
        }
        Err(error) => {
            rejected += 1;
            assert!(!error.to_string().is_empty());
        }
    });
    assert_eq!(decoded + rejected, framed);
    assert_eq!(drained, Drained { messages: framed, rejected, ..Drained::default() });

    let mut stats = DumpStats::default();
    let messages: Vec<_> = Messages::new(bytes).flatten().collect();
    for message in &messages {
        let _: Result<Option<Entry<'_>>, DecodeError> =
            stats.decode(&DumpRequest::default(), message);
    }
    assert_eq!(stats.entries + stats.rejected, messages.len() as u64);
}

/// One of the messages a kernel sent, with its header.
fn real_message() -> impl Strategy<Value = Vec<u8>> {
    let messages: Vec<Vec<u8>> = [DUMP, EVENTS]
        .into_iter()
        .flat_map(|bytes| {
            let mut at = 0;
            Messages::new(bytes).map(Result::unwrap).map(move |message| {
                let start = at;
                at += (message.payload.len() + 16).next_multiple_of(4);
                bytes[start..at].to_vec()
            })
        })
        .collect();
    proptest::sample::select(messages)
}

/// Something done to a message.
#[derive(Clone, Debug)]
enum Mutation {
    /// Replaces a byte.
    Byte(proptest::sample::Index, u8),
    /// Flips a bit.
    Flip(proptest::sample::Index, u8),
    /// Cuts off the end.
    Truncate(proptest::sample::Index),
    /// Writes a 16-bit number where an attribute's length or type may stand.
    Length(proptest::sample::Index, u16),
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.len() < 4 {
            return;
        }
        let len = bytes.len();
        match self {
            Self::Byte(at, value) => bytes[at.index(len)] = *value,
            Self::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
            Self::Truncate(at) => bytes.truncate(at.index(len)),
            Self::Length(at, value) => {
                let start = at.index(len / 2) * 2;
                bytes[start..start + 2].copy_from_slice(&value.to_ne_bytes());
            }
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<proptest::sample::Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, value)| Mutation::Byte(at, value)),
        (at(), 0..8u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        at().prop_map(Mutation::Truncate),
        (at(), prop_oneof![0..64u16, any::<u16>()]).prop_map(|(at, n)| Mutation::Length(at, n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn random_bytes_are_decoded_or_rejected_and_counted(bytes in vec(any::<u8>(), 0..512)) {
        check(&bytes);
        // Random bytes hardly ever frame a message, so they are also tried inside one, and behind
        // the attributes of an entry.
        let framed = Request::netfilter(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW, 0, 2);
        check(&framed.raw(&bytes).finish(0, 0).unwrap());
        let payload = entry(2, v4, |r| r.raw(&bytes));
        let message = Request::new(message_type(IPCTNL_MSG_CT_NEW), 0).raw(&payload);
        check(&message.finish(0, 0).unwrap());
    }

    #[test]
    fn mutated_messages_are_decoded_or_rejected_and_counted(
        messages in vec(real_message(), 1..4),
        mutations in vec(mutation(), 0..6),
    ) {
        let mut bytes = messages.concat();
        for mutation in &mutations {
            mutation.apply(&mut bytes);
        }
        check(&bytes);
    }
}
