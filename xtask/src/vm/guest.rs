//! The other side: xtask is also the first process of the guest. Mounts what a system has, runs the
//! steps of the job, and switches the machine off.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, killpg};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::wait;
use nix::unistd::Pid;

use super::protocol::{Ended, JOB, Job, Line, PORT, Step};

/// How xtask lies in the initramfs.
pub const INIT: &str = "/init";

/// Its argument for the process that runs the steps.
const RUN_JOB: &str = "run-job";

/// How long output may come that is still in the pipe when a step has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Lines on their way to the port.
const QUEUE: usize = 1024;

/// File systems, as systemd mounts them. Not /tmp: the workspace may be there, and the root is in
/// memory anyway.
const MOUNTS: [(&str, &str); 8] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/dev/shm"),
    ("tmpfs", "/run"),
    ("bpf", "/sys/fs/bpf"),
    ("tracefs", "/sys/kernel/tracing"),
];

/// If this process is the first of a guest, or the one that runs its steps: does that.
pub fn main() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    if args.next()? != INIT {
        return None;
    }
    if std::process::id() == 1 {
        let Err(error) = first_process();
        // The kernel panics when its first process ends, and the console has the reason.
        eprintln!("conntracker: the guest cannot work: {error:#}");
    } else if args.next()? == RUN_JOB {
        run_job();
        return Some(ExitCode::SUCCESS);
    }
    Some(ExitCode::FAILURE)
}

/// Prepares the system, waits for whatever ends in it, and switches it off.
fn first_process() -> Result<Infallible> {
    for (kind, path) in MOUNTS {
        fs::create_dir_all(path).with_context(|| path.to_owned())?;
        let flags = MsFlags::MS_NOSUID;
        let mounted = mount(Some(kind), path, Some(kind), flags, None::<&str>);
        // What a kernel may lack is below /sys.
        if !path.starts_with("/sys/") {
            mounted.with_context(|| format!("mounting {path}"))?;
        }
    }
    for (link, target) in [("/dev/fd", "/proc/self/fd"), ("/dev/stdin", "/proc/self/fd/0")] {
        std::os::unix::fs::symlink(target, link).with_context(|| link.to_owned())?;
    }
    fs::create_dir_all("/run/netns")?;
    let job = Command::new(INIT).arg(RUN_JOB).spawn().context("starting the job")?;
    let job = Pid::from_raw(job.id().cast_signed());
    // Daemons whose parents are gone end here, too.
    while wait().context("waiting for the job")?.pid() != Some(job) {}
    match reboot(RebootMode::RB_POWER_OFF).context("switching off")? {}
}

/// Runs the steps of the job.
fn run_job() {
    let (sender, receiver) = mpsc::sync_channel(QUEUE);
    // Without a port there is nobody to tell; the host sees that nothing comes.
    let Ok(port) = port() else { return };
    let writer = thread::spawn(move || write(port, &receiver));
    let say = |line: Line| {
        // The writer lives as long as we have something to say.
        let _ = sender.send(line.to_string());
    };
    match job() {
        Ok((release, job)) => {
            say(Line::Ready(release));
            for step in &job.steps {
                say(Line::Start(step.name.clone()));
                let start = Instant::now();
                let ended = run(step, &job, &sender)
                    .unwrap_or_else(|error| Ended::Otherwise(format!("not run: {error:#}")));
                say(Line::End(ended, start.elapsed().as_secs_f64()));
            }
            say(Line::Done);
        }
        Err(error) => say(Line::Broken(format!("{error:#}"))),
    }
    drop(sender);
    // It cannot panic, and who would hear of it?
    let _ = writer.join();
}

fn job() -> Result<(String, Job)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let job = Job::from_json(&fs::read_to_string(JOB).context(JOB)?)?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).env("PATH", PATH).status();
    up.context("ip link set lo up")?;
    Ok((release, job))
}

/// Where programs are, in the guest.
const PATH: &str = "/usr/sbin:/usr/bin";

/// The port that the kernel's command line names, as it is: bytes, not a terminal.
fn port() -> Result<File> {
    let words = fs::read_to_string("/proc/cmdline")?;
    let name = words
        .split_whitespace()
        .find_map(|word| word.strip_prefix(PORT)?.strip_prefix('='))
        .context("no port is named")?;
    let path = Path::new("/dev").join(name);
    let mut options = File::options();
    options.write(true).read(true);
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, OFlag::O_NOCTTY.bits());
    let port = options.open(&path).with_context(|| path.display().to_string())?;
    let mut termios = tcgetattr(&port)?;
    cfmakeraw(&mut termios);
    tcsetattr(&port, SetArg::TCSANOW, &termios)?;
    Ok(port)
}

fn write(mut port: File, lines: &Receiver<String>) {
    for line in lines {
        if port.write_all(format!("{line}\n").as_bytes()).is_err() {
            return;
        }
    }
    // The machine is switched off next: what is in the buffers of the port must be out by then.
    let _ = nix::sys::termios::tcdrain(&port);
}

/// Runs a step; what it and its children say goes out line by line.
fn run(step: &Step, job: &Job, output: &SyncSender<String>) -> Result<Ended> {
    let (program, args) = step.command.split_first().context("no program")?;
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", "/root")
        .envs(job.environment.iter().map(|(key, value)| (key, value)))
        .current_dir(&job.directory)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    // It holds the other end of the pipe: without it, its end is ours.
    drop(command);
    let group = Pid::from_raw(child.id().cast_signed());

    // A daemon may keep the pipe open after the step has ended: nobody waits for this thread then.
    let (end, ended) = mpsc::channel::<Infallible>();
    let output = output.clone();
    thread::spawn(move || {
        let _end = end;
        for line in BufReader::new(reader).split(b'\n').map_while(io::Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if output.send(line).is_err() {
                return;
            }
        }
    });

    let deadline = Instant::now() + step.limit;
    let mut late = false;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if !late && Instant::now() > deadline {
            late = true;
            killpg(group, Signal::SIGKILL)?;
        }
        thread::sleep(Duration::from_millis(10));
    };
    // No value ever comes: this waits for the end of the thread, or for so long.
    let _ = ended.recv_timeout(LAST_WORDS);
    Ok(how(status, late, step.limit))
}

fn how(status: ExitStatus, late: bool, limit: Duration) -> Ended {
    match (status.code(), status.signal()) {
        _ if late => Ended::Otherwise(format!("killed after its limit of {} s", limit.as_secs())),
        (Some(code), _) => Ended::Exit(code),
        (None, signal) => Ended::Otherwise(format!("signal {}", signal.unwrap_or_default())),
    }
}
