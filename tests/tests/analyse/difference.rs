//! Packets that two rulesets treat otherwise are found, those of folded rules and of recorded flows among them; and none
//! between rulesets that do the same.

use std::fs;
use std::path::Path;
use std::time::Duration;

use conntracker_tests::lab::Lab;
use conntracker_tests::tracer::output;
use conntracker_tests::tracer::recording::recording;
use conntracker_tests::traffic::udp_send;
use nix::sys::signal::Signal;
use serde_json::Value;

/// What is said of two rulesets, and the exit status.
fn diff(args: &[&str]) -> (Value, Option<i32>) {
    let said = output([&["rules", "diff", "--format", "json"], args].concat()).unwrap();
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    let document = serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{error}"));
    (document, said.status.code())
}

/// A file with these rules in the chain `input`.
fn file(directory: &Path, name: &str, rules: &str) -> String {
    let path = directory.join(name);
    let chain = "type filter hook input priority 0; policy drop;";
    fs::write(&path, format!("table inet fw {{ chain input {{ {chain}\n{rules}\n}}\n}}\n"))
        .unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_fold_that_changes_what_rules_mean_is_caught() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, rules: &str| file(directory.path(), name, rules);
    // `tcp flags syn` is a test of a bit. As an element of a set it is an exact value, as some versions of `nft -o` fold
    // it: then SYN with ECN no longer passes.
    let single = file("single", "tcp flags syn accept\ntcp flags ack accept");
    let folded = file("folded", "tcp flags { syn, ack } accept");
    let (said, code) = diff(&[&single, &folded]);
    assert_eq!(code, Some(1), "{said}");
    let first = &said["differences"][0];
    assert_eq!((&first["relation"], &first["hook"]), (&"verdict".into(), &"input".into()));
    assert_eq!(
        (&first["a"]["verdict"], &first["b"]["verdict"]),
        (&"accept".into(), &"drop".into())
    );
    assert!(first["a"]["by"]["text"].as_str().unwrap().contains("tcp flags"), "{first}");
    let flags = first["packet"]["tcp_flags"].as_u64().unwrap();
    assert!(flags & 0x12 != 0 && flags != 0x02 && flags != 0x10, "{first}");
    assert!(said["packets"].as_u64().unwrap() > 1_000, "{said}");
    // What means the same is the same.
    let masks = file("masks", "tcp flags & (syn | ack) != 0 accept");
    let (said, code) = diff(&[&single, &masks]);
    assert_eq!((code, &said["different"]), (Some(0), &0.into()), "{said}");
}

/// What this machine's nft makes of the same rules is judged by what it lists.
#[test]
fn what_nft_folds_here_is_judged_by_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let single = file(directory.path(), "single", "tcp flags syn accept\ntcp flags ack accept");
    let lab = Lab::new().unwrap();
    lab.router.run(["nft", "-o", "-f", &single]).unwrap();
    let listed = lab.router.run(["nft", "list", "ruleset"]).unwrap();
    let folds_wrongly = listed.contains("tcp flags { syn, ack }");
    println!("nft -o folds wrongly: {folds_wrongly}");
    let (said, code) = diff(&[&single, "live", "--netns", &lab.router.name]);
    assert_eq!(code, Some(i32::from(folds_wrongly)), "{listed}\n{said}");
}

#[test]
fn constants_are_tried_at_their_ends() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, rules: &str| file(directory.path(), name, rules);
    let before = file(
        "before",
        "ip saddr 10.0.0.0/8 tcp dport 1000-2000 accept\nudp dport { 53, 123 } accept",
    );
    for (name, rules) in [
        ("port", "ip saddr 10.0.0.0/8 tcp dport 1000-1999 accept\nudp dport { 53, 123 } accept"),
        ("prefix", "ip saddr 10.0.0.0/9 tcp dport 1000-2000 accept\nudp dport { 53, 123 } accept"),
        ("element", "ip saddr 10.0.0.0/8 tcp dport 1000-2000 accept\nudp dport { 53, 124 } accept"),
        ("protocol", "ip saddr 10.0.0.0/8 tcp dport 1000-2000 accept\nth dport { 53, 123 } accept"),
        (
            "mark",
            "ip saddr 10.0.0.0/8 tcp dport 1000-2000 meta mark set 1 accept\nudp dport { 53, 123 } accept",
        ),
        (
            "state",
            "ct state new ip saddr 10.0.0.0/8 tcp dport 1000-2000 accept\nudp dport { 53, 123 } accept",
        ),
    ] {
        let after = file(name, rules);
        let (said, code) = diff(&[&before, &after]);
        assert_eq!(code, Some(1), "{name}: {said}");
        let expected = if name == "mark" { "packet" } else { "verdict" };
        assert_eq!(said["differences"][0]["relation"], expected, "{name}: {said}");
    }
    let order = file(
        "order",
        "udp dport { 123, 53 } accept\nip saddr 10.0.0.0/8 tcp dport 1000-2000 accept",
    );
    assert_eq!(diff(&[&before, &order]).1, Some(0));
}

#[test]
fn recorded_flows_are_evaluated_from_end_to_end() {
    const FIREWALL: &str = "table inet fw { chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established accept
        udp dport 7000-7999 counter accept
    }
    }";
    let lab = Lab::new().unwrap();
    lab.router.nft(FIREWALL).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("r.rec");
    let tracer = recording(&lab.router, &file, &[]).unwrap();
    for port in [7001, 7500, 8000] {
        udp_send(&lab.client, lab.client.at(4000), lab.server.at(port), b"x", 1).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    tracer.stop(Signal::SIGINT).unwrap();
    let after = directory.path().join("after.nft");
    fs::write(&after, FIREWALL.replace("7999", "7400")).unwrap();
    let (recorded, after) = (file.to_str().unwrap(), after.to_str().unwrap());
    let (said, code) = diff(&[recorded, after]);
    assert_eq!((code, &said["flows"]), (Some(1), &3.into()), "{said}");
    let flows: Vec<&Value> = said["differences"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|difference| difference.get("hook").is_none())
        .collect();
    let [flow] = flows[..] else { panic!("{said}") };
    assert_eq!(flow["packet"]["destination"], "10.77.2.2:7500", "{flow}");
    assert_eq!(
        (&flow["a"]["by"]["position"], &flow["b"]["by"]["position"]),
        (&2.into(), &3.into())
    );
    // The kernel's rules are those of the recording.
    let (said, code) = diff(&["live", recorded, "--netns", &lab.router.name, "--packets", "2000"]);
    // Namespaces of recordings have the names that they were observed by.
    assert_eq!((code, &said["different"]), (Some(0), &0.into()), "{said}");
}
