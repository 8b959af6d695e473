//! Recordings: what is left of one whatever ends it, and what users are told of those that are not whole. That reports
//! of recordings equal live reports is compared in every suite (tests/src/tracer/recording.rs).

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::SocketAddrV4;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use conntracker_tests::disk::SmallDisk;
use conntracker_tests::is_quick;
use conntracker_tests::lab::Lab;
use conntracker_tests::rulesets::Random;
use conntracker_tests::tracer::recording::{ports, recording, report};
use conntracker_tests::tracer::report::Document;
use conntracker_tests::tracer::{Daemon, PATIENCE, Tracer, binary, output, stdout};
use conntracker_tests::traffic::{udp_send, udp_sink, udp_storm_of};
use nix::sys::signal::Signal;
use serde_json::Value;

/// What may be lost by SIGKILL, and what a busy machine adds.
const AT_MOST: Duration = Duration::from_millis(1_000 + 500);

/// Agents that are killed together.
const TOGETHER: usize = 10;

fn lab() -> Lab {
    Lab::tracking().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Ends the traffic of a test, however that ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One new flow every few milliseconds until told to stop: when each was sent, by its source port.
fn steady(lab: &Lab, stop: &AtomicBool) -> Vec<(u64, SystemTime)> {
    let mut sent = Vec::new();
    for port in 2_000..u16::MAX {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        udp_send(&lab.client, lab.client.at(port), lab.server.at(9), b"x", 1).unwrap();
        sent.push((port.into(), SystemTime::now()));
        thread::sleep(Duration::from_millis(3));
    }
    sent
}

#[test]
fn at_most_a_second_is_lost_by_sigkill() {
    let lab = lab();
    let _sink = udp_sink(&lab.server, lab.server.at(9)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random::new(17);
    let mut killed = 0;
    for round in 0..if is_quick() { 1 } else { 100 / TOGETHER } {
        let files: Vec<PathBuf> =
            (0..TOGETHER).map(|n| directory.path().join(format!("{round}-{n}.rec"))).collect();
        let mut tracers: Vec<Tracer> =
            files.iter().map(|file| recording(&lab.router, file, &[]).unwrap()).collect();
        let stop = AtomicBool::new(false);
        let (sent, ends) = thread::scope(|scope| {
            let _stop = Stop(&stop);
            let sending = scope.spawn(|| steady(&lab, &stop));
            let mut ends = Vec::new();
            for mut tracer in tracers.drain(..) {
                thread::sleep(Duration::from_millis(100 + random.below(400) as u64));
                let at = SystemTime::now();
                tracer.process().signal(Signal::SIGKILL).unwrap();
                tracer.process().wait(PATIENCE).unwrap();
                ends.push(at);
            }
            stop.store(true, Ordering::Relaxed);
            (sending.join().unwrap(), ends)
        });
        for (file, end) in files.iter().zip(ends) {
            let document = report(&[text(file)]).unwrap();
            let there = ports(&document);
            let must: BTreeSet<u64> =
                sent.iter().filter(|(_, at)| *at + AT_MOST < end).map(|(port, _)| *port).collect();
            let missing: Vec<&u64> = must.difference(&there).collect();
            assert!(
                missing.is_empty(),
                "{} of {} are missing: {missing:?}",
                missing.len(),
                must.len()
            );
            assert!(document.notes("has no end"), "nothing is said of the end");
            killed += 1;
        }
    }
    println!("{killed} agents were killed, and no flow was lost that was older than {AT_MOST:?}");
}

#[test]
fn parts_are_whole_whenever_the_writer_is_killed() {
    let lab = lab();
    let to = SocketAddrV4::new(lab.server.v4(), 9);
    let _sink = udp_sink(&lab.server, lab.server.at(9)).unwrap();
    let mut random = Random::new(18);
    for _ in 0..if is_quick() { 2 } else { 10 } {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("r.rec");
        let mut tracer =
            recording(&lab.router, &base, &["--rotate", "64K", "--keep", "1G"]).unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let _stop = Stop(&stop);
            scope.spawn(|| {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let flows = number * 500..(number + 1) * 500;
                    udp_storm_of(&lab.client, to, flows, 1).unwrap();
                    thread::sleep(Duration::from_millis(50));
                }
            });
            let start = Instant::now();
            while fs::read_dir(directory.path()).unwrap().count() < 3 {
                assert!(start.elapsed() < PATIENCE, "no parts: {}", tracer.process().stderr());
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_millis(random.below(300) as u64));
            tracer.process().signal(Signal::SIGKILL).unwrap();
            tracer.process().wait(PATIENCE).unwrap();
        });
        // By the directory, and by the name without numbers.
        let document = report(&[text(directory.path()), "--top", "1"]).unwrap();
        assert!(document.notes("has no end"), "{:?}", document.header["notes"]);
        assert!(!document.notes("missing"), "{:?}", document.header["notes"]);
        assert_eq!(document.counter("recording_blocks_damaged").unwrap_or(0), 0);
        let by_name = report(&[text(&base), "--top", "1"]).unwrap();
        assert_eq!(document.footer["totals"], by_name.footer["totals"]);
        // A part stands alone: namespaces, interfaces and the flows that are there when it begins.
        let last =
            fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path()).max().unwrap();
        let alone = output(["report", text(&last), "--format", "json"]).unwrap();
        if alone.status.success() {
            let alone = Document::json(&String::from_utf8(alone.stdout).unwrap()).unwrap();
            assert!(alone.notes("earlier parts are not here"));
            assert_eq!(alone.header["namespaces"][0]["name"], lab.router.name.as_str());
        }
        // A new run goes on with the next number, and says what became of the last one.
        let next = recording(&lab.router, &base, &["--rotate", "64K"]).unwrap();
        next.stop(Signal::SIGTERM).unwrap();
        let document = report(&[text(&base), "--top", "1"]).unwrap();
        assert!(
            document.notes("the run before was not ended in order"),
            "{:?}",
            document.header["notes"]
        );
    }
}

#[test]
fn a_full_disk_is_a_gap_and_observation_goes_on() {
    let lab = lab();
    let disk = SmallDisk::new().unwrap();
    let (file, filler) = (disk.path().join("r.rec"), disk.path().join("filler"));
    let tracer = recording(&lab.router, &file, &[]).unwrap();
    let _sink = udp_sink(&lab.server, lab.server.at(9)).unwrap();
    let send = |ports: std::ops::Range<u16>| {
        for port in ports {
            udp_send(&lab.client, lab.client.at(port), lab.server.at(9), b"x", 1).unwrap();
        }
        // Until it is written, or is not.
        thread::sleep(Duration::from_millis(1_500));
    };
    send(2_000..2_050);
    // All that is left of the disk.
    let mut fill = fs::File::create(&filler).unwrap();
    while fill.write_all(&[0; 4096]).is_ok() {}
    while fill.write_all(&[0; 1]).is_ok() {}
    send(3_000..3_050);
    // The last page of the file has room for some.
    send(3_050..5_000);
    drop(fill);
    fs::remove_file(&filler).unwrap();
    send(6_000..6_050);
    let finished = tracer.stop(Signal::SIGINT).unwrap();
    assert!(finished.status.success(), "{}", finished.stderr);
    assert!(finished.stderr.contains("No space left on device"), "{}", finished.stderr);
    assert!(finished.stderr.contains("can be written again"), "{}", finished.stderr);
    let document = report(&[text(&file)]).unwrap();
    let there = ports(&document);
    let all = |range: std::ops::Range<u64>| range.clone().all(|port| there.contains(&port));
    assert!(all(2_000..2_050) && all(6_000..6_050), "{there:?}");
    assert!(document.notes("No space left on device"), "{:?}", document.header["notes"]);
    assert!(document.counter("recording_events_missing").unwrap() > 0);
    let strict = output(["report", text(&file), "--strict"]).unwrap();
    assert_eq!(strict.status.code(), Some(3));
    // What was lost is counted by the observer too.
    let lost = document.counter("events_not_recorded").unwrap();
    assert_eq!(document.counter("recording_events_missing").unwrap(), lost);
}

#[test]
fn a_daemon_records_beside_its_report_and_a_hangup_begins_a_part() {
    let lab = lab();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (pidfile, live, base) = (path("ct.pid"), path("live.txt"), path("made/r.rec"));
    let args = [
        "-d",
        "--netns",
        &lab.router.name,
        "--pidfile",
        &pidfile,
        "-o",
        &live,
        "--record",
        &base,
        "--rotate",
        "1h",
        "--no-fold",
    ];
    let started = output(args).unwrap();
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let daemon = Daemon::of(Path::new(&pidfile)).unwrap();
    let _sink = udp_sink(&lab.server, lab.server.at(9)).unwrap();
    udp_send(&lab.client, lab.client.at(4_000), lab.server.at(9), b"x", 1).unwrap();
    daemon.signal(Signal::SIGHUP).unwrap();
    let second = format!("{base}.000002");
    let start = Instant::now();
    while !Path::new(&second).exists() {
        assert!(start.elapsed() < PATIENCE, "no new part after a hangup");
        thread::sleep(Duration::from_millis(10));
    }
    udp_send(&lab.client, lab.client.at(4_001), lab.server.at(9), b"x", 1).unwrap();
    // What it sees now, while it writes.
    let start = Instant::now();
    while !ports(&report(&["--live", &base]).unwrap()).is_superset(&BTreeSet::from([4_000, 4_001]))
    {
        assert!(
            start.elapsed() < PATIENCE,
            "the part that is being written does not have both flows"
        );
        thread::sleep(Duration::from_millis(100));
    }
    daemon.terminate().unwrap();
    let mode = fs::metadata(&second).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o640);
    let both = report(&[&base]).unwrap();
    assert!(ports(&both).is_superset(&BTreeSet::from([4_000, 4_001])));
    // The second part has a dump of its own: it knows the flow of the first.
    let second = report(&[&second]).unwrap();
    assert!(ports(&second).is_superset(&BTreeSet::from([4_000, 4_001])), "{:?}", ports(&second));
    assert!(fs::read_to_string(live).unwrap().contains("port=4001"));
}

#[test]
fn a_part_of_the_time_has_what_was_seen_in_it() {
    let lab = lab();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("r.rec");
    let _sink = udp_sink(&lab.server, lab.server.at(9)).unwrap();
    lab.router.nft("table inet fw { chain f { type filter hook forward priority 0; udp dport 99 counter drop; }; }").unwrap();
    let tracer = recording(&lab.router, &file, &[]).unwrap();
    let at = |port: u16, to: u16| {
        udp_send(&lab.client, lab.client.at(port), lab.server.at(to), b"x", 3).unwrap();
        thread::sleep(Duration::from_millis(1_200));
    };
    let time = || humantime(SystemTime::now());
    at(5_000, 9);
    at(5_100, 99);
    let from = time();
    at(5_001, 9);
    at(5_100, 99);
    let to = time();
    at(5_002, 9);
    tracer.stop(Signal::SIGINT).unwrap();
    let window = |from: &str, to: &str| report(&[text(&file), "--from", from, "--to", to]).unwrap();
    let middle = window(&from, &to);
    assert_eq!(ports(&middle), BTreeSet::from([5_001, 5_100]), "{:?}", middle.flows);
    let dropped = middle.flows.iter().find(|flow| flow["original"]["dport"] == 99).unwrap();
    assert_eq!(dropped["dropped"]["packets"], 3, "{dropped}");
    let all = window("1990-01-01T00:00:00Z", "2290-01-01T00:00:00Z");
    let dropped = all.flows.iter().find(|flow| flow["original"]["dport"] == 99).unwrap();
    assert_eq!(dropped["dropped"]["packets"], 6, "{dropped}");
    assert_eq!(ports(&all).len(), 4);
    assert!(
        ports(&report(&[text(&file), "--to", &from]).unwrap())
            .is_superset(&BTreeSet::from([5_000]))
    );
    // The dump at the end has shown the entries that were there.
    let after = ports(&report(&[text(&file), "--from", &to]).unwrap());
    assert!(after.contains(&5_002) && !after.contains(&5_100), "{after:?}");
    // Filters are those of a live trace; order and number.
    assert_eq!(ports(&report(&[text(&file), "--dport", "99"]).unwrap()), BTreeSet::from([5_100]));
    let top = report(&[text(&file), "--sort", "drops", "--top", "1"]).unwrap();
    assert_eq!(ports(&top), BTreeSet::from([5_100]));
    assert!(top.notes("3 more flows are not listed"));
}

/// A time as users write it.
fn humantime(at: SystemTime) -> String {
    let ns = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let date = Command::new("date")
        .args(["-u", "-d", &format!("@{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)])
        .arg("+%Y-%m-%dT%H:%M:%S.%NZ")
        .output()
        .unwrap();
    String::from_utf8(date.stdout).unwrap().trim().to_owned()
}

#[test]
fn who_had_a_public_port_at_a_time() {
    let lab = lab();
    lab.router
        .nft("table ip nat { chain post { type nat hook postrouting priority srcnat; oifname toserver udp dport 9 snat to 10.77.2.1:7000-7009; }; }")
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("r.rec");
    let _sink = udp_sink(&lab.server, lab.server.at(9)).unwrap();
    let tracer = recording(&lab.router, &file, &[]).unwrap();
    let mut times = Vec::new();
    for port in [5_000, 5_001] {
        udp_send(&lab.client, lab.client.at(port), lab.server.at(9), b"x", 1).unwrap();
        thread::sleep(Duration::from_millis(300));
        let listed = lab.router.run(["conntrack", "-L"]).unwrap();
        let line = listed.lines().find(|line| line.contains(&format!("sport={port} "))).unwrap();
        let public = line.rsplit("dport=").next().unwrap().split_whitespace().next().unwrap();
        times.push((port, public.to_owned(), humantime(SystemTime::now())));
        lab.router.run(["conntrack", "-D", "-p", "udp"]).unwrap();
        thread::sleep(Duration::from_millis(300));
    }
    tracer.stop(Signal::SIGINT).unwrap();
    for (port, public, at) in &times {
        let document = report(&[text(&file), "--nat-port", public, "--at", at]).unwrap();
        assert!(
            ports(&document).contains(&u64::from(*port)),
            "{port} had {public} at {at}: {:?}",
            document.flows
        );
    }
}

#[test]
fn what_is_no_recording_gets_one_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let said = |args: &[&str], code: i32| {
        let output = output([&["report"], args].concat()).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    for (name, bytes) in [
        ("text", &b"hello, this is a text file"[..]),
        ("empty", b""),
        ("elf", &fs::read(binary().unwrap()).unwrap()[..5_000]),
    ] {
        fs::write(path(name), bytes).unwrap();
        assert!(said(&[text(&path(name))], 1).contains("no recording"), "{name}");
    }
    assert!(said(&[text(&path("none"))], 1).contains("cannot open"));
    assert!(said(&[text(directory.path())], 1).contains("has no recording"));
    let refused = output(["report", text(&path("none")), "--from", "soon"]).unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("give a time such as"));
    let refused = output(["trace", "--rotate", "1h"]).unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("--record"));
    // A later version.
    let mut later = b"\x89CTR\r\n\x1a\n\x02\x00".to_vec();
    later.resize(60, 0);
    let crc = crc32(&later);
    later.extend(crc.to_le_bytes());
    fs::write(path("later"), later).unwrap();
    assert!(said(&[text(&path("later"))], 1).contains("format 2"));
}

/// CRC-32 as in IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn a_recording_is_refused_where_a_file_is_and_read_from_a_pipe() {
    let lab = lab();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("r.rec");
    fs::write(&file, "precious").unwrap();
    let refused = output(["trace", "--netns", &lab.router.name, "--record", text(&file)]).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("is there already") && said.lines().count() == 1, "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    let link = directory.path().join("link.rec");
    std::os::unix::fs::symlink(directory.path().join("elsewhere"), &link).unwrap();
    let refused = output(["trace", "--netns", &lab.router.name, "--record", text(&link)]).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(!directory.path().join("elsewhere").exists());

    let whole = directory.path().join("whole.rec");
    let tracer = recording(&lab.router, &whole, &[]).unwrap();
    let _sink = udp_sink(&lab.server, lab.server.at(9)).unwrap();
    udp_send(&lab.client, lab.client.at(5_000), lab.server.at(9), b"x", 1).unwrap();
    tracer.stop(Signal::SIGINT).unwrap();
    let by_file = stdout(["report", text(&whole)]).unwrap();
    let by_pipe = Command::new(binary().unwrap())
        .args(["report", "-"])
        .stdin(Stdio::from(fs::File::open(&whole).unwrap()))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(by_pipe.stdout).unwrap(), by_file);
    // By a named pipe, and without privileges.
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    let bytes = fs::read(&whole).unwrap();
    let by_fifo = thread::scope(|scope| {
        scope.spawn(|| fs::write(&fifo, &bytes).unwrap());
        stdout(["report", text(&fifo)]).unwrap()
    });
    assert_eq!(by_fifo, by_file);
    let lines: Vec<Value> = stdout(["report", text(&whole), "--format", "ndjson"])
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines.len() >= 3);
}
