//! The suites: test programs of `tests/`, built on the host and run in a guest.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use conntracker_tests::is_quick;
use serde_json::Value;

use super::initramfs::{PROGRAM, TESTS};
use super::kernels::Run;
use super::machine::Accel;
use super::protocol::{Job, Step};
use crate::{cmd, workspace};

/// A test program of `tests/tests`.
#[derive(Debug)]
pub struct Suite {
    /// Its name.
    pub name: &'static str,
    /// What is so on a kernel where it passes.
    pub proves: &'static str,
    /// When it is run if the CPU is emulated: there is not the time for all.
    emulated: Emulated,
}

/// When a suite is run on an emulated CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Emulated {
    /// In each run.
    Each,
    /// In the first run of each kernel.
    First,
    /// Not.
    No,
    /// Nor in any other virtual machine: it is not about kernels, and needs programs that guests do not have.
    Here,
}

/// All of them. Those of the library (the lab itself) are not about kernels.
#[rustfmt::skip]
pub const SUITES: &[Suite] = &[
    Suite { name: "alternatives", proves: "functions that are missing: what is taken in their place, and what is said", emulated: Emulated::First },
    Suite { name: "analyse", proves: "`rules shadowed`, `unused`, `diff`, `order`, `suggest`: proofs and predictions, compared with the kernel's own traces and verdicts", emulated: Emulated::No },
    Suite { name: "attribution", proves: "which rules packets met, compared with the kernel's own traces", emulated: Emulated::Each },
    Suite { name: "backends", proves: "`links` and `probes` side by side tell the same", emulated: Emulated::First },
    Suite { name: "bounds", proves: "more flows than there is room for: flat memory, exact sums, a report where memory is limited", emulated: Emulated::No },
    Suite { name: "cli", proves: "command line and `doctor`", emulated: Emulated::No },
    Suite { name: "compat", proves: "reports of version 0.1, rules included", emulated: Emulated::First },
    Suite { name: "compiled", proves: "`explain --against`: rules of files that are not loaded, compared with the same rules once they are", emulated: Emulated::No },
    Suite { name: "conntrack_api", proves: "the library reads and changes the table as conntrack(8) does", emulated: Emulated::No },
    Suite { name: "conntrack_cli", proves: "`conntracker conntrack` does, prints and answers what conntrack(8) does", emulated: Emulated::No },
    Suite { name: "daemon", proves: "daemon, pidfile, signals", emulated: Emulated::No },
    Suite { name: "diff", proves: "`diff`: changes of a firewall under traffic, each found in the flows that it changes and in no other", emulated: Emulated::No },
    Suite { name: "drops", proves: "dropped packets counted as the rules' own counters do: hooks, families, NAT, floods", emulated: Emulated::No },
    Suite { name: "dump", proves: "`dump` compared with `conntrack -L`", emulated: Emulated::No },
    Suite { name: "ends", proves: "ends of flows with their last counts, processes of local flows", emulated: Emulated::Each },
    Suite { name: "evaluate", proves: "the evaluator: decoded expressions as nft prints them, routes as `ip route get` finds them, paths and verdicts as the kernel traces them", emulated: Emulated::No },
    Suite { name: "explain", proves: "`explain`: verdict, deciding rule and exit status of packets, compared with what became of the same packets", emulated: Emulated::No },
    Suite { name: "faults", proves: "hangups, hung programs, bursts of namespaces, limits and full disks do not end a trace without its report", emulated: Emulated::No },
    Suite { name: "firewalls", proves: "rulesets that ufw, ferm, fail2ban, shorewall and firewalld write, compared with the kernel's own traces", emulated: Emulated::No },
    Suite { name: "flood", proves: "events at the highest rate beside `conntrack -E`", emulated: Emulated::No },
    Suite { name: "flows", proves: "flows, NAT, zones, marks, interfaces, drops, compared with the plan of packets", emulated: Emulated::Each },
    Suite { name: "follow", proves: "dropped packets as they happen, compared with the kernel's own traces; limits, slow readers", emulated: Emulated::First },
    Suite { name: "groups", proves: "`--by`: sums of flows, connmarks and drops, compared with `conntrack -L` and counters of rules", emulated: Emulated::First },
    Suite { name: "html", proves: "a page of a recording in a browser: no request, hostile names, filters, 50,000 flows", emulated: Emulated::Here },
    Suite { name: "hits", proves: "`rules hits`: flows and packets of each rule", emulated: Emulated::Each },
    Suite { name: "identity", proves: "direction, zone, entry and interface of packets; nested packets; nothing counted twice", emulated: Emulated::First },
    Suite { name: "interfaces", proves: "interfaces have the names that they had when packets met them", emulated: Emulated::No },
    Suite { name: "lifecycle", proves: "nothing stays attached, instances side by side, rules unchanged", emulated: Emulated::First },
    Suite { name: "lost", proves: "packets that no rule drops: the kernel's reason, and conntrack's own drops, compared with the kernel's counters", emulated: Emulated::First },
    Suite { name: "marks", proves: "marks before and after each hook, and what set them", emulated: Emulated::Each },
    Suite { name: "moments", proves: "flows that begin or end with the trace are counted once", emulated: Emulated::No },
    Suite { name: "namespaces", proves: "several network namespaces, each by itself", emulated: Emulated::First },
    Suite { name: "offline", proves: "recordings are followed while they are written; temporary files that cannot be written are an error", emulated: Emulated::No },
    Suite { name: "output", proves: "reports are written whole or not at all", emulated: Emulated::No },
    Suite { name: "path", proves: "`--format path`: steps in the order of `nft monitor trace` and of the target TRACE, below their jumps", emulated: Emulated::First },
    Suite { name: "recordings", proves: "recordings survive SIGKILL, full disks and rotation; reports of a part of the time", emulated: Emulated::No },
    Suite { name: "reload", proves: "rulesets replaced under traffic", emulated: Emulated::No },
    Suite { name: "rules", proves: "`rules show` compared with nft and iptables", emulated: Emulated::No },
    Suite { name: "soak", proves: "a daemon lives through namespaces in bursts, reloads and hangups, and does not grow", emulated: Emulated::No },
    Suite { name: "status", proves: "`status`: what a running agent says of itself; nobody disturbs it by asking", emulated: Emulated::No },
    Suite { name: "steps", proves: "steps of a packet, drops with hook and rule, sampling, filters by rule", emulated: Emulated::First },
    Suite { name: "storm", proves: "no flow is lost silently in storms of new flows", emulated: Emulated::No },
    Suite { name: "table", proves: "entries of conntrack's table made, changed and removed, as conntrack(8) sees them", emulated: Emulated::First },
    Suite { name: "texts", proves: "texts of rules where nft does not tell all: owners of tables, extensions of iptables-nft", emulated: Emulated::No },
    Suite { name: "untouched", proves: "the ruleset is the same before, during and after", emulated: Emulated::No },
    Suite { name: "untraced", proves: "chains of bridges and devices are named, and what they may have dropped", emulated: Emulated::No },
    Suite { name: "what_if", proves: "`report --against`: what was predicted to change changes, and nothing else, once the other rules are loaded", emulated: Emulated::No },
    Suite { name: "xtables", proves: "iptables: decoded rules as iptables-save prints them, answers as the kernel counts them, equal ones for three forms of the same rules", emulated: Emulated::No },
    Suite { name: "xtables", proves: "matches and targets of iptables are decoded and evaluated as the kernel does, by iptables-save and by counters", emulated: Emulated::Here },
];

/// What each run of the default set does with `CONNTRACKER_TESTS=quick`: kernel, backend, way of attaching, suites. What
/// the kernel that runs here proves as well (with links) is left out.
#[rustfmt::skip]
pub const QUICK: [(&str, &str, Option<&str>, &[&str]); 4] = [
    ("debian-6.1", "probes", Some("fentry"), &["attribution", "lost", "marks", "steps"]),
    ("debian-6.1", "probes", Some("kprobe"), &["ends", "flows"]),
    ("debian-6.12", "links", None, &["backends", "flows", "lifecycle"]),
    ("debian-6.12", "probes", Some("fentry"), &["alternatives", "hits"]),
];

/// The suites of a run in the table [`QUICK`]; none of a run that is not in it.
pub fn quick(kernel: &str, run: Run) -> Vec<&'static Suite> {
    let row = QUICK.iter().find(|(name, backend, attach, _)| {
        *name == kernel && *backend == run.backend && *attach == run.attach
    });
    let names = row.map_or(&[][..], |(.., names)| names);
    SUITES.iter().filter(|suite| names.contains(&suite.name)).collect()
}

/// How long a suite may take; emulation is slow.
fn limit(accel: Accel) -> Duration {
    match accel {
        Accel::Kvm => Duration::from_mins(5),
        Accel::Tcg => Duration::from_mins(10),
    }
}

/// Tests left out when the CPU is emulated: suite, start of their names, and why.
const LEFT_OUT: [(&str, &str, &str); 2] = [
    (
        "attribution",
        "synthetic::",
        "about the comparison itself, not about the kernel, and slow on an emulated CPU",
    ),
    ("conntrack_api", "speed::", "about time, which an emulated CPU has its own of"),
];

/// Which tests of a suite are left out, and why.
pub fn left_out(suite: &str, accel: Accel) -> Option<(&'static str, &'static str)> {
    let of_suite = LEFT_OUT.iter().find(|(name, ..)| *name == suite);
    of_suite.filter(|_| accel == Accel::Tcg).map(|(_, tests, why)| (*tests, *why))
}

/// Rulesets of each kind in the suite `attribution` when the CPU is emulated. One of the first four has nine
/// ways with nested resets: of two hundred rulesets that is nothing, of six more than the suite allows.
/// Number 4 has chains of one rule, whose end marker has once been taken for another expression.
pub const EMULATED_RULESETS: &str = "4..8";

/// The same with `CONNTRACKER_TESTS=quick`.
const QUICK_RULESETS: &str = "4..6";

/// The step that asks `conntracker doctor`, and what it is called.
pub const DOCTOR: &str = "doctor";

/// The suites to run: in the first run of a kernel, or in a later one. Names that are unknown are an
/// error.
pub fn choose(accel: Accel, first: bool, wanted: &[String]) -> Result<Vec<&'static Suite>> {
    for name in wanted {
        if !SUITES.iter().any(|suite| suite.name == name) {
            let names: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
            bail!("no suite `{name}`; there are: {}", names.join(", "));
        }
    }
    let chosen = SUITES.iter().filter(|suite| {
        if wanted.is_empty() {
            match suite.emulated {
                Emulated::Here => false,
                _ if accel == Accel::Kvm => true,
                Emulated::Each => true,
                Emulated::First => first,
                Emulated::No => false,
            }
        } else {
            wanted.iter().any(|name| name == suite.name)
        }
    });
    Ok(chosen.collect())
}

/// What a run does in the guest.
pub fn job(run: Run, accel: Accel, suites: &[&Suite]) -> Result<Job> {
    let variable = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let mut environment = vec![
        variable("CONNTRACKER_BIN", PROGRAM),
        variable("CONNTRACKER_TEST_BACKEND", run.backend),
    ];
    environment.extend(run.attach.map(|attach| variable("CONNTRACKER_TEST_ATTACH", attach)));
    match std::env::var("CONNTRACKER_RULESETS") {
        Ok(rulesets) => environment.push(variable("CONNTRACKER_RULESETS", &rulesets)),
        Err(_) if accel == Accel::Tcg => {
            let rulesets = if is_quick() { QUICK_RULESETS } else { EMULATED_RULESETS };
            environment.push(variable("CONNTRACKER_RULESETS", rulesets));
        }
        Err(_) => {}
    }
    let step = |name: &str, command: &[&str]| Step {
        name: name.to_owned(),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        limit: limit(accel),
    };
    // What a system with a firewall has loaded, so that doctor can look at all of it; and room for the
    // storms, which a kernel of 3 GiB does not offer by itself.
    let doctor = "modprobe -aq nf_conntrack nf_tables ip_tables ip6_tables
        sysctl -qw net.netfilter.nf_conntrack_max=262144
        conntracker doctor";
    let mut steps = vec![step(DOCTOR, &["sh", "-c", doctor])];
    for suite in suites {
        let program = format!("{TESTS}/{}", suite.name);
        // What passed tests say has the figures in it.
        let mut command = vec![program.as_str(), "--show-output"];
        if let Some((tests, _)) = left_out(suite.name, accel) {
            command.extend(["--skip", tests]);
        }
        steps.push(step(suite.name, &command));
    }
    let directory = workspace::root()?.join("tests").to_string_lossy().into_owned();
    Ok(Job { directory, environment, steps })
}

/// Builds the test programs.
pub fn build() -> Result<Vec<(String, PathBuf)>> {
    let mut cargo = workspace::cargo()?;
    cargo.args(["test", "--quiet", "--no-run", "--package", "conntracker-tests"]);
    cargo.args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    let output = cargo.output().with_context(|| format!("cannot start {}", cmd::show(&cargo)))?;
    ensure!(output.status.success(), "the test programs do not build");
    let built = programs(&String::from_utf8_lossy(&output.stdout));
    // A suite nobody has put into the table would never be run here, and nobody would know.
    for name in built.keys() {
        ensure!(
            SUITES.iter().any(|suite| suite.name == name),
            "test program `{name}` is missing in the table of xtask/src/vm/suites.rs"
        );
    }
    for Suite { name, .. } in SUITES {
        ensure!(built.contains_key(*name), "there is no test program `{name}`");
    }
    Ok(built.into_iter().collect())
}

/// Test programs from cargo's messages, but for the one of the library.
fn programs(messages: &str) -> BTreeMap<String, PathBuf> {
    let artifact = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let target = &message["target"];
        let test = target["kind"].as_array()?.iter().any(|kind| kind == "test");
        let name = target["name"].as_str().filter(|_| test)?;
        Some((name.to_owned(), PathBuf::from(message["executable"].as_str()?)))
    };
    messages.lines().filter_map(artifact).collect()
}

#[cfg(test)]
mod tests {
    use super::super::kernels;
    use super::*;

    #[test]
    fn test_programs_are_found_in_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"lab"},"executable":"/t/lab-1"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"flows"},"executable":"/t/flows-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(programs(messages), [("flows".to_owned(), "/t/flows-1".into())].into());
    }

    #[test]
    fn quick_runs_are_those_of_the_default_set() {
        for kernel in kernels::select(&[]).unwrap() {
            for &run in kernel.runs {
                let names: Vec<_> =
                    quick(kernel.name, run).iter().map(|suite| suite.name).collect();
                let listed = QUICK.iter().find(|(name, backend, attach, _)| {
                    (*name, *backend, *attach) == (kernel.name, run.backend, run.attach)
                });
                assert_eq!(names, listed.unwrap().3, "{}", kernel.name);
            }
        }
    }

    #[test]
    fn suites_are_chosen_by_name_or_by_the_time_there_is() {
        let number = |accel, first| choose(accel, first, &[]).unwrap().len();
        let here = SUITES.iter().filter(|suite| suite.emulated == Emulated::Here).count();
        assert_eq!(number(Accel::Kvm, false), SUITES.len() - here);
        assert!(number(Accel::Tcg, true) < SUITES.len());
        assert!(number(Accel::Tcg, false) < number(Accel::Tcg, true));
        let [suite] = choose(Accel::Tcg, false, &["cli".to_owned()]).unwrap()[..] else { panic!() };
        assert_eq!(suite.name, "cli");
        assert!(choose(Accel::Tcg, true, &["clii".to_owned()]).is_err());
    }
}
