use proptest::prelude::*;

use super::{dump::RoutingDump, objects::RoutingObjects};

#[test]
fn the_loopback_interface_is_there_with_its_address_and_route() {
    let dump = RoutingDump::read().unwrap().unwrap();
    let objects = RoutingObjects::decode(dump.bytes()).unwrap();
    assert!(objects.links.iter().any(|link| (link.index, &*link.name) == (1, "lo")));
    assert_eq!(RoutingDump::of(dump.bytes().to_vec()), dump);
    let Some(lo) = objects.addresses.iter().find(|of| of.local.is_loopback()) else { return };
    let route = objects.routes.iter().find(|route| route.to.address == lo.local).unwrap();
    assert_eq!((route.link, route.kind), (Some(1), 2));
}

proptest! {
    #[test]
    fn no_bytes_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        kind in prop::sample::select(vec![16u16, 20, 24, 32]),
    ) {
        let mut message = (bytes.len() as u32 + 16).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(&bytes);
        let _ = RoutingObjects::decode(&message);
        let _ = RoutingObjects::decode(&bytes);
    }
}
