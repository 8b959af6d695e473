use super::*;

pub(super) fn apply(name: &str, revision: u32, info: &[u8], packet: &mut Packet) -> TargetResult {
    let routes = local();
    let context = Context { hook: Hook::Prerouting, routes: &routes };
    Target::decode(name, revision, info).apply(packet, &context)
}

#[test]
fn marks_move_between_packet_and_connection() {
    let words = |words: [u32; 3], mode: u8| {
        let bytes = words.into_iter().flat_map(u32::to_ne_bytes);
        bytes.chain([mode, 0, 0, 0]).collect::<Vec<u8>>()
    };
    let mut packet = whole(false);
    apply("CONNMARK", 1, &words([0, 0xff, 0x0f], 1), &mut packet);
    assert_eq!(packet.tracking.mark.get(), Ok(0x07), "saved under the mask");
    apply("CONNMARK", 1, &words([0x100, 0x100, 0], 0), &mut packet);
    assert_eq!(packet.tracking.mark.get(), Ok(0x107));
    apply("CONNMARK", 1, &words([0, 0x100, 0x1ff], 2), &mut packet);
    assert_eq!(packet.mark.get(), Ok(0x100));
    let mut shift = words([0, u32::MAX, u32::MAX], 1);
    (shift[12], shift[13], shift[14]) = (1, 8, 2);
    apply("CONNMARK", 2, &shift, &mut packet);
    assert_eq!(packet.mark.get(), Ok(1), "to the right by eight");
    let mark = [0x5_u32, 0xff].into_iter().flat_map(u32::to_ne_bytes).collect::<Vec<u8>>();
    packet.mark = Word::unknown(Unknown::Limit);
    assert_eq!(apply("MARK", 2, &mark, &mut packet), TargetResult::Continue);
    assert_eq!((packet.mark.value(), packet.mark.known()), (5, 0xff));
    packet.tracking = Tracking::without_entry(CtState::Untracked);
    let before = packet.clone();
    apply("CONNMARK", 1, &words([0, u32::MAX, u32::MAX], 2), &mut packet);
    assert_eq!(packet, before, "without an entry there is nothing to restore");
}

#[test]
fn only_packets_that_conntrack_has_not_seen_become_untracked() {
    let mut packet = whole(false);
    apply("NOTRACK", 0, &[], &mut packet);
    assert_eq!(packet.tracking.state, Ok(CtState::New));
    packet.tracking = Tracking::without_entry(CtState::Early);
    apply("CT", 2, &[&[1_u8, 0][..], &[0; 70]].concat(), &mut packet);
    assert_eq!(packet.tracking.state, Ok(CtState::Untracked));
}

#[test]
fn ranges_of_nat_are_read_in_both_forms() {
    let mut packet = whole(false);
    // `struct nf_nat_ipv4_multi_range_compat`: 10.0.0.1-10.0.0.9:1024-2048.
    let mut info = [1_u32, 3].into_iter().flat_map(u32::to_ne_bytes).collect::<Vec<u8>>();
    info.extend([10, 0, 0, 1, 10, 0, 0, 9, 4, 0, 8, 0, 0, 0, 0, 0]);
    let TargetResult::Translate(snat) = apply("SNAT", 0, &info, &mut packet) else { panic!() };
    let address = |text: &str| Ok(text.parse::<IpAddr>().unwrap());
    assert_eq!(snat.kind, TranslationKind::Source);
    assert_eq!(snat.addresses, Some([address("10.0.0.1"), address("10.0.0.9")]));
    assert_eq!(snat.ports, Some([Ok(1024), Ok(2048)]));
    // `struct nf_nat_range2` with a shift: 400-500 to 1400 and so on.
    let mut info = (2_u32 | 1 << 5).to_ne_bytes().to_vec();
    info.extend([0; 32]);
    info.extend([1400_u16, 1500, 400].into_iter().flat_map(u16::to_be_bytes));
    info.extend([0; 2]);
    let TargetResult::Translate(dnat) = apply("DNAT", 2, &info, &mut packet) else { panic!() };
    assert_eq!((dnat.addresses, dnat.ports), (None, Some([Ok(1443), Ok(1443)])));
    // NETMAP to 10.9.8.0/24.
    let mut info = [1_u32, 1].into_iter().flat_map(u32::to_ne_bytes).collect::<Vec<u8>>();
    info.extend([10, 9, 8, 0, 10, 9, 8, 255, 0, 0, 0, 0]);
    let TargetResult::Translate(map) = apply("NETMAP", 0, &info, &mut packet) else { panic!() };
    assert_eq!(map.kind, TranslationKind::Destination);
    assert_eq!(map.addresses, Some([address("10.9.8.7"); 2]));
}

#[test]
fn fields_that_a_target_changes_in_part_stay_unknown_in_part() {
    let bare = tuple("192.0.2.1", "192.0.2.2", 6, L4::None);
    let mut packet = Packet::of(&bare).unwrap();
    apply("TOS", 1, &[0x10, 0x3c], &mut packet);
    assert_eq!(packet.network().byte(1), (0x10, 0x3c));
    apply("HL", 0, &[1, 5], &mut packet);
    assert_eq!(packet.ttl(), Err(Attribute::Ttl.into()));
    apply("TTL", 0, &[0, 5], &mut packet);
    apply("TTL", 0, &[2, 9], &mut packet);
    assert_eq!(packet.ttl(), Ok(0));
}

#[test]
fn a_target_that_nobody_knows_is_undecided() {
    let unknown = TargetResult::Unknown(Unknown::Extension.into());
    assert_eq!(apply("NOSUCH", 0, &[], &mut whole(false)), unknown);
    assert_eq!(apply("MARK", 2, &[0; 7], &mut whole(false)), unknown, "too short");
}
