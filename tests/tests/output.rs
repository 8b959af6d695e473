//! Where reports go: a file that is whole, private and never somebody else's, or standard output.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use conntracker_tests::lab::{Guarded, Host, Lab, TRACKING};
use conntracker_tests::tracer::report::Text;
use conntracker_tests::tracer::{PATIENCE, Tracer, command, output};
use nix::sys::signal::Signal;

fn refused(router: &Host, file: &Path) -> String {
    let file = file.to_str().unwrap();
    let output = output(["trace", "--netns", &router.name, "-o", file]).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn symbolic_links_are_refused_and_their_target_is_untouched() {
    let lab = Lab::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (target, link) =
        (directory.path().join("target"), directory.path().join("conntracker.log"));
    fs::write(&target, "keep").unwrap();
    symlink(&target, &link).unwrap();
    assert!(refused(&lab.router, &link).contains("a symbolic link"));
    assert_eq!(fs::read_to_string(&target).unwrap(), "keep");
    assert!(link.is_symlink());

    // One that comes to stand there during the trace is replaced, not followed.
    fs::remove_file(&link).unwrap();
    let tracer = Tracer::start(&lab.router, &["-o", link.to_str().unwrap()]).unwrap();
    symlink(&target, &link).unwrap();
    tracer.finish().unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), "keep");
    assert!(!link.is_symlink());
    assert!(fs::read_to_string(&link).unwrap().starts_with("# conntracker"));
}

#[test]
fn what_is_no_file_is_refused_before_the_trace() {
    let lab = Lab::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    assert!(refused(&lab.router, directory.path()).contains("a directory"));
    let missing = directory.path().join("missing");
    let said = refused(&lab.router, &missing.join("report.txt"));
    assert!(said.contains(&format!("cannot create a file in {}", missing.display())), "{said}");
    assert!(refused(&lab.router, Path::new("/dev/null")).contains("a device"));
}

#[test]
fn a_report_is_a_file_of_mode_0640_in_the_current_directory() {
    let lab = Lab::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut trace = command(["--netns", &lab.router.name, "--duration", "1"]).unwrap();
    trace.current_dir(directory.path());
    let finished = Tracer::spawn(trace).unwrap().wait().unwrap();
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    assert_eq!(finished.stdout, "", "data nobody asked for");
    let file = directory.path().join("conntracker.log");
    let meta = fs::metadata(&file).unwrap();
    assert_eq!((meta.permissions().mode() & 0o7777, meta.nlink()), (0o640, 1));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "something lies beside it");
    Text::parse(&fs::read_to_string(&file).unwrap()).unwrap();
}

#[test]
fn messages_go_to_standard_error_and_the_report_to_standard_output() {
    let lab = Lab::new().unwrap();
    let args = ["--backend", "netlink", "--duration", "1"];
    let finished = Tracer::start(&lab.router, &args).unwrap().wait().unwrap();
    assert!(finished.stdout.starts_with("# conntracker "), "{}", finished.stdout);
    assert!(!finished.stdout.contains("conntracker: "), "{}", finished.stdout);
    assert!(finished.stderr.lines().all(|line| line.starts_with("conntracker: ")));
    assert!(finished.stderr.contains("backend netlink (asked for)"), "{}", finished.stderr);
}

#[test]
fn a_closed_pipe_is_success() {
    let lab = Lab::new().unwrap();
    lab.router.nft(TRACKING).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut trace = command(["trace", "--netns", &lab.router.name, "-o", "-"]).unwrap();
    let mut tracer = Guarded::spawn(trace.stdout(writer).stderr(Stdio::piped())).unwrap();
    // The command holds a writing end as well.
    drop(trace);
    tracer.wait_for("conntracker: observing", PATIENCE).unwrap();
    drop(reader);
    let status = tracer.stop(Signal::SIGINT, PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0), "{}", tracer.stderr());

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut dump = command(["dump", "--netns", &lab.router.name]).unwrap();
    let mut dump = Guarded::spawn(dump.stdout(writer).stderr(Stdio::piped())).unwrap();
    assert_eq!(dump.wait(PATIENCE).unwrap().code(), Some(0), "{}", dump.stderr());
}

#[test]
fn a_report_that_cannot_be_written_now_does_not_end_the_trace() {
    let lab = Lab::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (place, away) = (directory.path().join("reports"), directory.path().join("away"));
    fs::create_dir(&place).unwrap();
    let file = place.join("report.txt");
    let mut tracer = Tracer::start(&lab.router, &["-o", file.to_str().unwrap()]).unwrap();
    fs::rename(&place, &away).unwrap();
    tracer.process().signal(Signal::SIGUSR1).unwrap();
    tracer.process().wait_for("going on", PATIENCE).unwrap();
    fs::rename(&away, &place).unwrap();
    tracer.finish().unwrap();
    assert!(fs::read_to_string(&file).unwrap().contains("# totals:"));
}
