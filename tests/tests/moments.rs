//! Flows of the first and of the last moment, which a record, an event and one or two dumps tell of
//! at the same time: each is one flow, whoever comes first.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::thread;
use std::time::Duration;

use conntracker_tests::lab::{Lab, TRACKING};
use conntracker_tests::tracer::report::Document;
use conntracker_tests::tracer::{Tracer, backend};
use conntracker_tests::traffic::{udp_echo_server, udp_exchange};

/// Traces of a few flows to one port, made `after` the start and right before the end.
fn counted_once(after: Duration) {
    let lab = Lab::new().unwrap();
    lab.router.nft(TRACKING).unwrap();
    let _server = udp_echo_server(&lab.server, lab.server.at(7)).unwrap();
    for round in 0..3 {
        for backend in [backend(), "netlink"] {
            for fold in [false, true] {
                let what = format!("round {round}, {backend}, folded: {fold}");
                let mut args = vec!["--backend", backend, "--format", "json"];
                args.extend((!fold).then_some("--no-fold"));
                let tracer = Tracer::start(&lab.router, &args).unwrap();
                thread::sleep(after);
                for port in [40_000, 40_001, 40_002] {
                    let from = lab.client.at(port);
                    udp_exchange(&lab.client, from, lab.server.at(7), b"hello").unwrap();
                }
                let report = Document::json(&tracer.finish().unwrap()).unwrap();
                let flows: Vec<_> =
                    report.flows.iter().map(|flow| flow["flows"].as_u64().unwrap()).collect();
                let want: &[u64] = if fold { &[3] } else { &[1, 1, 1] };
                assert_eq!(flows, want, "{what}: {:#?}", report.flows);
                assert!(report.flows.iter().all(|flow| flow["confirmed"] == true), "{what}");
                assert_eq!(report.footer["lost"], false, "{what}: {}", report.footer);
                lab.router.run(["conntrack", "-F"]).unwrap();
            }
        }
    }
}

#[test]
fn a_flow_of_the_first_moment_is_counted_once() {
    counted_once(Duration::ZERO);
}

#[test]
fn a_flow_of_the_last_moment_is_counted_once() {
    // The first dump is through by then.
    counted_once(Duration::from_millis(200));
}
