//! Rules of files that are not loaded: `conntracker explain --against` and `--expect`. What is said of packets is what
//! is said once the files are loaded, and nothing is loaded before.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::rulesets::{Kind, ORACLE_TABLE, Ruleset};
use conntracker_tests::tracer::{binary, output};
use conntracker_tests::traffic::{udp_echo_server, udp_exchange};
use serde_json::Value;

const FIREWALL: &str = r#"table inet fw {
    set servers { type ipv4_addr . inet_service; elements = { 10.77.2.2 . 443, 10.77.2.2 . 53 }; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iif "toclient" ip daddr . tcp dport @servers accept
        udp dport 53 meta mark set 0x5 accept
    }
}
table ip other {
    chain post { type filter hook postrouting priority 0; tcp dport 443 accept; }
}
"#;

/// A new ruleset that forgets a service.
const NEW: &str = r#"flush ruleset
table inet fw {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iif "toclient" ip daddr 10.77.2.2 tcp dport 53 accept
    }
}
"#;

fn lab() -> Lab {
    let lab = Lab::new().unwrap();
    lab.router.nft(FIREWALL).unwrap();
    lab
}

/// What is said, on standard output and on standard error, and the exit status.
fn said(args: &[&str]) -> (String, String, i32) {
    let said = output([&["explain"], args].concat()).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(said.stdout), text(said.stderr), said.status.code().unwrap())
}

fn answer(args: &[&str]) -> (Value, i32) {
    let (text, error, code) = said(&[args, &["--format", "json"]].concat());
    let parsed = serde_json::from_str(&text);
    (parsed.unwrap_or_else(|_| panic!("{args:?}: {text}{error}")), code)
}

/// Files that are gone with the directory.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn listed(host: &Host) -> String {
    host.run(["nft", "-a", "list", "ruleset"]).unwrap()
}

#[test]
fn a_file_replaces_adds_or_deletes_and_nothing_is_loaded() {
    let (lab, files) = (lab(), Files::new());
    let netns = lab.router.name.as_str();
    let new = files.write("new.nft", NEW);
    let add = files.write("add.nft", "add rule inet fw forward iif toclient tcp dport 22 accept\n");
    let gone = files.write("gone.nft", "delete table inet fw\n");
    let element = files.write("element.nft", "add element inet fw servers { 10.77.2.2 . 8443 }\n");
    let before = listed(&lab.router);
    // File, port, verdict and exit status with it, verdict of today.
    for (file, port, verdict, status, today) in [
        (&new, 443, "drop", 1, "accept"),
        (&new, 53, "accept", 0, "accept"),
        (&add, 22, "accept", 0, "drop"),
        (&add, 443, "accept", 0, "accept"),
        (&gone, 80, "accept", 0, "drop"),
        (&element, 8443, "accept", 0, "drop"),
    ] {
        let to = format!("{}:{port}", lab.server.v4());
        let args = ["tcp", "10.77.1.2:4000", &to, "--netns", netns, "--against", file];
        let (answer, code) = answer(&args);
        assert_eq!(
            (&answer["verdict"], code),
            (&verdict.into(), status),
            "{file} {port}: {answer}"
        );
        assert_eq!(answer["today"]["verdict"], today, "{file} {port}: {answer}");
        // What no file names stays, with its handles.
        let other = |answer: &Value| {
            let steps = answer["steps"].as_array().unwrap();
            steps.iter().find(|step| step["table"] == "other").cloned()
        };
        if verdict == today {
            assert_eq!(
                other(&answer),
                other(&answer["today"]).filter(|_| file != &new),
                "{answer}"
            );
        }
    }
    assert_eq!(listed(&lab.router), before);
    let (text, _, _) =
        said(&["tcp", "10.77.1.2", "10.77.2.2:443", "--netns", netns, "--against", &new]);
    let end: Vec<&str> = text.lines().rev().take(2).collect();
    assert_eq!(end, ["today: accept", "verdict: drop by inet fw/forward 3"], "{text}");
}

#[test]
fn a_file_that_cannot_be_loaded_is_refused_in_one_line() {
    let (lab, files) = (lab(), Files::new());
    let netns = lab.router.name.as_str();
    for (name, text, why) in [
        ("syntax.nft", "table inet fw { chain", "syntax error"),
        ("device.nft", "add rule inet fw forward iif nothere accept\n", "no interface `nothere`"),
        ("missing.nft", "add rule inet fw nochain accept\n", "No such file or directory"),
        ("bad.rules", "*filter\n-A FORWARD -j NOSUCHTARGET\nCOMMIT\n", "NOSUCHTARGET"),
    ] {
        let file = files.write(name, text);
        let args = ["tcp", "10.77.1.2", "10.77.2.2:443", "--netns", netns, "--against", &file];
        let (out, error, code) = said(&args);
        assert_eq!((out.as_str(), code, error.lines().count()), ("", 1, 1), "{name}: {error}");
        assert!(error.contains(name) && error.contains(why), "{name}: {error}");
    }
    let args = ["tcp", "10.77.1.2", "10.77.2.2:443", "--netns", netns, "--against", "/nothere"];
    let (_, error, code) = said(&args);
    assert_eq!((code, error.lines().count()), (1, 1), "{error}");
}

#[test]
fn files_say_what_the_same_rules_say_once_they_are_loaded() {
    let rounds = if conntracker_tests::is_quick() { 2 } else { 40 };
    let packets = [
        ("tcp", "10.77.1.2:40000", "10.77.2.2:80"),
        ("tcp", "10.77.1.2:1025", "10.77.2.2:443"),
        ("udp", "10.77.1.2:5353", "10.77.2.2:53"),
        ("udp", "10.77.2.2:53", "10.77.1.2:1024"),
        ("tcp", "10.77.1.2:40000", "10.77.1.1:22"),
        ("icmp", "10.77.1.2", "10.77.2.2"),
        ("tcp", "[fd77:1::2]:40000", "[fd77:2::2]:80"),
        ("udp", "[fd77:1::2]:40000", "[fd77:2::2]:53"),
        ("icmpv6", "fd77:1::2", "fd77:2::1"),
    ];
    let (mut compared, mut decided) = (0, 0);
    for number in 0..rounds {
        for kind in [Kind::Nft, Kind::NftBare, Kind::IptablesNft, Kind::IptablesLegacy] {
            let (lab, files) = (Lab::new().unwrap(), Files::new());
            let netns = lab.router.name.as_str();
            if kind == Kind::IptablesLegacy {
                // The host uses it already.
                for program in ["iptables-legacy", "ip6tables-legacy"] {
                    lab.router.run([program, "-A", "FORWARD", "-j", "ACCEPT"]).unwrap();
                }
            }
            let ruleset = Ruleset::generate(kind, number);
            let mut against = Vec::new();
            for (index, (program, text)) in ruleset.loads.iter().enumerate() {
                let family = if program.starts_with("ip6") { "v6" } else { "v4" };
                against.push("--against".to_owned());
                against.push(files.write(&format!("{index}.{family}"), text));
            }
            let against: Vec<&str> = against.iter().map(String::as_str).collect();
            let ask = |more: &[&str]| -> Vec<(Value, i32)> {
                let ask = |(proto, from, to)| {
                    answer(&[&[proto, from, to, "--netns", netns], more].concat())
                };
                packets.map(ask).into()
            };
            let predicted = ask(&against);
            ruleset.load(&lab.router).unwrap();
            for ((mut predicted, status), (mut loaded, code)) in predicted.into_iter().zip(ask(&[]))
            {
                for answer in [&mut predicted, &mut loaded] {
                    answer.as_object_mut().unwrap().remove("today");
                    without_handles(answer);
                }
                assert_eq!((&predicted, status), (&loaded, code), "{ruleset}");
                compared += 1;
                decided += u32::from(code != 4);
            }
        }
    }
    println!("{compared} packets, {decided} of them decided");
    assert!(decided * 2 > compared, "{decided} of {compared}");
}

/// Takes away what a ruleset gets anew each time that it is loaded, and the steps of the table that traces.
fn without_handles(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.remove("handle");
            object.values_mut().for_each(without_handles);
        }
        Value::Array(values) => {
            values.retain(|value| value["table"] != ORACLE_TABLE);
            values.iter_mut().for_each(without_handles);
        }
        _ => {}
    }
}

#[test]
fn expectations_hold_or_name_the_rule_that_is_to_blame() {
    let (lab, files) = (lab(), Files::new());
    let netns = lab.router.name.as_str();
    let expect = files.write(
        "expect",
        "# services\n\
         allow tcp from 10.77.1.0/24 to 10.77.2.2 port 443\n\
         deny tcp from 10.77.1.0/24 to 10.77.2.2 port 22,80-90  # never\n\
         deny tcp from any to 10.77.2.2 port 443 in toserver\n\
         allow tcp from 10.77.2.2 port 443 to 10.77.1.0/24 state established\n",
    );
    let (text, error, code) = said(&["--expect", &expect, "--netns", netns]);
    assert_eq!((code, text.matches("  ok  ").count()), (0, 4), "{text}{error}");
    assert!(
        text.contains("(proved)") && text.ends_with("4 lines, 0 fail, 0 undecided\n"),
        "{text}"
    );
    let new = files.write("new.nft", NEW);
    let args = ["--expect", &expect, "--netns", netns, "--against", &new];
    let (text, _, code) = said(&args);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("the first that fails is line 2"), "{text}");
    assert!(text.contains("drop by inet fw/forward 3 `policy`"), "{text}");
    let (all, code) = answer(&args);
    let outcomes: Vec<&str> = all["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(code, 1);
    assert_eq!(outcomes[0], "fails", "{all}");
    assert!(outcomes[1..].iter().all(|outcome| ["proved", "tried"].contains(outcome)), "{all}");
    let limited = files.write(
        "limit.nft",
        "insert rule inet fw forward tcp dport 443 limit rate 1/second accept\n\
         insert rule inet fw forward tcp dport 443 limit rate 1/second drop\n",
    );
    let args = ["--expect", &expect, "--netns", netns, "--against", &limited];
    let (text, _, code) = said(&args);
    assert!(code == 4 && text.contains("undecided: limit"), "{text}");
    for (text, why) in [("", "no line to check"), ("allow tcp to nowhere\n", "line 1")] {
        let file = files.write("bad", text);
        let (out, error, code) = said(&["--expect", &file, "--netns", netns]);
        assert_eq!((out.as_str(), code, error.lines().count()), ("", 1, 1), "{error}");
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn without_a_host_and_without_rights_files_alone_are_asked() {
    let files = Files::new();
    let rules = files.write(
        "rules.nft",
        "table inet fw {\n chain forward { type filter hook forward priority 0; policy drop;\n  \
         iif \"lan7\" oifname \"dmz7\" tcp dport 22 accept\n }\n}\n",
    );
    let expect = files.write(
        "expect",
        "allow tcp from any to any port 22 in lan7 out dmz7\ndeny tcp from any to any port 23 in lan7 out dmz7\n",
    );
    // Somebody else: the files are to be read by all, and so is the program.
    let open = |path: &Path| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(path, mode).unwrap();
    };
    open(files.0.path());
    let copy = files.0.path().join("conntracker");
    fs::copy(binary().unwrap(), &copy).unwrap();
    open(&copy);
    let said = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .args(["explain", "--no-host", "--against", &rules, "--expect", &expect])
        .output()
        .unwrap();
    let (text, error) =
        (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    if error.contains("user_namespaces") || error.contains("unprivileged_userns_clone") {
        println!("this kernel lets users make no user namespaces: {error}");
        return;
    }
    assert_eq!(said.status.code(), Some(0), "{text}{error}");
    assert_eq!(text.matches("(proved)").count(), 2, "{text}");
    assert!(error.contains("`lan7` is taken to be there"), "{error}");
}

#[test]
fn a_flow_has_the_state_mark_and_translation_of_its_entry() {
    let lab = Lab::tracking().unwrap();
    let netns = lab.router.name.as_str();
    lab.router
        .nft(
            "table ip nat {\n chain post { type nat hook postrouting priority srcnat; udp dport 53 snat to 10.77.2.1:7777; }\n}\n\
             table inet fw {\n chain forward { type filter hook forward priority filter; policy drop;\n  \
             ct state established ct mark 0x9 accept\n  ct state new ct mark set 0x9 accept\n }\n}\n",
        )
        .unwrap();
    let _server = udp_echo_server(&lab.server, lab.server.at(53)).unwrap();
    udp_exchange(&lab.client, lab.client.at(4000), lab.server.at(53), b"x").unwrap();
    for (from, to) in [("10.77.1.2", "10.77.2.2:53"), ("10.77.2.2:53", "10.77.2.1:7777")] {
        let (answer, code) = answer(&["udp", from, to, "--flow", "--netns", netns]);
        assert_eq!((&answer["verdict"], code), (&"accept".into(), 0), "{answer}");
        let steps = answer["steps"].as_array().unwrap();
        let met: Vec<_> = steps.iter().filter(|step| step["hook"] == "forward").collect();
        assert_eq!(met.last().unwrap()["position"], 1, "{answer}");
        // Chains of NAT see the first packet alone.
        assert!(steps.iter().all(|step| step["table"] != "nat"), "{answer}");
    }
    let (_, error, code) = said(&["udp", "10.77.1.2", "10.77.2.2:54", "--flow", "--netns", netns]);
    assert_eq!((code, error.lines().count()), (1, 1), "{error}");
    assert!(error.contains("no flow"), "{error}");
}
