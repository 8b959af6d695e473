//! `-d`: the starter returns once the daemon observes, there is one daemon for a pidfile, and
//! SIGTERM makes it write its report and go.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use conntracker_tests::lab::{Lab, TRACKING};
use conntracker_tests::tracer::report::Text;
use conntracker_tests::tracer::{Daemon, PATIENCE, command, output};
use conntracker_tests::traffic::{udp_echo_server, udp_exchange};
use nix::sys::signal::Signal;

#[test]
fn a_daemon_observes_when_its_starter_returns_and_reports_at_sigterm() {
    let lab = Lab::new().unwrap();
    lab.router.nft(TRACKING).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    // The directory of the report is made.
    let (pidfile, report) = (path("ct.pid"), path("made/report.txt"));
    let args =
        ["-d", "--netns", &lab.router.name, "--pidfile", &pidfile, "-o", &report, "--no-fold"];
    let started = output(args).unwrap();
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let daemon = Daemon::of(Path::new(&pidfile)).unwrap();
    assert!(daemon.running());
    assert_eq!(
        fs::read_link(format!("/proc/{}/cwd", daemon.id())).unwrap(),
        Path::new("/"),
        "it stands in the way of unmounts"
    );

    let _server = udp_echo_server(&lab.server, lab.server.at(7)).unwrap();
    udp_exchange(&lab.client, lab.client.at(40_000), lab.server.at(7), b"hello").unwrap();

    // A second one says who is there, and changes nothing.
    let second = output(args).unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("runs already as process {} ", daemon.id())), "{said}");
    assert!(daemon.running() && !Path::new(&report).exists());

    // It is called by its name, and goes on after a hangup, with its report written anew.
    assert_eq!(fs::read_to_string(format!("/proc/{}/comm", daemon.id())).unwrap(), "conntracker\n");
    let rotated = directory.path().join("rotated.txt");
    daemon.signal(Signal::SIGHUP).unwrap();
    for _ in 0..2 {
        let start = Instant::now();
        while !Path::new(&report).exists() {
            assert!(start.elapsed() < PATIENCE && daemon.running(), "no report after a hangup");
            thread::sleep(Duration::from_millis(10));
        }
        fs::rename(&report, &rotated).unwrap();
        daemon.signal(Signal::SIGHUP).unwrap();
    }

    // Without its pidfile it is still the one that writes this report.
    fs::remove_file(&pidfile).unwrap();
    let third = output(args).unwrap();
    let said = String::from_utf8(third.stderr).unwrap();
    assert_eq!(third.status.code(), Some(1), "{said}");
    assert!(said.contains("another conntracker daemon writes"), "{said}");
    assert!(daemon.running() && !Path::new(&pidfile).exists());

    daemon.terminate().unwrap();
    let text = Text::parse(&fs::read_to_string(&report).unwrap()).unwrap();
    let [line] = &text.lines[..] else { panic!("{text:?}") };
    assert_eq!(line.body, "src = 10.77.1.2 (port=40000) to dst = 10.77.2.2 (port=7) (confirmed)");
}

#[test]
fn a_daemon_that_cannot_start_says_why_and_leaves_no_pidfile() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (pidfile, report) = (path("ct.pid"), path("report.txt"));
    let args = ["-d", "--netns", "no-such-lab", "--pidfile", &pidfile, "-o", &report];
    let started = output(args).unwrap();
    assert_eq!(started.status.code(), Some(1));
    let said = String::from_utf8(started.stderr).unwrap();
    assert!(said.contains("no network namespace `no-such-lab`"), "{said}");
    assert!(!Path::new(&pidfile).exists() && !Path::new(&report).exists());
}

/// What syslog has got by now.
fn received(syslog: &UnixDatagram) -> String {
    let mut all = String::new();
    let mut message = [0; 4096];
    while let Ok(length) = syslog.recv(&mut message) {
        all.push_str(&String::from_utf8_lossy(&message[..length]));
        all.push('\n');
    }
    all
}

#[test]
fn after_a_hangup_messages_go_to_the_syslog_that_was_started_since() {
    let lab = Lab::new().unwrap();
    lab.router.nft(TRACKING).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (dev, pidfile, report) = (path("dev"), path("ct.pid"), path("report.txt"));
    fs::create_dir(&dev).unwrap();
    fs::write(path("dev/null"), "").unwrap();
    let syslogd = || {
        let socket = UnixDatagram::bind(path("dev/log")).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    let first = syslogd();

    // A /dev of its own, for this daemon alone.
    let trace = command(["-d", "--netns", &lab.router.name, "--pidfile", &pidfile, "-o", &report]);
    let trace = trace.unwrap();
    let mount =
        format!(r#"mount --bind /dev/null {dev}/null && mount --rbind {dev} /dev && exec "$@""#);
    let mut own = Command::new("unshare");
    own.args(["--mount", "sh", "-c", &mount, "sh"]).arg(trace.get_program()).args(trace.get_args());
    let started = own.stdin(Stdio::null()).output().unwrap();
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let daemon = Daemon::of(Path::new(&pidfile)).unwrap();
    let written = || {
        let start = Instant::now();
        while !Path::new(&report).exists() {
            assert!(start.elapsed() < PATIENCE && daemon.running(), "no report");
            thread::sleep(Duration::from_millis(10));
        }
        // The message comes after the report.
        thread::sleep(Duration::from_millis(300));
        fs::remove_file(&report).unwrap();
    };
    daemon.signal(Signal::SIGUSR1).unwrap();
    written();
    let said = received(&first);
    assert!(said.contains(&format!("written to {report}")), "{said}");

    // As logrotate(8) and a restart of syslog do it.
    drop(first);
    fs::remove_file(path("dev/log")).unwrap();
    let second = syslogd();
    daemon.signal(Signal::SIGUSR1).unwrap();
    written();
    assert_eq!(received(&second), "", "it is connected to the first one until it is told");
    daemon.signal(Signal::SIGHUP).unwrap();
    written();
    let said = received(&second);
    assert!(said.contains(&format!("written to {report}")), "{said}");
    daemon.terminate().unwrap();
}
