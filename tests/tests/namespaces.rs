//! Several network namespaces at once: flows are told apart by the namespace's name even where
//! addresses and ports are the same.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::collections::BTreeMap;

use conntracker_tests::lab::{Lab, TRACKING};
use conntracker_tests::tracer::report::{self, Document, Text};
use conntracker_tests::tracer::{L4, Tracer, backend, command, stdout};
use conntracker_tests::traffic::{udp_echo_server, udp_exchange};
use nix::sys::signal::Signal;

/// Two labs, with the same addresses.
fn labs() -> [Lab; 2] {
    [(), ()].map(|()| {
        let lab = Lab::new().unwrap();
        lab.router.nft(TRACKING).unwrap();
        lab
    })
}

/// One flow in each lab, and one more in the first.
fn exchanges([first, second]: &[Lab; 2]) {
    for (lab, ports) in [(first, &[40_000, 40_001][..]), (second, &[40_000])] {
        let _server = udp_echo_server(&lab.server, lab.server.at(7)).unwrap();
        for port in ports {
            udp_exchange(&lab.client, lab.client.at(*port), lab.server.at(7), b"hello").unwrap();
        }
    }
}

/// Source ports by namespace, of the namespaces that are ours.
fn ports(document: &Document, labs: &[Lab; 2]) -> BTreeMap<String, Vec<u16>> {
    let mut ports: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    for object in &document.flows {
        let name = object["netns"].as_str().unwrap();
        let ours = labs.iter().any(|lab| lab.router.name == name);
        if let (true, L4::Ports(sport, _)) = (ours, report::flow(object).unwrap().orig.l4) {
            assert_eq!(object["flows"], 1, "{object}");
            ports.entry(name.to_owned()).or_default().push(sport);
        }
    }
    ports
}

fn expected([first, second]: &[Lab; 2]) -> BTreeMap<String, Vec<u16>> {
    BTreeMap::from([
        (first.router.name.clone(), vec![40_000, 40_001]),
        (second.router.name.clone(), vec![40_000]),
    ])
}

#[test]
fn all_namespaces_are_observed_and_labelled_apart() {
    let labs = labs();
    for backend in [backend(), "netlink"] {
        let what = ["trace", "--netns", "all", "--backend", backend];
        let args = what.into_iter().chain(["-o", "-", "--format", "json", "--no-fold"]);
        let tracer = Tracer::spawn(command(args).unwrap()).unwrap();
        exchanges(&labs);
        let finished = tracer.stop(Signal::SIGINT).unwrap();
        assert!(finished.status.success(), "{backend}: {}", finished.stderr);
        let document = Document::json(&finished.stdout).unwrap();
        assert_eq!(ports(&document, &labs), expected(&labs), "{backend}");
        let namespaces = document.header["namespaces"].as_array().unwrap();
        // Our own comes first; the hosts of the labs are among the rest.
        assert_eq!(namespaces[0]["name"], "-");
        for host in labs.iter().flat_map(Lab::hosts) {
            let named = namespaces.iter().filter(|netns| netns["name"] == host.name.as_str());
            assert_eq!(named.count(), 1, "{}", host.name);
        }
        for lab in &labs {
            lab.router.run(["conntrack", "-F"]).unwrap();
        }
    }
}

#[test]
fn named_namespaces_are_observed_and_no_others() {
    let labs = labs();
    let [first, second] = &labs;
    let names = ["--netns", &first.router.name, "--netns", &second.router.name];
    let start = |more: &[&str]| {
        let args = ["trace", "-o", "-", "--no-fold"].iter().chain(&names).chain(more);
        Tracer::spawn(command(args).unwrap()).unwrap()
    };
    let (json, text) = (start(&["--format", "json"]), start(&[]));
    exchanges(&labs);
    let document = Document::json(&json.finish().unwrap()).unwrap();
    assert_eq!(ports(&document, &labs), expected(&labs));
    assert_eq!(document.flows.len(), 3);
    let text = Text::parse(&text.finish().unwrap()).unwrap();
    let line = |port: u16, lab: &Lab| {
        format!(
            "src = 10.77.1.2 (port={port}) to dst = 10.77.2.2 (port=7) (confirmed) [netns {}]",
            lab.router.name
        )
    };
    let lines: Vec<_> = text.lines.iter().map(|line| line.body.clone()).collect();
    assert_eq!(lines, [line(40_000, first), line(40_000, second), line(40_001, first)]);

    // dump knows them too, by name and by path.
    let path = second.router.path();
    let args = ["dump", "--format", "json", "--netns", &first.router.name, "--netns"];
    let listed = stdout(args.iter().copied().chain(path.to_str())).unwrap();
    let listed = Document::json(&listed).unwrap();
    let count = |name: &str| listed.flows.iter().filter(|flow| flow["netns"] == name).count();
    assert_eq!((count(&first.router.name), count(path.to_str().unwrap())), (2, 1));
}
