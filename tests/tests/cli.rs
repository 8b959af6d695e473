//! The command line: bad usage is told in one line and exits with 2, failures exit with 1, and
//! `doctor` says what is so.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use conntracker_tests::lab::{Host, Lab, TRACKING};
use conntracker_tests::tracer::report::Text;
use conntracker_tests::tracer::{Tracer, backend, output, stdout};
use conntracker_tests::traffic::udp_send;

#[test]
fn bad_usage_exits_with_2_and_gives_its_reason_in_one_line() {
    let table: &[(&[&str], &str)] = &[
        (&["trace", "--duration", "soon"], "'soon' for '--duration"),
        (&["trace", "--duration", "0"], "must be more than zero"),
        (&["trace", "--interval", "-1"], "-1"),
        (&["trace", "--backend", "magic"], "'magic' for '--backend"),
        (&["trace", "--format", "yaml"], "'yaml' for '--format"),
        (&["trace", "--compat", "v9"], "'v9' for '--compat"),
        (&["trace", "--compat", "v0.1", "--no-fold"], "cannot be used with"),
        (&["trace", "--compat", "v0.1", "--format", "json"], "cannot be used with"),
        (&["trace", "-d", "-f"], "cannot be used with"),
        (&["trace", "-d", "-o", "-"], "a daemon has no standard output"),
        (&["dump", "--iif", "eth0", "--dropped"], "--iif, --dropped needs `trace`"),
        (&["trace", "--ring-size", "5"], "must be from 4K to 1G"),
        (&["trace", "--mark", "red"], "`red` is not a mark"),
        (&["trace", "-p", "nonsense"], "unknown protocol `nonsense`"),
        (&["trace", "-s", "10.0.0.0/33"], "`10.0.0.0/33` is neither an address nor a network"),
        (&["trace", "--sport", "9-1"], "ends before it starts"),
        (&["dump", "--dport", "65536"], "neither a port nor a service"),
        (&["dump", "-w", "65536"], "`65536` is not a zone"),
        (&["dump", "--status", "sleepy"], "unknown status `sleepy`"),
        (&["dump", "--family", "ipx"], "unknown family `ipx`"),
        (&["dump", "--nat", "--no-nat"], "cannot be used with"),
        (&["trace", "--rule", "forward"], "`forward` is no place; give TABLE/CHAIN"),
        (&["trace", "--rule", "fw/"], "`fw/` is no place"),
        (&["trace", "--rule", "fw/forward", "-c"], "`--rule` asks for rules, which `-c` declines"),
        (&["--rule", "!fw/forward/7", "-c"], "`--rule` asks for rules"),
        (&["dump", "--rule", "fw/forward"], "--rule needs `trace`"),
        (&["trace", "--sample", "-1"], "-1"),
        (&["trace", "--sample", "all"], "'all' for '--sample"),
        (&["trace", "--sample", "2", "-c"], "cannot be used with"),
        (&["trace", "--per-chain", "-c"], "cannot be used with"),
        (&["rules", "hits", "--duration", "0"], "must be more than zero"),
        (&["rules", "hits", "--format", "yaml"], "'yaml' for '--format"),
        (&["rules", "hits", "fw"], "unexpected argument 'fw'"),
        (&["rules", "hit"], "unrecognized subcommand 'hit'"),
        (&["doctor", "--loudly"], "unexpected argument '--loudly'"),
        (&["--no-such-option"], "unexpected argument '--no-such-option'"),
        (&["trace", "--attach", "magic"], "'magic' for '--attach"),
        (&["--backend", "links", "--attach", "kprobe"], "`--attach` is for the backend `probes`"),
        (&["--backend", "links", "--avoid", "f"], "`--avoid` is for the backend `probes`"),
        (&["--avoid", ""], "no function can be called ``"),
        (&["--avoid", "a b"], "no function can be called `a b`"),
        (&["trace", "--interval", "1ms"], "must be 100ms or more"),
        (&["dump", "--format", "plain", "--watch", "1ms"], "must be 100ms or more"),
        (&["trace", "--state", "FOO"], "no protocol has a state `FOO`"),
        (&["dump", "-p", "udp", "--state", "established"], "have no such --state"),
        (&["trace", "--iif", "an/interface"], "no interface can be called `an/interface`"),
        (&["trace", "--oif", "a-name-of-16-bytes"], "no interface can be called"),
        (&["dump", "--helper", "a-name-of-16-bytes"], "no helper can be called"),
        (&["trace", "-s", "::1", "--family", "ipv4"], "--src and --family are of different"),
        (&["count", "-s", "::1", "--dst", "10.0.0.1"], "--src and --dst are of different"),
        (&["dump", "-p", "tcp,nonsense"], "unknown protocol `nonsense`"),
        (&["dump", "--host", "10.0.0.1,x"], "`x` is neither an address"),
        (&["update", "--set-mark", "1"], "`update` needs a filter; `update --all` is for all"),
        (&["update", "--set-mark", "1", "--all", "-p", "tcp"], "--all is for all entries"),
        (&["delete"], "`delete` needs a filter; `delete --all` is for all"),
        (&["observe"], "observe"),
    ];
    for (args, reason) in table {
        let output = output(*args).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let first = said.lines().next().unwrap_or_default();
        assert!(first.contains("error: ") && first.contains(reason), "{args:?}: {said}");
    }
}

#[test]
fn failures_exit_with_1_and_give_their_reason_in_one_line() {
    for args in [
        &["trace", "--netns", "no-such-lab", "-o", "-"][..],
        &["dump", "--netns", "no-such-lab"],
        &["doctor", "--netns", "no-such-lab"],
        &["rules", "hits", "--netns", "no-such-lab"],
    ] {
        let output = output(args).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains("error: no network namespace `no-such-lab`"), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
    }
}

#[test]
fn a_filter_that_the_backend_cannot_answer_is_refused() {
    let lab = Lab::new().unwrap();
    for (option, value) in [("--oif", "eth0"), ("--rule", "fw/forward")] {
        let args = ["trace", "--netns", &lab.router.name, "--backend", "netlink", option, value];
        let output = output(args).unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        let error = format!("error: {option} cannot be answered by the netlink backend");
        assert!(said.contains(&error), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// What looks like a slip of the pen is told: the report would be empty, and nobody would know why.
#[test]
fn names_that_are_not_there_are_told() {
    let lab = Lab::new().unwrap();
    lab.router
        .nft("table inet fw { chain pass { type filter hook forward priority 0; counter; }; }")
        .unwrap();
    let listed = lab.router.run(["nft", "-a", "list", "chain", "inet", "fw", "pass"]).unwrap();
    let (_, handle) = listed.split_once("bytes 0 # handle ").unwrap();
    let rule = format!("inet fw/pass/{}", handle.lines().next().unwrap().trim());
    let said = |args: &[&str]| {
        let here = ["trace", "--netns", &lab.router.name, "--duration", "0.1", "-o", "-"];
        let output = output(here.iter().chain(args)).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        let warnings = said.lines().filter(|line| line.contains("warning: "));
        warnings.map(str::to_owned).collect::<Vec<_>>().join("\n")
    };
    for (args, what) in [
        (&["--iif", "nosuch0"][..], "there is no interface `nosuch0` now"),
        (&["--oif", "!nosuch0"], "there is no interface `nosuch0` now"),
        (&["--rule", "a/b/c/d"], "no chain and no rule is called `a/b/c/d` now"),
        (&["--rule", "fw/pass/99999"], "no chain and no rule is called `fw/pass/99999` now"),
        (&["--helper", "nosuch"], "the kernel has no helper `nosuch`"),
    ] {
        // Only where rules are traced can they be asked for.
        if backend() == "netlink" && !what.contains("helper") {
            continue;
        }
        let said = said(args);
        assert!(said.contains(what), "{args:?}: {said}");
    }
    for args in [
        &["--helper", "ftp"][..],
        &["--iif", "lo"],
        &["--rule", "fw/pass", "--rule", &rule, "--rule", "inet fw/pass"],
    ] {
        if backend() == "netlink" && args[0] != "--helper" {
            continue;
        }
        let said = said(args);
        assert!(!said.contains("there is no") && !said.contains("is called"), "{args:?}: {said}");
        assert!(!said.contains("has no helper"), "{args:?}: {said}");
    }
    let output = output(["dump", "--netns", &lab.router.name, "--helper", "nosuch"]).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("warning: the kernel has no helper `nosuch`"), "{said}");
}

#[test]
fn a_backend_that_does_not_work_here_says_why_and_is_not_replaced() {
    let lab = Lab::new().unwrap();
    for (backend, attach) in [("links", "auto"), ("probes", "fentry"), ("probes", "kprobe")] {
        let how = ["--backend", backend, "--attach", attach, "--duration", "0.1", "-o", "-"];
        let output = output(["trace", "--netns", &lab.router.name].into_iter().chain(how)).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        if output.status.success() {
            let report = String::from_utf8(output.stdout).unwrap();
            assert!(report.contains(&format!("# backend: {backend} (asked for")), "{report}");
        } else {
            assert_eq!(output.status.code(), Some(1), "{said}");
            let error = format!("conntracker: error: backend `{backend}` does not work here");
            assert!(said.starts_with(&error), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(output.stdout.is_empty());
        }
    }
}

#[test]
fn help_and_version_are_data() {
    assert!(stdout(["--help"]).unwrap().contains("doctor"));
    assert!(stdout(["trace", "--help"]).unwrap().contains("--no-fold"));
    assert!(stdout(["--version"]).unwrap().starts_with("conntracker "));
}

/// What doctor says of a thing: yes or no, and why.
fn doctor(host: &Host, thing: &str) -> (String, String) {
    let said = stdout(["doctor", "--netns", &host.name]).unwrap();
    let rest = said.lines().find_map(|line| line.strip_prefix(thing)).unwrap_or_else(|| {
        panic!("nothing of {thing}:\n{said}");
    });
    let (yes, why) = rest.trim_start().split_once(' ').unwrap();
    (yes.to_owned(), why.trim_start().to_owned())
}

#[test]
fn doctor_tells_whether_conntrack_is_active_and_what_would_make_it() {
    let lab = Lab::new().unwrap();
    let (active, why) = doctor(&lab.router, "conntrack active");
    assert_eq!(active, "no");
    assert!(why.contains("nft add rule"), "{why}");
    // The advice is good.
    let advice = why.split('`').find(|quoted| quoted.starts_with("nft ")).unwrap();
    lab.router.run(["sh", "-c", advice]).unwrap();
    assert_eq!(doctor(&lab.router, "conntrack active").0, "yes");
    lab.router.run(["nft", "flush", "ruleset"]).unwrap();
    assert_eq!(doctor(&lab.router, "conntrack active").0, "no");
    lab.router
        .nft("table ip t { chain c { type filter hook input priority 0; ct state new accept; }; }")
        .unwrap();
    assert_eq!(doctor(&lab.router, "conntrack active"), ("yes".into(), "for IPv4 only".into()));
    let rules =
        ("yes".into(), "can be traced (chains of nf_tables: 1, tables of ip_tables: 0)".into());
    assert_eq!(doctor(&lab.router, "rules "), rules);
    lab.router.nft(TRACKING).unwrap();
    let both = ("yes".into(), "for IPv4 and IPv6".into());
    assert_eq!(doctor(&lab.router, "conntrack active"), both);
}

#[test]
fn doctor_names_sysctls_that_are_off_and_the_backend() {
    let lab = Lab::new().unwrap();
    for key in ["nf_conntrack_acct", "nf_conntrack_timestamp", "nf_conntrack_events"] {
        lab.router.sysctl(&format!("net.netfilter.{key}"), "0").unwrap();
        let (on, why) = doctor(&lab.router, key);
        assert_eq!(on, "no");
        assert!(why.contains(&format!("sysctl -w net.netfilter.{key}=1")), "{why}");
        lab.router.sysctl(&format!("net.netfilter.{key}"), "1").unwrap();
        assert_eq!(doctor(&lab.router, key).0, "yes");
    }
    // The one that it names is one that works.
    let (named, _) = doctor(&lab.router, "backend ");
    assert_eq!(doctor(&lab.router, named.trim_end_matches(':')).0, "yes");
}

#[test]
fn a_trace_without_conntrack_says_so_and_how_to_enable_it() {
    let lab = Lab::new().unwrap();
    let tracer = Tracer::start(&lab.router, &["--backend", backend()]).unwrap();
    udp_send(&lab.client, lab.client.at(40_000), lab.server.at(9), b"hello", 3).unwrap();
    let text = Text::parse(&tracer.finish().unwrap()).unwrap();
    assert!(text.lines.is_empty(), "{text:?}");
    let note = |words: &str| {
        text.header.iter().any(|line| line.starts_with("note: ") && line.contains(words))
    };
    assert!(note("conntrack is not active") && note("nft add rule"), "{:?}", text.header);
    assert!(note("packets passed, none of them tracked"), "{:?}", text.header);
    assert!(text.counter("packets_without_conntrack").unwrap() >= 3);

    // With a rule the note is gone, and what is off is still named.
    lab.router.nft(TRACKING).unwrap();
    lab.router.sysctl("net.netfilter.nf_conntrack_events", "0").unwrap();
    for (backend, events) in [(backend(), false), ("netlink", true)] {
        let report = Tracer::start(&lab.router, &["--backend", backend]).unwrap().finish().unwrap();
        assert!(!report.contains("conntrack is not active"), "{report}");
        assert!(report.contains("net.netfilter.nf_conntrack_acct=1"), "{report}");
        assert_eq!(report.contains("conntrack events are off"), events, "{report}");
    }
}
