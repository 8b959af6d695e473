//! How long dumps take. `CONNTRACKER_FLOWS` is the number of flows (100,000 unless said otherwise;
//! net.netfilter.nf_conntrack_max is the limit). Ratios that depend on how the library was compiled are
//! only told, and held against the limit in a release build: `cargo test --release … speed -- --nocapture`.

use std::time::{Duration, Instant};

use conntracker::Conntrack;
use conntracker::conntrack::{Change, DumpRequest, EntryZone, MarkChange};
use conntracker_tests::drain::drain;
use conntracker_tests::lab::Lab;

use crate::{UDP, connect, from, lasting, ports};
use conntracker::model::{Mark, Zone};

/// Rounds of what takes long, and of what does not.
const FEW: usize = 3;
const MANY: usize = 10;

/// The quickest of some rounds: what disturbs only ever adds.
fn quickest(rounds: usize, mut work: impl FnMut() -> u64) -> (Duration, u64) {
    let measured = (0..rounds).map(|_| {
        let start = Instant::now();
        let entries = work();
        (start.elapsed(), entries)
    });
    measured.min().unwrap()
}

fn fill(conntrack: &mut Conntrack, flows: u32) {
    for n in 1..flows {
        let [_, a, b, c] = n.to_be_bytes();
        let orig = ports(UDP, &format!("10.{a}.{b}.{c}"), 1, "198.51.100.2", 2);
        conntrack.create(&lasting(orig).timeout(3600)).unwrap();
    }
    let with = Change::default().mark(MarkChange::to(Mark(7)));
    let one = lasting(ports(UDP, "192.0.2.1", 1, "198.51.100.2", 2));
    conntrack.create(&one.with(with).zone(EntryZone::Both(Zone(5))).timeout(3600)).unwrap();
}

#[test]
fn a_dump_costs_little_more_than_its_transport_and_a_filter_in_the_kernel_saves_nearly_all() {
    let flows = std::env::var("CONNTRACKER_FLOWS").map_or(100_000, |n| n.parse().unwrap());
    let lab = Lab::new().unwrap();
    let mut conntrack = connect(&lab.router);
    fill(&mut conntrack, flows);
    let tell = |what: &str, took: Duration, unit: Duration| {
        let ratio = took.as_secs_f64() / unit.as_secs_f64();
        println!("{what:44} {:9.3} ms  {ratio:6.3} of draining", took.as_secs_f64() * 1e3);
        ratio
    };
    let (unit, bytes) = quickest(FEW, || drain(&lab.router).unwrap());
    assert!(bytes > 0);
    tell("drained without parsing", unit, unit);
    let any = DumpRequest::default();
    let (took, entries) = quickest(FEW, || {
        let mut bytes = 0;
        let stats = conntrack.dump_with(&any, |entry| bytes += entry.raw.len()).unwrap();
        assert!(bytes > 0);
        stats.entries
    });
    assert_eq!(entries, u64::from(flows));
    let by_closure = tell("dump_with", took, unit);
    let (took, _) = quickest(FEW, || {
        let mut dump = conntrack.dump().unwrap();
        let mut entries = 0;
        while dump.next().unwrap().is_some() {
            entries += 1;
        }
        entries
    });
    tell("Dump::next", took, unit);
    let (took, _) = quickest(FEW, || conntrack.dump().unwrap().into_iter().count() as u64);
    tell("for entry in dump", took, unit);
    if !cfg!(debug_assertions) {
        assert!(by_closure < 1.5, "{by_closure}");
    }

    // The kernel walks the hash table of the whole machine, whatever the filter: no flow, no less.
    let (floor, _) = quickest(MANY, || drain(&lab.client).unwrap());
    tell("a namespace without flows", floor, unit);
    let support = lab.router.enter(|| Ok(Conntrack::filter_support()?)).unwrap();
    for (what, request) in [
        ("one flow by mark", any.mark((Mark(7), u32::MAX))),
        ("one flow by zone", any.zone(Zone(5))),
        ("one flow by address", any.orig(from("192.0.2.1"))),
    ] {
        let (took, entries) =
            quickest(MANY, || conntrack.dump_with(&request, |_| {}).unwrap().entries);
        assert_eq!(entries, 1, "{what}");
        let ratio = tell(what, took, unit);
        if request.left_to_user_space(support).is_any() {
            let floor = floor.as_secs_f64() / unit.as_secs_f64();
            assert!(ratio - floor < 0.1, "{what}: {ratio}, without any flow {floor}");
        }
    }
    let listing = Instant::now();
    lab.router.run(["conntrack", "-L"]).unwrap();
    tell("conntrack -L", listing.elapsed(), unit);
}
