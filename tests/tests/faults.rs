//! Whatever happens to a trace: it goes on, or it ends with its report and says what was wrong.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use conntracker_tests::lab::{Guarded, Host, Lab};
use conntracker_tests::tracer::report::{Document, Text};
use conntracker_tests::tracer::{PATIENCE, Tracer, backend, command};
use conntracker_tests::traffic::udp_through;
use nix::sys::signal::Signal;

/// Nothing that has a limit of its own may take longer: the programs that list rules have 30 seconds.
const SOON: Duration = Duration::from_secs(25);

/// Waits for something that comes sooner or later.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A directory with an `nft` that runs this script, and a trace that finds it first.
fn with_nft(directory: &Path, script: &str, router: &Host, args: &[&str]) -> Command {
    let nft = directory.join("nft");
    fs::write(&nft, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&nft, fs::Permissions::from_mode(0o755)).unwrap();
    let all = ["trace", "--netns", &router.name, "--backend", backend()];
    let mut command = command(all.iter().chain(args)).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", directory.display()));
    command
}

/// Where the system has nft.
fn nft() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    all.map(|directory| directory.join("nft")).find(|nft| nft.is_file()).unwrap()
}

#[test]
fn a_lister_that_hangs_holds_up_neither_packets_nor_signals() {
    let lab = Lab::tracking().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let script = format!("echo $$ >> {}; exec sleep 1000", pids.display());
    let hung = || -> Vec<String> {
        let pids = fs::read_to_string(&pids).unwrap_or_default();
        let there = |pid: &&str| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with(b"sleep")
        };
        pids.lines().filter(there).map(str::to_owned).collect()
    };

    // While the first ruleset is being read.
    let args = ["-o", "-", "--no-fold"];
    let mut early = with_nft(directory.path(), &script, &lab.router, &args);
    let mut early = Guarded::spawn(early.stdout(Stdio::piped()).stderr(Stdio::piped())).unwrap();
    until("nft was not started", || !hung().is_empty());
    let start = Instant::now();
    let status = early.stop(Signal::SIGTERM, PATIENCE).unwrap();
    assert!(start.elapsed() < SOON);
    assert_eq!(status.code(), Some(0), "{}", early.stderr());
    Text::parse(&early.stdout()).unwrap();
    assert_eq!(hung(), [] as [&str; 0], "they were left behind");

    // It is observed all the same, and said what is missing. To --strict that is a loss.
    let strict = ["-o", "-", "--no-fold", "--strict"];
    let tracer = Tracer::spawn(with_nft(directory.path(), &script, &lab.router, &strict)).unwrap();
    assert!(start.elapsed() < PATIENCE);
    udp_through(&lab, 40_000).unwrap();
    let finished = tracer.stop(Signal::SIGINT).unwrap();
    assert_eq!(finished.status.code(), Some(3), "{}", finished.stderr);
    assert!(finished.stdout.contains("(port=40000)"), "{}", finished.stdout);
    let note = "rules are not traced: the ruleset is still being read";
    assert!(finished.stdout.contains(note), "{}", finished.stdout);
    assert_eq!(hung(), [] as [&str; 0], "they were left behind");

    // A duration is one, too.
    let start = Instant::now();
    let timed = ["-o", "-", "--duration", "1"];
    let tracer = Tracer::spawn(with_nft(directory.path(), &script, &lab.router, &timed)).unwrap();
    assert_eq!(tracer.wait().unwrap().status.code(), Some(0));
    assert!(start.elapsed() < SOON);
}

#[test]
fn a_ruleset_that_cannot_be_listed_at_first_is_traced_once_it_can() {
    let lab = Lab::tracking().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("broken");
    fs::write(&broken, "").unwrap();
    let script = format!("test -e {} && exit 1; exec {} \"$@\"", broken.display(), nft().display());
    let args = ["-o", "-", "--no-fold", "--format", "json"];
    let mut tracer =
        Tracer::spawn(with_nft(directory.path(), &script, &lab.router, &args)).unwrap();
    tracer.process().wait_for("failed with exit status: 1", PATIENCE).unwrap();
    fs::remove_file(&broken).unwrap();
    // It is tried again every second.
    for port in 40_000..40_005 {
        udp_through(&lab, port).unwrap();
        thread::sleep(Duration::from_secs(1));
    }
    let document = Document::json(&tracer.finish().unwrap()).unwrap();
    assert_eq!(document.flows.len(), 5);
    assert!(document.flows.iter().any(|flow| flow.get("traversals").is_some()));
    assert!(document.footer["losses"]["rulesets_failed"].as_u64().unwrap() > 0);
}

#[test]
fn a_hangup_ends_a_trace_with_its_report_unless_it_is_ignored() {
    let lab = Lab::tracking().unwrap();
    let tracer = Tracer::start(&lab.router, &["--no-fold"]).unwrap();
    udp_through(&lab, 40_000).unwrap();
    let finished = tracer.stop(Signal::SIGHUP).unwrap();
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    assert!(finished.stdout.contains("(port=40000)"), "{}", finished.stdout);

    let trace = command(["trace", "--netns", &lab.router.name, "-o", "-"]).unwrap();
    let mut nohup = Command::new("nohup");
    nohup.arg(trace.get_program()).args(trace.get_args()).stdin(Stdio::null());
    let mut tracer = Tracer::spawn(nohup).unwrap();
    tracer.process().signal(Signal::SIGHUP).unwrap();
    tracer.process().signal(Signal::SIGUSR1).unwrap();
    tracer.process().wait_for("written to standard output", PATIENCE).unwrap();
    assert!(tracer.process().running().unwrap());
    tracer.finish().unwrap();
}

#[test]
fn a_second_interrupt_ends_a_trace_that_cannot_write_its_report() {
    let lab = Lab::tracking().unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    // As much as the pipe takes: the report finds no room, and nobody reads.
    let size = nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_GETPIPE_SZ).unwrap();
    writer.write_all(&vec![b'x'; size.try_into().unwrap()]).unwrap();
    let mut trace = command(["trace", "--netns", &lab.router.name, "-o", "-"]).unwrap();
    let mut tracer = Guarded::spawn(trace.stdout(writer).stderr(Stdio::piped())).unwrap();
    tracer.wait_for("conntracker: observing", PATIENCE).unwrap();
    tracer.signal(Signal::SIGINT).unwrap();
    // Longer than one Ctrl-C may take, so that the second is one; and it has not ended by the first.
    thread::sleep(Duration::from_millis(1500));
    assert!(tracer.running().unwrap());
    let status = tracer.stop(Signal::SIGINT, PATIENCE).unwrap();
    assert_eq!(status.code(), Some(130), "{}", tracer.stderr());
    drop(reader);
}

#[test]
fn a_closed_pipe_ends_a_trace_that_reports_again_and_again() {
    let lab = Lab::tracking().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let args = ["trace", "--netns", &lab.router.name, "-o", "-", "--interval", "1"];
    let mut trace = command(args).unwrap();
    let mut tracer = Guarded::spawn(trace.stdout(writer).stderr(Stdio::piped())).unwrap();
    drop(trace);
    tracer.wait_for("written to standard output", PATIENCE).unwrap();
    drop(reader);
    let status = tracer.wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0), "{}", tracer.stderr());
}

#[test]
fn full_and_closed_outputs_are_no_panics() {
    let lab = Lab::tracking().unwrap();
    for args in [&["doctor"][..], &["rules", "show", "--netns", &lab.router.name]] {
        let run = |stdout: Stdio| {
            let output = command(args).unwrap().stdout(stdout).output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (code, said) = run(full.into());
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("cannot write to standard output: No space left"), "{said}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, said) = run(writer.into());
        assert_eq!(code, Some(0), "{said}");
    }
    // Nor is it one if nobody hears of the failure.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut failing = command(["rules", "show", "--netns", "no-such-lab"]).unwrap();
    let status = failing.stderr(full).stdout(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn the_last_report_is_kept_elsewhere_if_its_place_is_gone() {
    let lab = Lab::tracking().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (place, temporary) = (directory.path().join("reports"), directory.path().join("tmp"));
    fs::create_dir(&place).unwrap();
    fs::create_dir(&temporary).unwrap();
    let file = place.join("report.txt");
    let args = ["trace", "--netns", &lab.router.name, "--no-fold", "-o", file.to_str().unwrap()];
    let mut trace = command(args).unwrap();
    trace.env("TMPDIR", &temporary);
    let tracer = Tracer::spawn(trace).unwrap();
    udp_through(&lab, 40_000).unwrap();
    fs::remove_dir(&place).unwrap();
    let finished = tracer.stop(Signal::SIGTERM).unwrap();
    assert_eq!(finished.status.code(), Some(1));
    let kept: Vec<_> = fs::read_dir(&temporary).unwrap().map(|e| e.unwrap().path()).collect();
    let [kept] = &kept[..] else { panic!("{kept:?}: {}", finished.stderr) };
    assert!(finished.stderr.contains(&format!("the report is in {}", kept.display())));
    assert!(fs::read_to_string(kept).unwrap().contains("(port=40000)"));
}

/// Namespaces that come and go, so many at once, each for about a second.
fn burst(namespaces: usize) -> Vec<Guarded> {
    let one = |_| Guarded::spawn(Command::new("unshare").args(["--net", "sleep", "1"])).unwrap();
    (0..namespaces).map(one).collect()
}

#[test]
fn namespaces_that_come_and_go_in_bursts_do_not_end_a_trace_of_all() {
    for backend in [backend(), "netlink"] {
        let lab = Lab::tracking().unwrap();
        let args = ["trace", "--netns", "all", "--backend", backend, "-o", "-", "--no-fold"];
        // The limit is raised: with these few the first burst would be too many.
        let trace = command(args).unwrap();
        let mut limited = Command::new("prlimit");
        limited.arg("--nofile=100:20000").arg(trace.get_program()).args(trace.get_args());
        let mut tracer = Tracer::spawn(limited).unwrap();
        let descriptors =
            |tracer: &Tracer| fs::read_dir(format!("/proc/{}/fd", tracer.id())).unwrap().count();
        let before = descriptors(&tracer);
        for _ in 0..3 {
            let mut burst = burst(40);
            thread::sleep(Duration::from_millis(700));
            // Half of them end before they are looked at a second time.
            burst.truncate(20);
            thread::sleep(Duration::from_millis(800));
            assert!(tracer.process().running().unwrap(), "{}", tracer.process().stderr());
        }
        udp_through(&lab, 40_000).unwrap();
        // Other tests have namespaces, too: not as many.
        until("namespaces are held", || descriptors(&tracer) < before + 100);
        let report = tracer.finish().unwrap();
        assert!(report.contains("(port=40000)"), "{backend}: {report}");
    }
}

#[test]
fn descriptors_that_run_out_are_said_and_what_is_known_is_kept() {
    let lab = Lab::tracking().unwrap();
    let args = ["trace", "--netns", "all", "--backend", backend(), "-o", "-", "--no-fold"];
    let mut tracer = Tracer::spawn(command(args).unwrap()).unwrap();
    udp_through(&lab, 40_000).unwrap();
    let count = fs::read_dir(format!("/proc/{}/fd", tracer.id())).unwrap().count();
    // Not for long enough for anything to be let go because it cannot be looked for.
    let limit = format!("--nofile={count}:{}", count + 2);
    let limited =
        Command::new("prlimit").args(["--pid", &tracer.id().to_string(), &limit]).status().unwrap();
    assert!(limited.success());
    let others = burst(10);
    tracer.process().wait_for("open files", PATIENCE).unwrap();
    thread::sleep(Duration::from_millis(1200));
    drop(others);
    let said = tracer.process().stderr();
    assert!(!said.contains(&format!("namespace {} has gone", lab.router.name)), "{said}");
    let finished = tracer.stop(Signal::SIGINT).unwrap();
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    assert!(finished.stdout.contains("(port=40000)"), "{}", finished.stdout);
}

#[test]
fn threads_that_cannot_be_had_are_no_panic() {
    let lab = Lab::tracking().unwrap();
    let root = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(Path::new);
    let Some(group) = root.iter().find_map(|root| {
        let group = root.join(format!("conntracker-test-{}", std::process::id()));
        fs::create_dir(&group).ok()?;
        let there = group.join("pids.max").exists();
        if !there {
            fs::remove_dir(&group).ok()?;
        }
        there.then_some(group)
    }) else {
        return conntracker_tests::tracer::skip("no control group for processes");
    };
    let args = ["--no-fold", "--backend", backend()];
    let mut tracer = Tracer::start(&lab.router, &args).unwrap();
    udp_through(&lab, 40_000).unwrap();
    fs::write(group.join("cgroup.procs"), tracer.id().to_string()).unwrap();
    fs::write(group.join("pids.max"), "1").unwrap();
    // Rules that have changed are read by a thread, tables are dumped by one.
    lab.router.nft("add table inet more").unwrap();
    tracer.process().wait_for("no thread can be had", PATIENCE).unwrap();
    let finished = tracer.stop(Signal::SIGINT).unwrap();
    until("the control group stays", || fs::remove_dir(&group).is_ok());
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    assert!(finished.stdout.contains("(port=40000)"), "{}", finished.stdout);
}

#[test]
fn a_backend_that_was_fallen_back_to_is_a_loss_to_strict() {
    let lab = Lab::tracking().unwrap();
    // BPF is not for this one, nor are namespaces other than its own.
    let run = |args: &[&str]| {
        let all = ["trace", "-o", "-", "--duration", "1", "--strict"];
        let trace = command(all.iter().chain(args)).unwrap();
        let mut without = lab.router.command("setpriv");
        without.args(["--bounding-set=-bpf,-perfmon,-sys_admin", "--"]);
        without.arg(trace.get_program()).args(trace.get_args()).stdin(Stdio::null());
        Tracer::spawn(without).unwrap().wait().unwrap()
    };
    let asked = run(&["--backend", "netlink"]);
    assert_eq!(asked.status.code(), Some(0), "{}", asked.stderr);
    let fallen = run(&["--backend", "auto"]);
    assert!(fallen.stdout.contains("# backend: netlink"), "{}", fallen.stdout);
    assert_eq!(fallen.status.code(), Some(3), "{}", fallen.stderr);
    assert!(fallen.stderr.contains("drops and rules are not seen"), "{}", fallen.stderr);
}
