//! The library's connection tracking table against conntrack(8), in namespaces of their own: what one
//! makes, changes or removes, the other sees.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod dumps;
mod entries;
mod events;
mod examples;
mod expectations;
mod speed;
mod statistics;

use std::collections::BTreeSet;
use std::net::IpAddr;

use conntracker::Conntrack;
use conntracker::conntrack::{NewEntry, TupleFilter};
use conntracker::model::{L4, Tuple};
use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::tracer::conntrack;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Connects in a host's namespace.
fn connect(host: &Host) -> Conntrack {
    host.enter(|| Ok(Conntrack::connect()?)).unwrap()
}

/// A direction with ports.
fn ports(proto: u8, src: &str, sport: u16, dst: &str, dport: u16) -> Tuple {
    let [src, dst] = [src, dst].map(|address| address.parse::<IpAddr>().unwrap());
    Tuple { src, dst, proto, l4: L4::Ports { src: sport, dst: dport } }
}

/// A direction of ICMP or ICMPv6.
fn echo(proto: u8, src: &str, dst: &str, kind: u8, id: u16) -> Tuple {
    let [src, dst] = [src, dst].map(|address| address.parse::<IpAddr>().unwrap());
    Tuple { src, dst, proto, l4: L4::Icmp { kind, code: 0, id } }
}

/// An entry that does not end while a test looks.
fn lasting(orig: Tuple) -> NewEntry {
    NewEntry::new(orig, 600).unwrap()
}

/// What conntrack(8) lists with these options, without the seconds, which pass.
fn listed(host: &Host, options: &[&str]) -> BTreeSet<String> {
    conntrack::lines(host, options).unwrap().iter().map(|line| without_timeout(line)).collect()
}

/// A line without its fifth word.
fn without_timeout(line: &str) -> String {
    let words = line.split_whitespace().enumerate().filter(|&(n, _)| n != 4);
    words.map(|(_, word)| word).collect::<Vec<_>>().join(" ")
}

/// The one line that conntrack(8) lists.
fn only(host: &Host) -> String {
    let lines = listed(host, &[]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.into_iter().next().unwrap()
}

/// A filter by source address.
fn from(src: &str) -> TupleFilter {
    TupleFilter::default().src(src.parse::<IpAddr>().unwrap())
}

#[test]
fn a_connection_stays_with_its_namespace() {
    let lab = Lab::new().unwrap();
    let mut conntrack = connect(&lab.router);
    conntrack.create(&lasting(ports(UDP, "192.0.2.1", 1, "192.0.2.2", 2))).unwrap();
    assert_eq!(conntrack.count().unwrap(), 1);
    assert_eq!(connect(&lab.client).count().unwrap(), 0);
    assert_eq!(lab.router.run(["conntrack", "-C"]).unwrap().trim(), "1");
}
