//! What is encoded is what is decoded again.

use crate::model::state::ProtoState;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::array::uniform2;
use proptest::option::of;
use proptest::prelude::*;

use super::uapi::*;
use crate::model::{L4, Mark, Status, Tuple, Zone};
use crate::netlink::ctnetlink::*;
use crate::netlink::request::Request;
use crate::netlink::wire::{Attribute, Attributes, Messages, netfilter};

fn addresses(v4: bool) -> BoxedStrategy<[IpAddr; 2]> {
    if v4 {
        uniform2(any::<u32>().prop_map(|a| Ipv4Addr::from(a).into())).boxed()
    } else {
        uniform2(any::<u128>().prop_map(|a| Ipv6Addr::from(a).into())).boxed()
    }
}

/// A tuple whose fields are those of its protocol.
fn tuple(v4: bool) -> impl Strategy<Value = Tuple> {
    let proto = prop_oneof![Just(6), Just(17), Just(132), Just(47), Just(1), Just(58), any::<u8>()];
    (addresses(v4), proto, any::<[u8; 2]>(), any::<[u8; 2]>()).prop_map(
        |([src, dst], proto, s, d)| Tuple { src, dst, proto, l4: L4::from_kernel(proto, s, d) },
    )
}

fn seqadj() -> impl Strategy<Value = SeqAdj> {
    (any::<u32>(), any::<i32>(), any::<i32>()).prop_map(
        |(correction_pos, offset_before, offset_after)| SeqAdj {
            correction_pos,
            offset_before,
            offset_after,
        },
    )
}

fn state() -> impl Strategy<Value = ProtoState> {
    let flags = || uniform2(of(any::<u8>()));
    let both = |pair: Option<[u8; 2]>| pair.map_or([None; 2], |pair| pair.map(Some));
    prop_oneof![
        (any::<u8>(), of(any::<[u8; 2]>()), flags()).prop_map(move |(state, wscale, flags)| {
            ProtoState::Tcp { state, wscale: both(wscale), flags }
        }),
        (any::<u8>(), any::<[u32; 2]>())
            .prop_map(|(state, vtag)| ProtoState::Sctp { state, vtag: vtag.map(Some) }),
        (any::<u8>(), any::<u8>(), of(any::<u64>())).prop_map(|(state, role, handshake_seq)| {
            ProtoState::Dccp { state, role: Some(role), handshake_seq }
        }),
    ]
}

prop_compose! {
    fn change()(
        timeout in of(any::<u32>()),
        status in of(any::<u32>()),
        mark in of((any::<u32>(), any::<u32>())),
        labels in of((any::<u128>(), any::<u128>())),
        helper in of(("[a-z]{0,15}", of(any::<Vec<u8>>()))),
        state in of(state()),
        seqadj in uniform2(of(seqadj())),
        synproxy in of(any::<[u32; 3]>()),
    ) -> (Change, Option<ProtoState>) {
        let (helper, helper_info) = helper.unzip();
        let change = Change {
            timeout,
            status: status.map(Status),
            mark: mark.map(|(value, mask)| MarkChange { value, mask }),
            labels: labels.map(|(value, mask)| LabelChange { value, mask }),
            helper,
            helper_info: helper_info.flatten(),
            state: state.map(Into::into),
            seqadj,
            synproxy: synproxy.map(|[isn, its, tsoff]| SynProxy { isn, its, tsoff }),
        };
        (change, state)
    }
}

fn nat_range(v4: bool) -> impl Strategy<Value = NatRange> {
    (of(addresses(v4)), of(any::<(u16, u16)>())).prop_map(|(addresses, ports)| NatRange {
        addresses: addresses.map(|[lowest, highest]| (lowest, highest)),
        ports,
    })
}

fn zone() -> impl Strategy<Value = EntryZone> {
    prop_oneof![
        Just(EntryZone::default()),
        any::<u16>().prop_map(|zone| EntryZone::Both(Zone(zone))),
        any::<u16>().prop_map(|zone| EntryZone::Orig(Zone(zone))),
        any::<u16>().prop_map(|zone| EntryZone::Reply(Zone(zone))),
    ]
}

fn new_entry() -> impl Strategy<Value = (NewEntry, Option<ProtoState>)> {
    any::<bool>().prop_flat_map(|v4| {
        let tuples = (tuple(v4), tuple(v4), of(tuple(v4)));
        let nat = (of(nat_range(v4)), of(nat_range(v4)));
        (tuples, zone(), any::<u32>(), nat, change()).prop_map(
            |((orig, reply, master), zone, timeout, (nat_src, nat_dst), (with, state))| {
                let entry = NewEntry { orig, reply, zone, timeout, nat_src, nat_dst, master, with };
                (entry, state)
            },
        )
    })
}

/// The payload of a message.
fn payload(request: Request) -> Vec<u8> {
    let bytes = request.finish(1, 1).unwrap();
    Messages::new(&bytes).next().unwrap().unwrap().payload.to_vec()
}

/// The attribute of this type.
fn find(mut attributes: Attributes<'_>, kind: u16) -> Option<Attribute<'_>> {
    attributes.find_map(|a| a.ok().filter(|a| a.kind == kind))
}

/// What a change does to an entry is what its message says of one.
fn check_change(change: &Change, state: Option<ProtoState>, payload: &[u8]) {
    let entry = Entry::decode(payload).unwrap();
    let (_, attributes) = netfilter(payload).unwrap();
    let number = |kind| find(attributes.clone(), kind).map(|a| a.be32("a number").unwrap());
    let status = change.status.map(|s| s.union(Status::CONFIRMED));
    assert_eq!(number(CTA_STATUS), status.map(|s| s.0));
    assert_eq!(entry.mark, change.mark.map(|m| Mark(m.value)));
    let mask = change.mark.map(|m| m.mask);
    assert_eq!(number(CTA_MARK_MASK), mask.filter(|&mask| mask != u32::MAX));
    let labels = |n: u128| (0..128u16).filter(move |&bit| n >> bit & 1 == 1).collect::<Vec<_>>();
    let wanted = change.labels.map(|l| labels(l.value & l.mask)).unwrap_or_default();
    assert_eq!(entry.label_numbers().collect::<Vec<_>>(), wanted);
    let mask = find(attributes.clone(), CTA_LABELS_MASK).map(|mask| mask.payload);
    let mask = decode::label_numbers(mask.unwrap_or_default()).collect::<Vec<_>>();
    assert_eq!(mask, change.labels.map(|l| labels(l.mask)).unwrap_or_default());
    assert_eq!(entry.helper, change.helper.as_ref().map(String::as_bytes));
    assert_eq!(entry.helper_info, change.helper_info.as_deref());
    assert_eq!((entry.seqadj, entry.synproxy), (change.seqadj, change.synproxy));
    assert_eq!(entry.state, state);
}

proptest! {
    #[test]
    fn new_entries_say_what_they_are_made_of((entry, state) in new_entry()) {
        let request = Request::netfilter(1, 0, 0, encode::family(entry.orig.src));
        let payload = payload(encode::new_entry(request, &entry));
        let decoded = Entry::decode(&payload).unwrap();
        assert_eq!((decoded.orig, decoded.reply), (entry.orig, Some(entry.reply)));
        assert_eq!(decoded.master, entry.master);
        assert_eq!(decoded.timeout, Some(entry.with.timeout.unwrap_or(entry.timeout)));
        let zones = (decoded.zone, decoded.zone_orig, decoded.zone_reply);
        assert_eq!(zones, match entry.zone {
            EntryZone::Both(zone) => (zone, None, None),
            EntryZone::Orig(zone) => (zone, Some(zone), None),
            EntryZone::Reply(zone) => (zone, None, Some(zone)),
        });
        check_change(&entry.with, state, &payload);
        let (_, attributes) = netfilter(&payload).unwrap();
        for (kind, range) in [(CTA_NAT_SRC, entry.nat_src), (CTA_NAT_DST, entry.nat_dst)] {
            let nat = find(attributes.clone(), kind);
            assert_eq!(nat.is_some(), range.is_some());
            let (Some(nat), Some(NatRange { addresses, ports })) = (nat, range) else { continue };
            let address = |v4, v6| {
                let v4 = find(nat.nested(), v4).map(|a| Ipv4Addr::from(a.array("v4").unwrap()).into());
                let v6 = find(nat.nested(), v6).map(|a| Ipv6Addr::from(a.array("v6").unwrap()).into());
                v4.or(v6)
            };
            let lowest: Option<IpAddr> = address(CTA_NAT_V4_MINIP, CTA_NAT_V6_MINIP);
            assert_eq!(lowest.zip(address(CTA_NAT_V4_MAXIP, CTA_NAT_V6_MAXIP)), addresses);
            let protocol = find(nat.nested(), CTA_NAT_PROTO);
            let port = |kind| {
                let protocol = protocol?;
                find(protocol.nested(), kind).map(|a| a.be16("port").unwrap())
            };
            assert_eq!(port(CTA_PROTONAT_PORT_MIN).zip(port(CTA_PROTONAT_PORT_MAX)), ports);
        }
    }

    #[test]
    fn changes_name_an_entry_and_say_what_changes(
        (change, state) in change(),
        tuple in any::<bool>().prop_flat_map(tuple),
        zone in any::<u16>(),
        id in of(any::<u32>()),
    ) {
        let key = EntryKey::orig(tuple).in_zone(Zone(zone)).with_id(id);
        let request = Request::netfilter(1, 0, 0, encode::family(tuple.src));
        let payload = payload(encode::change(encode::key(request, &key), &change));
        let decoded = Entry::decode(&payload).unwrap();
        assert_eq!(EntryKey::from(&decoded), key);
        assert_eq!(EntryKey::from(&ConntrackEntry::from(&decoded)), key);
        assert_eq!(decoded.timeout, change.timeout);
        check_change(&change, state, &payload);
        // By the other direction the same, but for what the decoder insists on.
        let request = Request::netfilter(1, 0, 0, encode::family(tuple.src));
        let key = EntryKey { reply: true, ..key };
        let reply = payload_of_reply(encode::key(request, &key));
        assert_eq!(reply, tuple);
    }
}

fn new_expectation() -> impl Strategy<Value = NewExpectation> {
    any::<bool>().prop_flat_map(|v4| {
        let tuples = (tuple(v4), tuple(v4), tuple(v4));
        let numbers = (any::<u16>(), of(any::<u32>()), any::<u32>(), of(any::<u32>()));
        let texts = (of("[a-z]{0,15}"), of("[a-z-]{0,15}"));
        let nat = of((any::<u32>(), tuple(v4)).prop_map(|(dir, tuple)| ExpectNat { dir, tuple }));
        (tuples, numbers, texts, nat).prop_map(|(tuples, numbers, texts, nat)| {
            let (master, tuple, mask) = tuples;
            let (zone, timeout, flags, class) = numbers;
            let (helper, function) = texts;
            NewExpectation {
                master,
                zone: Zone(zone),
                tuple,
                mask,
                timeout,
                flags,
                class,
                helper,
                function,
                nat,
            }
        })
    })
}

proptest! {
    #[test]
    fn new_expectations_say_what_they_are_made_of(
        new in new_expectation(),
        unknown in of((100u16..200, any::<[u8; 5]>())),
    ) {
        let request = Request::netfilter(2, 0, 0, encode::family(new.tuple.src));
        let mut request = expect_requests::encode_new(request, &new);
        if let Some((kind, bytes)) = unknown {
            request = request.nested(CTA_EXPECT_NAT, |r| {
                let r = encode::tuple(r, CTA_EXPECT_NAT_TUPLE, &new.tuple, None);
                r.attribute(CTA_EXPECT_NAT_DIR, &[0; 4]).attribute(kind, &bytes)
            });
        }
        let payload = payload(request);
        let decoded = Expectation::decode(&payload).unwrap();
        assert_eq!(decoded.unknown_attributes().count(), decoded.unknown as usize);
        let owned = ConntrackExpectation::from(&decoded);
        let key = ExpectKey { tuple: new.tuple, zone: new.zone, id: None };
        assert_eq!((ExpectKey::from(&owned), ExpectKey::from(&decoded)), (key, key));
        assert_eq!((owned.mask, owned.master), (Some(new.mask), Some(new.master)));
        assert_eq!((owned.timeout, owned.class), (new.timeout, new.class));
        assert_eq!((owned.flags, owned.id), (Some(new.flags), None));
        assert_eq!((owned.helper, owned.function), (new.helper, new.function));
        match unknown {
            None => assert_eq!((owned.nat, owned.unknown), (new.nat, vec![])),
            Some((kind, bytes)) => {
                let within = [Some(CTA_EXPECT_NAT), None, None];
                let unknown = OwnedAttribute { within, kind, payload: bytes.to_vec() };
                assert_eq!(owned.unknown, [unknown]);
            }
        }
    }

    #[test]
    fn whatever_is_said_of_an_expectation_is_decoded_or_rejected(
        new in new_expectation(),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
        random in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let request = Request::netfilter(2, 0, 0, encode::family(new.tuple.src)).raw(&random);
        let _ = Expectation::decode(&payload(request));
        let request = Request::netfilter(2, 0, 0, encode::family(new.tuple.src));
        let mut bytes = payload(expect_requests::encode_new(request, &new));
        let len = bytes.len();
        bytes[at.index(len)] = byte;
        if let Ok(decoded) = Expectation::decode(&bytes) {
            assert_eq!(decoded.unknown_attributes().count(), decoded.unknown as usize);
        }
    }
}

/// The reply direction of a message that has no original one.
fn payload_of_reply(request: Request) -> Tuple {
    let payload = payload(request);
    let (family, mut attributes) = netfilter(&payload).unwrap();
    let first = attributes.next().unwrap().unwrap();
    assert_eq!(first.kind, CTA_TUPLE_REPLY);
    tuple::decode(family, &first, &mut 0).unwrap().tuple
}
