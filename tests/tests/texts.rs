//! `rules show`: the texts of rules where nft does not tell all, or more than one expects. And texts of
//! strangers, wherever they are printed.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use conntracker_tests::lab::{Guarded, Host, Lab, output_without};
use conntracker_tests::tracer::listed::{array, chains};
use conntracker_tests::tracer::{PATIENCE, binary, command, output, stdout};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn document(router: &Host) -> Value {
    let args = ["rules", "show", "--format", "json", "--netns", &router.name];
    serde_json::from_str(&stdout(args).unwrap()).unwrap()
}

#[test]
fn rules_of_a_table_with_an_owner_have_their_texts() {
    let lab = Lab::new().unwrap();
    let mut nft = lab.router.command("nft");
    nft.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut owner = nft.spawn().unwrap();
    // The table is there as long as the program that made it.
    let mut commands = owner.stdin.take().unwrap();
    commands
        .write_all(
            b"add table inet own { flags owner; }
add chain inet own f { type filter hook forward priority 10; }
add rule inet own f udp dport 53 counter drop\n",
        )
        .unwrap();
    let list = || lab.router.run(["nft", "-a", "list", "ruleset"]).unwrap();
    let since = Instant::now();
    while !list().contains("udp dport 53") {
        assert!(since.elapsed() < Duration::from_secs(20), "{}", list());
        thread::sleep(Duration::from_millis(20));
    }
    assert!(list().lines().any(|line| line.starts_with("table ") && line.contains(" progname ")));
    let document = document(&lab.router);
    let texts: Vec<&Value> = chains(&document)
        .flat_map(|(_, chain)| array(&chain["rules"]).iter().map(|rule| &rule["text"]))
        .collect();
    assert_eq!(texts, ["udp dport 53 counter drop"]);
    assert_eq!(document["notes"], json!([]));
    drop(commands);
    owner.wait().unwrap();
}

/// Rules of which nft has no arguments, or no text at all.
const EXTENDED: &str = "*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -p udp -m udp --dport 53 -j CT --notrack
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -o eth9 -p udp -m udp --dport 68 -j CHECKSUM --checksum-fill
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -d 10.1.0.0/24 -j NETMAP --to 10.2.0.0/24
-A POSTROUTING -o eth9 -j MASQUERADE --random
-A POSTROUTING -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:user - [0:0]
-A INPUT -p tcp -m tcp --dport 22 -m set --match-set lab_set src -m comment --comment \"default/ssh # handle 9\" -j DROP
-A INPUT -m recent --update --seconds 60 --name ssh -j DROP
-A INPUT -p tcp -m connlimit --connlimit-above 20 -j REJECT
-A INPUT -m iprange --src-range 10.0.0.1-10.0.0.9 -j ACCEPT
-A INPUT ! -s 10.0.0.0/8 -i eth+ -m statistic --mode random --probability 0.5 -j user
-A INPUT -s 10.0.0.1 -d 10.0.0.2 -j ACCEPT
-A user -m comment --comment \"a\" -j RETURN
COMMIT
";

#[test]
fn rules_of_iptables_nft_have_their_comments_and_arguments() {
    let lab = Lab::new().unwrap();
    let r = &lab.router;
    r.run(["ipset", "create", "lab_set", "hash:ip"]).unwrap();
    r.run_with_input(["iptables-nft-restore"], EXTENDED).unwrap();
    let v6 = "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -m comment --comment b -j MASQUERADE\nCOMMIT\n";
    r.run_with_input(["ip6tables-nft-restore"], v6).unwrap();
    r.run(["arptables-nft", "-A", "INPUT", "-s", "10.0.0.1", "-j", "DROP"]).unwrap();
    r.run(["ebtables-nft", "-A", "INPUT", "-p", "IPv4", "-j", "DROP"]).unwrap();
    let list = || r.run(["nft", "-a", "list", "ruleset"]).unwrap();
    let before = list();
    let document = document(r);
    assert_eq!(before, list(), "looking changed it");
    assert_eq!((&document["notes"], &document["skipped"]), (&json!([]), &json!({})));

    let mut extended = 0;
    for (family, save) in [("ip", "iptables-nft-save"), ("ip6", "ip6tables-nft-save")] {
        // By table and chain, in order.
        let mut theirs: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        let mut table = String::new();
        for line in r.run([save]).unwrap().lines() {
            match line.strip_prefix("-A ") {
                Some(rule) => {
                    let chain = rule.split(' ').next().unwrap().to_owned();
                    theirs.entry((table.clone(), chain)).or_default().push(line.to_owned());
                }
                None => table = line.strip_prefix('*').map_or(table, str::to_owned),
            }
        }
        let ours = chains(&document).filter(|(table, _)| table["family"] == family);
        for (table, chain) in ours {
            let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
            let key = (name(table), name(chain));
            let theirs = theirs.remove(&key).unwrap_or_default();
            assert_eq!(array(&chain["rules"]).len(), theirs.len(), "{key:?}");
            for (rule, saved) in array(&chain["rules"]).iter().zip(theirs) {
                let kinds = array(&rule["kinds"]).iter();
                if kinds.filter_map(Value::as_str).any(|kind| kind.starts_with("xt")) {
                    extended += 1;
                    assert_eq!(rule["text"], saved);
                } else {
                    let listed = format!("# handle {}", rule["handle"]);
                    let text = rule["text"]
                        .as_str()
                        .unwrap()
                        .replace("counter", "counter packets 0 bytes 0");
                    assert!(before.contains(&format!("{text} {listed}")), "{rule}");
                }
            }
        }
        assert!(theirs.is_empty(), "{theirs:?}");
    }
    assert_eq!(extended, 12);
    let others = chains(&document)
        .filter(|(table, _)| ["arp", "bridge"].contains(&table["family"].as_str().unwrap()));
    assert_eq!(others.filter(|(_, chain)| array(&chain["rules"]).len() == 1).count(), 2);
}

#[test]
fn without_iptables_nft_save_that_is_noted_where_something_is_missing() {
    let lab = Lab::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let nft = lab.router.run(["which", "nft"]).unwrap();
    std::os::unix::fs::symlink(nft.trim(), directory.path().join("nft")).unwrap();
    let notes = || {
        let args = ["rules", "show", "--format", "json", "--netns", &lab.router.name];
        let mut command = command(args).unwrap();
        let missing = ["iptables-nft-save", "iptables-save"];
        let output = output_without(&missing, command.env("PATH", directory.path())).unwrap();
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        array(&document["notes"]).iter().map(|n| n.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let add = |rule: &str| {
        lab.router.run(["iptables-nft", "-A", "INPUT"].into_iter().chain(rule.split(' '))).unwrap();
    };
    add("-s 10.0.0.1 -j DROP");
    assert_eq!(notes(), [] as [&str; 0]);
    for name in ["a", "b"] {
        add(&format!("-m comment --comment {name} -j DROP"));
    }
    let notes = notes();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("iptables-nft-save is not found"), "{notes:?}");
}

/// What a stranger may put into a name: colors, an override of direction, a control sequence of C1, the end of a
/// line.
const EVIL: &str = "x\u{1b}[31m\u{202e}fdp\u{9b}2J\n# note";

/// A namespace of such a name; removed when dropped.
struct EvilNamespace(String);

impl EvilNamespace {
    fn new() -> Self {
        let name = format!("{EVIL}{}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).status().unwrap();
        assert!(made.success());
        Self(name)
    }
}

impl Drop for EvilNamespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Nothing of it may act on a terminal, or end a line.
fn harmless(what: &str, text: &[u8]) -> String {
    let text = String::from_utf8(text.to_vec()).unwrap();
    let bad =
        |c: char| (c.is_control() && !"\n\t".contains(c)) || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!text.contains(bad), "{what}: {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("# note") && !line.starts_with("# note: ")));
    text
}

#[test]
fn names_of_namespaces_act_on_no_terminal() {
    let (lab, evil) = (Lab::new().unwrap(), EvilNamespace::new());
    let name = evil.0.as_str();
    // An entry, so that there is something to tell.
    let entry = ["-p", "udp", "-s", "192.0.2.1", "-d", "192.0.2.2", "--sport", "1", "--dport", "2"];
    let create = [&["create", "--netns", name, "-t", "600"][..], &entry].concat();
    assert!(output(create).unwrap().status.success());
    let two = ["--netns", name, "--netns", &lab.router.name];
    for args in [
        &["dump"][..],
        &["dump", "--format", "plain"],
        &["dump", "--format", "csv"],
        &["dump", "--format", "ndjson"],
        &["count"],
        &["stats"],
        &["stats", "--format", "json"],
        &["trace", "--backend", "netlink", "--duration", "0.2", "-o", "-"],
        &["trace", "--backend", "netlink", "--duration", "0.2", "-o", "-", "--format", "json"],
    ] {
        let args = [args, &two].concat();
        let said = output(&args).unwrap();
        assert!(said.status.success(), "{args:?}: {:?}", said.stderr);
        let stdout = harmless(&format!("{args:?}"), &said.stdout);
        harmless(&format!("{args:?}"), &said.stderr);
        assert!(stdout.contains("31m"), "{args:?} does not tell it: {stdout}");
        // In JSON it is the same name.
        if args.contains(&"ndjson") {
            let told = stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            assert!(told.into_iter().any(|object| object["netns"] == name), "{stdout}");
        }
    }
    let rules = ["rules", "show", "--netns", name];
    harmless("rules", &output(rules).unwrap().stderr);
    // Names that are not there, and values that are none.
    let missing = format!("{name}-not");
    for args in [
        &["dump", "--netns", &missing][..],
        &["rules", "show", "--netns", &missing],
        &["trace", "--netns", &missing],
        &["doctor", "--netns", &missing],
        &["dump", "-p", name],
        &["trace", "--iif", name],
        &["trace", "--state", name],
        &["conntrack", "-L", "-p", name],
        &["conntrack", name, "-X", name],
        &[name],
    ] {
        let said = output(args).unwrap();
        assert_ne!(said.status.code(), Some(0), "{args:?}");
        assert!(!harmless(&format!("{args:?}"), &said.stderr).is_empty());
    }
}

#[test]
fn what_nft_says_acts_on_no_terminal() {
    let lab = Lab::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let nft = directory.path().join("nft");
    std::fs::write(&nft, format!("#!/bin/sh\nprintf '%s\\n' '{EVIL}' >&2\nexit 1\n")).unwrap();
    std::fs::set_permissions(&nft, std::fs::Permissions::from_mode(0o755)).unwrap();
    lab.router.nft("table inet t { chain c { type filter hook input priority 0; }; }").unwrap();
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    let mut rules = command(["rules", "show", "--netns", &lab.router.name]).unwrap();
    let said = rules.env("PATH", path).output().unwrap();
    let stderr = harmless("rules show", &said.stderr);
    assert!(stderr.contains("31m"), "{stderr}");
    harmless("rules show", &said.stdout);
}

/// A process chooses its name, and a rule's comment is whatever its author liked.
#[test]
fn names_of_processes_and_comments_act_on_no_terminal() {
    let lab = Lab::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let evil = directory.path().join("x\u{1b}c\u{202e}\u{9b}2J");
    std::os::unix::fs::symlink(binary().unwrap(), &evil).unwrap();
    let mut listener = command(["conntrack", "-E"]).unwrap();
    let mut listen = lab.router.command(listener.get_program());
    listen.args(listener.get_args());
    listener = listen;
    listener.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut listener = Guarded::spawn(&mut listener).unwrap();
    let since = Instant::now();
    while listener.wait_for("progname=", Duration::from_millis(50)).is_err() {
        assert!(since.elapsed() < PATIENCE, "{} {}", listener.stdout(), listener.stderr());
        let mut create = lab.router.command(&evil);
        create.args(["conntrack", "-R", "-"]).stdin(Stdio::piped());
        let mut process = create.spawn().unwrap();
        let line = "-A -t 9 -p udp -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2\n";
        let mut lines = process.stdin.take().unwrap();
        for _ in 0..200 {
            // It is looked for while it is there.
            let _ = lines.write_all(line.as_bytes()).and_then(|()| lines.write_all(b"-F\n"));
        }
        drop(lines);
        process.wait().unwrap();
    }
    listener.stop(Signal::SIGINT, PATIENCE).unwrap();
    let told = harmless("-E", listener.stdout().as_bytes());
    assert!(told.contains("progname=x?c?"), "{told}");

    let comment = "x\u{1b}[31m\u{202e}fdp\u{9b}2J";
    let rule = format!("counter comment \"{comment}\"");
    lab.router
        .nft(&format!(
            "table inet t {{ chain c {{ type filter hook input priority 0; {rule}; }}; }}"
        ))
        .unwrap();
    for format in ["text", "json"] {
        let said =
            output(["rules", "show", "--netns", &lab.router.name, "--format", format]).unwrap();
        let text = harmless(format, &said.stdout);
        assert!(text.contains("31m"), "{text}");
        if format == "json" {
            let document: Value = serde_json::from_str(&text).unwrap();
            assert!(document.to_string().contains('\u{202e}'), "{text}");
        }
    }
}
