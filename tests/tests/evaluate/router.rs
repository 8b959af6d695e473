//! The routes of the lab's router, found in the tables that it has.

use conntracker::{
    firewall::evaluate::{interface::Interface, routing_tables::RoutingTables},
    netlink::routing::{dump::RoutingDump, objects::RoutingObjects},
};
use conntracker_tests::lab::Host;

/// The routing of the router.
pub(crate) fn tables(host: &Host) -> RoutingTables {
    let dump = host.enter(|| Ok(RoutingDump::read()?.unwrap())).unwrap();
    RoutingTables::new(RoutingObjects::decode(dump.bytes()).unwrap())
}

/// An interface by its index.
pub(crate) fn interface(host: &Host, tables: &RoutingTables, index: u32) -> Option<Interface> {
    let names = host.links.iter().map(|link| link.name).chain(["lo"]);
    let mut all = names.filter_map(|name| tables.interface(name));
    all.find(|interface| interface.index == Ok(index)).cloned()
}
