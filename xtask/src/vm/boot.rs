//! Boots a guest and follows what it says, to its end or to the end of patience.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::machine::Accel;
use super::protocol::{Job, Line};
use crate::cmd;

/// How long a guest may be silent beyond the limit of its step, which it watches over itself.
const MARGIN: Duration = Duration::from_mins(1);

/// How much of the console is shown when a guest has died.
const LAST_LINES: usize = 40;

/// How much of the report of a lockup: that of each CPU.
const FIRST_LINES: usize = 120;

/// How a guest ended.
#[derive(Debug)]
pub enum End {
    /// It did its job.
    Done,
    /// It never said a word: the accelerator may be to blame.
    NeverUp(String),
    /// It died on the way.
    Died(Lost),
}

/// A guest that did not come to the end of its job.
#[derive(Debug)]
pub struct Lost {
    /// Why, and what its kernel said.
    why: String,
    /// The emulator is to blame: the kernel reports where it hangs, or a breakpoint that nobody set, and
    /// no BPF program is executed there. An emulated CPU can lose an interrupt that another one waits
    /// for, and can execute the breakpoint of code that another one has patched already (what ftrace
    /// does at the start of a function that a program is attached to).
    pub emulator: bool,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the guest is lost: {}", self.why)
    }
}

impl std::error::Error for Lost {}

/// QEMU, killed when dropped.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What comes from QEMU.
enum Heard {
    Guest(String),
    Qemu(String),
}

/// Boots, and hands each line of the guest on.
pub fn boot(
    mut qemu: Command,
    accel: Accel,
    console: &Path,
    job: &Job,
    mut hear: impl FnMut(Line),
) -> Result<End> {
    fs::write(console, "").with_context(|| console.display().to_string())?;
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = qemu.spawn().with_context(|| format!("cannot start {}", cmd::show(&qemu)))?;
    let mut guest = Guest(child);
    let (sender, receiver) = mpsc::channel();
    listen(guest.0.stdout.take(), sender.clone(), Heard::Guest);
    listen(guest.0.stderr.take(), sender, Heard::Qemu);

    let mut up = false;
    let mut hangs = false;
    let mut complaints = String::new();
    let mut deadline = Instant::now() + patience(accel);
    let reason = loop {
        let heard = match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            Ok(heard) => heard,
            Err(RecvTimeoutError::Timeout) => {
                hangs = true;
                break "it hangs: nothing came for too long";
            }
            Err(RecvTimeoutError::Disconnected) => break "it ended before its job was done",
        };
        let line = match heard {
            Heard::Guest(line) => Line::parse(&line),
            Heard::Qemu(line) => {
                let fatal = line.contains("KVM internal error");
                complaints.push_str(&line);
                complaints.push('\n');
                if fatal {
                    // QEMU stops the guest and waits for somebody to look at it.
                    break "KVM cannot run it";
                }
                continue;
            }
        };
        match &line {
            Line::Ready(_) => {
                up = true;
                deadline = Instant::now() + MARGIN;
            }
            Line::Start(name) => {
                let step = job.steps.iter().find(|step| &step.name == name);
                deadline = Instant::now() + step.map_or(Duration::ZERO, |s| s.limit) + MARGIN;
            }
            Line::End(..) => deadline = Instant::now() + MARGIN,
            Line::Done => {
                hear(line);
                return Ok(End::Done);
            }
            Line::Broken(why) => {
                return Ok(End::Died(Lost { why: why.clone(), emulator: false }));
            }
            Line::Text(_) => {}
        }
        hear(line);
    };
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let why = last_words(reason, &complaints, &text);
    let outside = (hangs && hangs_outside_of_bpf(&text)) || breaks_outside_of_bpf(&text);
    let emulator = accel == Accel::Tcg && outside;
    Ok(if up { End::Died(Lost { why, emulator }) } else { End::NeverUp(why) })
}

/// How long a guest may take until it is up.
fn patience(accel: Accel) -> Duration {
    match accel {
        Accel::Kvm => Duration::from_secs(30),
        Accel::Tcg => Duration::from_mins(3),
    }
}

fn listen(pipe: Option<impl Read + Send + 'static>, to: Sender<Heard>, from: fn(String) -> Heard) {
    let Some(pipe) = pipe else { return };
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(std::io::Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if to.send(from(line)).is_err() {
                return;
            }
        }
    });
}

/// Why a guest was lost, what QEMU said, and the end of what its kernel said. The reason of a panic
/// comes first: behind it the kernel prints more than fits.
fn last_words(reason: &str, qemu: &str, console: &str) -> String {
    let lines: Vec<_> =
        console.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let panic = lines.iter().find(|line| line.contains("Kernel panic"));
    let reason = panic.map_or(reason.to_owned(), |panic| format!("{reason}: {panic}"));
    let report: Vec<_> = lockup(console).take(FIRST_LINES).collect();
    let report = if report.is_empty() {
        String::new()
    } else {
        format!("where its CPUs were first:\n  {}\n", report.join("\n  "))
    };
    let tail = &lines[lines.len().saturating_sub(LAST_LINES)..];
    format!("{reason}\n{qemu}{report}last words of the kernel:\n  {}", tail.join("\n  "))
}

/// The first report of a CPU that does not leave the kernel, and what follows it.
fn lockup(console: &str) -> impl Iterator<Item = &str> {
    console.lines().map(str::trim_end).skip_while(|line| !line.contains("BUG: soft lockup"))
}

/// Whether the kernel reports where its CPUs hang, and none of them is in a BPF program.
fn hangs_outside_of_bpf(console: &str) -> bool {
    lockup(console).any(|line| line.contains("Call Trace"))
        && !lockup(console).any(|line| line.contains("bpf_prog_"))
}

/// Whether the kernel died of a breakpoint that it does not know of, and no BPF program has it: what the
/// kernel's compiler of BPF programs fills gaps with are breakpoints, too.
fn breaks_outside_of_bpf(console: &str) -> bool {
    let mut report = console.lines().skip_while(|line| !line.contains("int3: 0000 [#"));
    report.find(|line| line.contains("RIP:")).is_some_and(|line| !line.contains("bpf_prog_"))
}

/// What in the kernel's messages should worry somebody.
pub fn warnings(console: &PathBuf) -> Vec<String> {
    let text = fs::read(console).unwrap_or_default();
    let worrying =
        |line: &&str| ["WARNING:", "BUG:", "Oops"].iter().any(|word| line.contains(word));
    String::from_utf8_lossy(&text).lines().filter(worrying).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_panic_stands_in_the_first_line() {
        let calls = (0..100).map(|call| format!("[ 2.0] call {call}\r\n"));
        let panic = "[ 1.0] Kernel panic - not syncing: Oops\r\n".to_owned();
        let console: Vec<_> = [panic].into_iter().chain(calls).collect();
        let console = console.join("\r\n");
        let text = last_words("it ended", "qemu: bye\n", &console);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "it ended: [ 1.0] Kernel panic - not syncing: Oops");
        assert_eq!(lines[1], "qemu: bye");
        assert_eq!((lines.len(), lines[lines.len() - 1]), (3 + LAST_LINES, "  [ 2.0] call 99"));
    }

    #[test]
    fn a_hang_is_the_emulators_only_if_no_bpf_program_is_where_the_cpus_hang() {
        let report = "[ 1.0] fine\n[ 9.0] watchdog: BUG: soft lockup - CPU#0 stuck for 26s!\n\
                      [ 9.0] Call Trace:\n[ 9.0]  smp_call_function_many_cond+0x1\n";
        let ours = format!("{report}[ 9.0]  bpf_prog_6deef7357e7b4530_nft_begins+0x1\n");
        assert!(hangs_outside_of_bpf(report));
        assert!(!hangs_outside_of_bpf(&ours));
        assert!(!hangs_outside_of_bpf("[ 9.0] watchdog: BUG: soft lockup - CPU#0 stuck\n"));
        let text = last_words("it hangs", "", &ours);
        assert!(text.contains("first:\n  [ 9.0] watchdog"), "{text}");
    }

    #[test]
    fn a_breakpoint_is_the_emulators_only_if_no_bpf_program_has_it() {
        let report = |at| {
            format!("[ 9.0] Oops: int3: 0000 [#1] SMP NOPTI\n[ 9.0] RIP: 0010:{at}+0x5/0xa0\n")
        };
        assert!(breaks_outside_of_bpf(&report("nft_immediate_eval")));
        assert!(!breaks_outside_of_bpf(&report("bpf_prog_6deef7357e7b4530_nft_begins")));
        assert!(!breaks_outside_of_bpf("[ 9.0] Oops: 0002 [#1]\n[ 9.0] RIP: 0010:nft_do_chain\n"));
    }
}
