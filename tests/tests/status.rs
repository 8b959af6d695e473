//! `conntracker status`: what a running agent says of itself, compared with its report; and an agent that nobody can
//! disturb by asking.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use conntracker_tests::lab::Lab;
use conntracker_tests::tracer::report::Document;
use conntracker_tests::tracer::{Daemon, PATIENCE, Tracer, backend, output};
use conntracker_tests::traffic::{udp_send, udp_through};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Waits for something that comes sooner or later.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Exit status, standard output and standard error of `conntracker status`.
fn status(args: &[&str]) -> (Option<i32>, String, String) {
    let output = output(["status"].iter().chain(args)).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The status of an agent that runs.
fn json(args: &[&str]) -> Value {
    let (code, said, error) = status(&[args, &["--format", "json"]].concat());
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(said.matches('\n').count(), 1, "{said}");
    serde_json::from_str(&said).unwrap()
}

#[test]
fn a_daemon_tells_what_its_report_tells_and_where_it_is() {
    let lab = Lab::tracking().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (pidfile, report) = (path("ct.pid"), path("report.json"));
    let args = ["-d", "--netns", &lab.router.name, "--pidfile", &pidfile, "-o", &report];
    let more = ["--no-fold", "--format", "json", "-p", "udp", "--backend", backend()];
    let started = output(args.iter().chain(&more)).unwrap();
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let daemon = Daemon::of(Path::new(&pidfile)).unwrap();

    // It is there when the starter returns.
    let at = ["--pidfile", pidfile.as_str()];
    let mut first = json(&at);
    // The loop publishes for the first time within about a second.
    let start = Instant::now();
    while first["state"] == "starting" {
        assert!(start.elapsed() < PATIENCE, "{first}");
        thread::sleep(Duration::from_millis(50));
        first = json(&at);
    }
    assert_eq!(first["state"], "observing");
    assert_eq!(first["pid"], daemon.id().as_raw());
    assert_eq!(first["namespaces"], serde_json::json!([lab.router.name]));
    assert_eq!(first["report"], serde_json::json!({ "destination": report }));
    assert_eq!((&first["flows"], &first["lost"]), (&0.into(), &0.into()), "{first}");
    assert!(first["memory"]["resident_bytes"].as_u64().unwrap() > 1 << 20);
    let epochs = first["rules"]["epochs"].as_u64();
    assert!(epochs >= Some(1), "{first}");

    for port in 40_000..40_005 {
        udp_through(&lab, port).unwrap();
    }
    until("its flows", || json(&at)["flows"] == 5);
    lab.router.nft("add table inet more").unwrap();
    let begun = |status: &Value| status["rules"]["last_began"].as_str().unwrap().to_owned();
    until("the epoch", || json(&at)["rules"]["epochs"].as_u64() > epochs);
    assert!(begun(&json(&at)) > begun(&first));

    daemon.signal(Signal::SIGUSR1).unwrap();
    until("the report", || json(&at)["report"].get("last_written").is_some());
    let now = json(&at);
    let document = Document::json(&fs::read_to_string(&report).unwrap()).unwrap();
    assert_eq!(now["report"]["last_flows"], 5);
    assert_eq!(document.flows.len(), 5);
    for same in ["backend", "start"] {
        let header = &document.header[same];
        let said = if same == "backend" { &now["backend"]["name"] } else { &now["start"] };
        // The offset of the two clocks is measured for each of them.
        let until = |value: &Value| value.as_str().unwrap().chars().take(19).collect::<String>();
        assert_eq!(until(said), until(header));
    }
    assert_eq!(now["filters"], document.header["filters"]);
    assert!(now["records"].as_u64() >= document.footer["sources"]["records"].as_u64(), "{now}");

    // As text, and for a program that asks whether anything was lost.
    let (code, text, error) = status(&["--pidfile", &pidfile, "--strict"]);
    assert_eq!(code, Some(0), "{text}{error}");
    for line in ["state: observing\n", "flows: 5 of at most", "lost: 0\n", "filters: --proto udp\n"]
    {
        assert!(text.contains(line), "{text}");
    }

    daemon.terminate().unwrap();
    let (code, text, error) = status(&at);
    assert_eq!((code, text.as_str()), (Some(1), ""), "{error}");
    assert!(error.contains("no agent answers at /run/conntracker/ct-"), "{error}");
    assert_eq!(error.matches('\n').count(), 1, "{error}");
}

#[test]
fn a_killed_agent_leaves_a_socket_that_the_next_one_takes_and_a_living_one_keeps_it() {
    let lab = Lab::tracking().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let at = ["--socket", socket.to_str().unwrap()];
    let start = || Tracer::start(&lab.router, &at).unwrap();
    start().stop(Signal::SIGKILL).unwrap();
    assert!(fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
    assert_eq!(status(&at).0, Some(1));

    let tracer = start();
    let mode = fs::symlink_metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);
    assert_eq!(json(&at)["pid"], tracer.id());
    let all = ["trace", "--netns", &lab.router.name, "-o", "-"];
    let second = output(all.iter().chain(&at)).unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("another agent answers at"), "{said}");
    assert_eq!(json(&at)["pid"], tracer.id());
    tracer.finish().unwrap();
    assert!(!socket.exists());

    // In the foreground there is none that was not asked for.
    let tracer = Tracer::start(&lab.router, &[]).unwrap();
    assert_eq!(named_sockets(tracer.id()), [] as [String; 0]);
    tracer.finish().unwrap();
}

/// Paths of the Unix sockets of a process, abstract ones aside.
fn named_sockets(pid: u32) -> Vec<String> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let links: Vec<_> = links.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    let path = |line: &str| {
        let mut columns = line.split_whitespace().skip(6);
        let (inode, path) = (columns.next()?, columns.next()?);
        let is_of = links.iter().any(|link| link.as_os_str() == &*format!("socket:[{inode}]"));
        (is_of && !path.starts_with('@')).then(|| path.to_owned())
    };
    sockets.lines().filter_map(path).collect()
}

#[test]
fn losses_are_an_exit_status_for_who_is_strict() {
    let lab = Lab::tracking().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let at = ["--socket", socket.to_str().unwrap()];
    let options = ["--max-flows", "3", "--no-fold", "--format", "json"];
    let tracer = Tracer::start(&lab.router, &[&options[..], &at].concat()).unwrap();
    for port in 40_000..40_008 {
        udp_through(&lab, port).unwrap();
    }
    until("a loss", || json(&at)["losses"]["flows_evicted"].as_u64() >= Some(5));
    let now = json(&at);
    let sum: u64 = now["losses"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(now["lost"], sum);
    assert_eq!((&now["flows"], &now["max_flows"]), (&3.into(), &3.into()), "{now}");
    let (code, text, _) = status(&[&at[..], &["--strict"]].concat());
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains(&format!("lost: {sum} (")) && text.contains("flows_evicted="), "{text}");
    assert_eq!(status(&at).0, Some(0));
    let document = Document::json(&tracer.finish().unwrap()).unwrap();
    assert_eq!(document.footer["losses"]["flows_evicted"], now["losses"]["flows_evicted"]);
}

#[test]
fn clients_that_hang_and_floods_of_them_lose_no_record() {
    let lab = Lab::tracking().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let at = ["--socket", socket.to_str().unwrap()];
    let options = ["--no-fold", "--format", "json"];
    let mut tracer = Tracer::start(&lab.router, &[&options[..], &at].concat()).unwrap();
    let flows = 2_000;
    let deadline = Instant::now() + Duration::from_secs(6);
    let answered = thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(|| {
                // Silent, half a question, garbage: over and over.
                for said in [&b""[..], b"{\"protocol\"", b"\xff\n\n\n"].iter().cycle() {
                    if Instant::now() > deadline {
                        break;
                    }
                    let Ok(mut client) = UnixStream::connect(&socket) else { continue };
                    let _ = client.set_read_timeout(Some(Duration::from_millis(500)));
                    let _ = client.write_all(said).and_then(|()| client.read(&mut [0; 64]));
                }
            });
        }
        scope.spawn(|| {
            for port in 0..flows {
                let (from, to) = (lab.client.at(20_000 + port), lab.server.at(9));
                udp_send(&lab.client, from, to, b"x", 1).unwrap();
            }
        });
        // The one that asks as it should gets its answer all the same.
        let mut answered = 0;
        while Instant::now() < deadline {
            answered += u32::from(status(&at).0 == Some(0));
        }
        answered
    });
    assert!(answered > 0, "nobody was answered");
    assert!(tracer.process().running().unwrap());
    let descriptors = fs::read_dir(format!("/proc/{}/fd", tracer.id())).unwrap().count();
    until("clients are held", || {
        fs::read_dir(format!("/proc/{}/fd", tracer.id())).unwrap().count() <= descriptors
    });
    let document = Document::json(&tracer.finish().unwrap()).unwrap();
    let sent = document.flows.iter().filter(|flow| flow["original"]["dport"] == 9).count();
    assert_eq!(sent, usize::from(flows), "{}", document.footer);
    let lost: u64 =
        document.footer["losses"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(lost, 0, "{}", document.footer);
}

#[test]
fn a_user_who_may_not_ask_is_told_so() {
    let lab = Lab::tracking().unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let socket = directory.path().join("agent.sock");
    let at = ["--socket", socket.to_str().unwrap()];
    let tracer = Tracer::start(&lab.router, &at).unwrap();
    let program = directory.path().join("conntracker");
    fs::copy(conntracker_tests::tracer::binary().unwrap(), &program).unwrap();
    let mut nobody = std::process::Command::new("setpriv");
    nobody.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program);
    let asked = nobody.arg("status").args(at).output().unwrap();
    let said = String::from_utf8(asked.stderr).unwrap();
    assert_eq!(asked.status.code(), Some(1), "{said}");
    assert!(
        said.contains("cannot ask the agent at") && said.contains("ermission denied"),
        "{said}"
    );
    tracer.finish().unwrap();
}
