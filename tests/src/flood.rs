//! New flows as fast as the machine makes them, while `conntracker events` and `conntrack -E` listen: what
//! each was told, what the kernel had no room for in its buffer, and what it knows of the table in the end.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::lab::{Guarded, Lab, TRACKING};
use crate::tracer::conntrack::listeners;
use crate::traffic::{udp_flood, udp_sink};

/// How long a listener may take to have read everything, emulated CPUs included.
const PATIENCE: Duration = Duration::from_mins(2);

/// Where the packets go.
const PORT: u16 = 9;

/// Counts the packets of the flood, each of which is a flow's first one. The counters of the interface would
/// have multicast in them that hosts send by themselves.
const COUNTING: &str = "
    table ip flood {
        counter made {}
        chain forward { type filter hook forward priority 1; udp dport 9 counter name made; }
    }
";

/// What came of it.
#[derive(Debug)]
pub struct Flood {
    /// New flows that the router has forwarded a packet of.
    pub made: u64,
    /// Entries of the table in the end.
    pub table: usize,
    /// What `conntracker events` was told.
    pub ours: Told,
    /// What `conntrack -E` was told.
    pub theirs: Told,
}

/// What a listener was told.
#[derive(Debug)]
pub struct Told {
    /// Distinct flows that it was told of, as new or in a list of the table.
    pub flows: usize,
    /// Events that the kernel could not put into its buffer.
    pub dropped: u64,
    /// Entries of the table that it does not know of in the end.
    pub unknown: usize,
    /// Flows that it takes for entries of the table and that are none.
    pub stale: usize,
    /// Gaps that are marked in what it has printed.
    pub gaps: usize,
    /// Lists of the table that are.
    pub resyncs: usize,
    /// What it said on standard error.
    pub said: String,
}

/// Makes flows for so long. `ours` is the command line that is compared with `conntrack -E`.
pub fn run(ours: &[&str], time: Duration, directory: &Path) -> Result<Flood> {
    let lab = Lab::new()?;
    lab.router.nft(TRACKING)?;
    // Nothing ends by itself; what ends makes room for others when the table is full.
    lab.router.sysctl("net.netfilter.nf_conntrack_udp_timeout", "600")?;
    let _sink = udp_sink(&lab.server, lab.server.at(PORT))?;
    let to = SocketAddrV4::new(lab.server.v4(), PORT);
    let mut ours = Listener::start(&lab, ours, directory.join("ours"))?;
    let mut theirs = Listener::start(&lab, &["conntrack", "-E"], directory.join("theirs"))?;
    lab.router.nft(COUNTING)?;
    let forwarded = || counted(&lab);
    let before = forwarded()?;
    let threads = thread::available_parallelism()?.get();
    udp_flood(&lab.client, to, time, threads)?;
    let made = settled(forwarded)? - before;
    let dropped = [ours.read_all(&lab)?, theirs.read_all(&lab)?];
    let table: HashSet<u64> = lab
        .router
        .run(["conntrack", "-L", "-p", "udp"])?
        .lines()
        .map(flow)
        .collect::<Result<_>>()?;
    let [ours, theirs] = [(&mut ours, dropped[0]), (&mut theirs, dropped[1])]
        .map(|(listener, dropped)| listener.finish(dropped, &table));
    Ok(Flood { made, table: table.len(), ours: ours?, theirs: theirs? })
}

/// The packets that [`COUNTING`] has counted.
fn counted(lab: &Lab) -> Result<u64> {
    let listed = lab.router.run(["nft", "list", "counters", "table", "ip", "flood"])?;
    let packets = listed.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next());
    Ok(packets.with_context(|| format!("no packets in {listed}"))?.parse()?)
}

/// The last value of what has stopped to grow.
fn settled(value: impl Fn() -> Result<u64>) -> Result<u64> {
    let mut last = value()?;
    loop {
        thread::sleep(Duration::from_millis(200));
        let now = value()?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
}

/// A listener, whose output goes to a file: there is too much of it for a pipe to somebody who has the same
/// processors.
struct Listener {
    process: Guarded,
    file: PathBuf,
}

impl Listener {
    fn start(lab: &Lab, args: &[&str], file: PathBuf) -> Result<Self> {
        let before = listeners(&lab.router)?;
        let (program, args) = args.split_first().context("no program")?;
        let mut command = lab.router.command(program);
        command.args(args).stdout(File::create(&file)?).stderr(Stdio::piped());
        let process = Guarded::spawn(&mut command)?;
        let start = Instant::now();
        while listeners(&lab.router)? == before {
            ensure!(start.elapsed() < PATIENCE, "{program} does not listen: {}", process.stderr());
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { process, file })
    }

    /// Waits until nothing is left in its buffer and its output does not grow any more. Returns how many
    /// events did not fit.
    fn read_all(&self, lab: &Lab) -> Result<u64> {
        let start = Instant::now();
        let mut len = None;
        loop {
            let (unread, dropped) = self.socket(lab)?;
            let now = fs::metadata(&self.file)?.len();
            if unread == 0 && len.replace(now) == Some(now) {
                return Ok(dropped);
            }
            ensure!(start.elapsed() < PATIENCE, "{unread} bytes are still unread");
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// Bytes in the buffer of its socket that listens, and events that did not fit (netlink(7),
    /// /proc/net/netlink). The first socket of a process has its id for an address; ours opens others first.
    fn socket(&self, lab: &Lab) -> Result<(u64, u64)> {
        let table =
            lab.router.enter(|| Ok(fs::read_to_string("/proc/thread-self/net/netlink")?))?;
        let mut sockets = fs::read_dir(format!("/proc/{}/fd", self.process.id()))?
            .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
            .filter_map(|link| {
                Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
            });
        sockets
            .find_map(|inode| {
                table.lines().find_map(|line| {
                    let fields: Vec<&str> = line.split_whitespace().collect();
                    match fields[..] {
                        [_, _, _, groups, unread, _, _, _, dropped, of]
                            if of == inode && groups != "00000000" =>
                        {
                            Some((unread.parse().ok()?, dropped.parse().ok()?))
                        }
                        _ => None,
                    }
                })
            })
            .context("it does not listen any more")
    }

    /// Ends it, and reads what it was told.
    fn finish(&mut self, dropped: u64, table: &HashSet<u64>) -> Result<Told> {
        self.process.stop(Signal::SIGINT, PATIENCE)?;
        let mut seen = HashSet::new();
        let mut known = HashSet::new();
        let (mut gaps, mut resyncs) = (0, 0);
        for line in BufReader::new(File::open(&self.file)?).lines() {
            let line = line?;
            match line.trim_start() {
                text if text.starts_with("# gap") => gaps += 1,
                text if text.starts_with("# resync_begin") => known.clear(),
                text if text.starts_with("# resync_end") => resyncs += 1,
                text if text.starts_with("[DESTROY]") => {
                    known.remove(&flow(text)?);
                }
                text => {
                    let flow = flow(text)?;
                    seen.insert(flow);
                    known.insert(flow);
                }
            }
        }
        fs::remove_file(&self.file)?;
        Ok(Told {
            flows: seen.len(),
            dropped,
            unknown: table.difference(&known).count(),
            stale: known.difference(table).count(),
            gaps,
            resyncs,
            said: self.process.stderr(),
        })
    }
}

/// Source address and port of a line of conntrack(8), which is what tells the flows apart.
fn flow(line: &str) -> Result<u64> {
    let after = |key| line.split_once(key)?.1.split(' ').next();
    let (Some(address), Some(port)) = (after("src="), after("sport=")) else {
        bail!("no source in {line}");
    };
    let address: Ipv4Addr = address.parse()?;
    Ok(u64::from(address.to_bits()) << 16 | u64::from(port.parse::<u16>()?))
}
