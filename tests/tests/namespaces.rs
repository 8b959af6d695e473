//! Several network namespaces at once: flows are told apart by the namespace's name even where
//! addresses and ports are the same.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use conntracker_tests::lab::{Lab, TRACKING};
use conntracker_tests::tracer::report::{self, Document, Text};
use conntracker_tests::tracer::{L4, PATIENCE, Tracer, backend, command, stdout};
use conntracker_tests::traffic::{udp_echo_server, udp_exchange};
use nix::sys::signal::Signal;
use serde_json::Value;

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

/// The report that a trace writes every second, as soon as it says what is wanted.
fn report_in_time(file: &Path, mut wanted: impl FnMut(&Document) -> bool) -> Document {
    let start = Instant::now();
    loop {
        let text = fs::read_to_string(file).unwrap_or_default();
        if let Ok(document) = Document::json(&text)
            && wanted(&document)
        {
            return document;
        }
        assert!(start.elapsed() < PATIENCE, "{text}");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn namespaces_that_come_later_are_observed_and_those_that_go_are_let_go() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    for backend in [backend(), "netlink"] {
        let args = ["trace", "--netns", "all", "--backend", backend, "--no-fold"];
        let output = ["--format", "json", "--interval", "1", "-o", file.to_str().unwrap()];
        let mut tracer = Tracer::spawn(command(args.into_iter().chain(output)).unwrap()).unwrap();
        let lab = Lab::new().unwrap();
        lab.router.nft(TRACKING).unwrap();
        let (name, inode) =
            (lab.router.name.clone(), fs::metadata(lab.router.path()).unwrap().ino());
        let said = |what: &str| format!("namespace {name} has {what}");
        tracer.process().wait_for(&said("come"), PATIENCE).unwrap();
        let server = udp_echo_server(&lab.server, lab.server.at(7)).unwrap();
        let of = |document: &Document| -> Vec<Value> {
            let ours = document.flows.iter().filter(|flow| flow["netns"] == name.as_str());
            ours.cloned().collect()
        };
        // Its rules are read a moment later.
        let mut ports = 40_000..;
        let traced = |flow: &Value| backend == "netlink" || flow.get("traversals").is_some();
        report_in_time(&file, |document| {
            let port = ports.next().unwrap();
            udp_exchange(&lab.client, lab.client.at(port), lab.server.at(7), b"hello").unwrap();
            of(document).iter().any(|flow| traced(flow) && flow["confirmed"] == true)
        });
        drop(server);
        drop(lab);
        tracer.process().wait_for(&said("gone"), PATIENCE).unwrap();
        let fds = fs::read_dir(format!("/proc/{}/fd", tracer.id())).unwrap();
        let held = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        let pinned = Path::new(&format!("net:[{inode}]")).to_owned();
        assert!(!held.into_iter().any(|fd| fd == pinned), "{name} is held");
        assert!(tracer.stop(Signal::SIGINT).unwrap().status.success());
        let document = Document::json(&fs::read_to_string(&file).unwrap()).unwrap();
        let flows = of(&document);
        assert!(flows.iter().any(traced), "{backend}: {flows:?}");
        if backend != "netlink" {
            // Names of what is gone.
            assert!(flows.iter().any(|flow| flow["interfaces"]["in"].is_string()), "{flows:?}");
        }
        assert_eq!(document.footer["losses"]["dumps_failed"], 0);
        let notes = document.header["notes"].to_string();
        assert!(notes.contains("namespaces came after the start"), "{notes}");
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
