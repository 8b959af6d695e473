//! The backend that the tests are about: by `cargo xtask test-vm` each kernel is tried with more than
//! one.

use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::sync::LazyLock;
use std::thread;

use super::{Tracer, stdout};
use crate::lab::Host;

/// What `--backend` is, unless a test says it itself.
const BACKEND: &str = "CONNTRACKER_TEST_BACKEND";

/// What `--attach` is then.
const ATTACH: &str = "CONNTRACKER_TEST_ATTACH";

/// The backend that sees packets: what the environment says, otherwise `links`.
#[must_use]
pub fn backend() -> &'static str {
    static CHOSEN: LazyLock<String> =
        LazyLock::new(|| env::var(BACKEND).unwrap_or_else(|_| "links".to_owned()));
    &CHOSEN
}

/// Whether a test that is about netfilter links themselves cannot be run, because the kernel has
/// none. It says so, and is counted as skipped.
#[must_use]
pub fn skipped_without_links() -> bool {
    skipped_without("links")
}

/// The same of a test that needs counters of rules to be read, as every one of iptables-legacy does.
#[must_use]
pub fn skipped_without_counters() -> bool {
    skipped_without("counters of rules")
}

/// Whether a test cannot be run without something that doctor says is not there.
fn skipped_without(what: &str) -> bool {
    // Asked, not guessed from a version. If doctor fails, the test does what it can.
    static DOCTOR: LazyLock<String> = LazyLock::new(|| stdout(["doctor"]).unwrap_or_default());
    let no = |line: &'static str| line.strip_prefix(what)?.trim_start().strip_prefix("no ");
    let Some(reason) = DOCTOR.lines().find_map(no) else { return false };
    skip(&format!("no {what}: {}", reason.trim_start()));
    true
}

/// What a trace says where probes do not work.
const NO_PROBES: &str = "backend `probes` does not work here";

/// Starts a trace by probes, with a report in JSON. Where they do not work it says so: `None`, and the
/// test counts as skipped.
///
/// # Panics
/// The trace fails for another reason.
#[must_use]
pub fn by_probes(host: &Host, args: &[&str]) -> Option<Tracer> {
    let args = [&["--backend", "probes", "--format", "json"], args].concat();
    match Tracer::start(host, &args) {
        Ok(tracer) => Some(tracer),
        Err(error) => {
            let error = format!("{error:#}");
            let why = error.lines().find(|line| line.contains(NO_PROBES));
            let Some(why) = why else { panic!("{error}") };
            skip(&format!("no probes: {}", why.rsplit("error: ").next().unwrap_or(why)));
            None
        }
    }
}

/// Says that the running test is skipped.
pub fn skip(why: &str) {
    let test = thread::current().name().unwrap_or("?").to_owned();
    // Not by println!: of a test that passes nobody would see it. In one piece, as others print, too.
    let line = format!("test skipped: {test}: {why}\n");
    // Who cannot be told does not count it either.
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
}

/// Arguments with those that the environment adds.
pub(super) fn chosen(args: Vec<OsString>) -> Vec<OsString> {
    with(args, env::var(BACKEND).ok().as_deref(), env::var(ATTACH).ok().as_deref())
}

fn with(mut args: Vec<OsString>, backend: Option<&str>, attach: Option<&str>) -> Vec<OsString> {
    let Some(backend) = backend else { return args };
    let traces = args.first().is_some_and(|first| {
        first == "trace"
            || first.as_encoded_bytes().starts_with(b"-")
                && first != "--help"
                && first != "--version"
    });
    if !traces {
        return args;
    }
    let asked = args.iter().position(|arg| arg == "--backend").map(|at| args.get(at + 1));
    let same = match asked {
        None => {
            args.extend(["--backend".into(), backend.into()]);
            true
        }
        Some(value) => value.is_some_and(|value| value == backend),
    };
    if let Some(attach) = attach.filter(|_| same && !args.iter().any(|arg| arg == "--attach")) {
        args.extend(["--attach".into(), attach.into()]);
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_get_the_backend_unless_they_name_one() {
        let of = |args: &str| {
            let args = args.split(' ').map(OsString::from).collect();
            let args = with(args, Some("probes"), Some("kprobe"));
            args.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("trace -c"), "trace -c --backend probes --attach kprobe");
        assert_eq!(of("-d -o x"), "-d -o x --backend probes --attach kprobe");
        assert_eq!(of("trace --backend netlink"), "trace --backend netlink");
        assert_eq!(of("trace --backend probes"), "trace --backend probes --attach kprobe");
        for other in ["dump -p tcp", "rules show", "doctor", "--version"] {
            assert_eq!(of(other), other);
        }
        assert_eq!(with(vec!["trace".into()], None, Some("kprobe")), ["trace"]);
    }
}
