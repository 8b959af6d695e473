//! What a recording keeps of the kernel's objects is what the evaluator reads from the kernel itself.

use std::fs::File;

use conntracker::firewall::objects::KernelObjects;
use conntracker::netlink::nftables::dump::Dump;
use conntracker::netlink::nftables::ruleset::tables;
use conntracker::netlink::routing::objects::RoutingObjects;
use conntracker::recording::{End, Item, Reader};
use conntracker_tests::lab::Lab;
use conntracker_tests::tracer::recording::recording;
use nix::sys::signal::Signal;

/// A ruleset without counters, which would differ.
const FIREWALL: &str = "table inet fw {
    set servers { type ipv4_addr . inet_service; elements = { 10.77.2.2 . 443, 10.77.2.2 . 80 }; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        ip daddr . tcp dport @servers accept
        udp dport { 53, 123, 1000-2000 } jump lan
    }
    chain lan { meta mark set 0x7; ip saddr 10.77.1.0/24 accept; }
}";

#[test]
fn a_recording_has_the_kernels_objects() {
    let lab = Lab::new().unwrap();
    let router = &lab.router;
    router.nft(FIREWALL).unwrap();
    for (program, rule) in [
        ("iptables-legacy", "-A FORWARD -p tcp -m multiport --dports 22,80 -j ACCEPT"),
        ("ip6tables-legacy", "-A INPUT -m conntrack --ctstate NEW -j DROP"),
    ] {
        router.run([program].into_iter().chain(rule.split(' '))).unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("r.rec");
    let tracer = recording(router, &file, &[]).unwrap();
    let live = router.enter(|| Ok(KernelObjects::read())).unwrap();
    tracer.stop(Signal::SIGINT).unwrap();
    let mut reader = Reader::new(File::open(&file).unwrap()).unwrap();
    let mut kept = None;
    while let Some(item) = reader.next(End::Last).unwrap() {
        if let Item::Ruleset(ruleset) = item {
            let missing = &ruleset.objects.missing;
            assert!(missing.is_empty(), "{missing:?}");
            kept = Some(ruleset.objects);
        }
    }
    let kept = kept.unwrap();
    let rules = |of: &KernelObjects| tables(&Dump::of(of.nf_tables.clone())).unwrap();
    assert!(rules(&kept).iter().any(|table| table.name == "fw" && table.sets.len() == 2));
    assert_eq!(rules(&kept), rules(&live));
    // Counters of ip_tables are among its bytes, and no packet was sent.
    assert_eq!(kept.ip_tables, live.ip_tables);
    let routing = |of: &KernelObjects| RoutingObjects::decode(&of.routing).unwrap();
    assert_eq!(routing(&kept), routing(&live));
    assert!(routing(&kept).routes.len() > 4);
    kept.firewall().unwrap();
    kept.routes().unwrap();
}
