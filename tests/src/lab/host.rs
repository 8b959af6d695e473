//! One host of the lab: a network namespace and what can be done in it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use super::{Guarded, exec, stale};

/// A network namespace with one or two links.
#[derive(Debug)]
pub struct Host {
    /// Name of the namespace, as in `ip netns exec NAME` and `conntracker --netns NAME`.
    pub name: String,
    /// Network devices: one, or for the router the client's side and then the server's.
    pub links: Vec<Link>,
}

/// A network device of a host.
#[derive(Debug)]
pub struct Link {
    /// Device name, unique in its namespace only.
    pub name: &'static str,
    /// IPv4 address in a /24.
    pub v4: Ipv4Addr,
    /// IPv6 address in a /64.
    pub v6: Ipv6Addr,
}

impl Link {
    /// The hardware address, derived from the IPv4 address so that neighbours can be static.
    #[must_use]
    pub fn mac(&self) -> String {
        let [_, _, net, host] = self.v4.octets();
        format!("02:00:00:00:{net:02x}:{host:02x}")
    }
}

impl Host {
    /// IPv4 address of the first link.
    #[must_use]
    pub fn v4(&self) -> Ipv4Addr {
        self.links[0].v4
    }

    /// IPv6 address of the first link.
    #[must_use]
    pub fn v6(&self) -> Ipv6Addr {
        self.links[0].v6
    }

    /// This IPv4 address with a port; port 0 leaves the choice to the kernel.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.v4()), port)
    }

    /// This IPv6 address with a port; port 0 leaves the choice to the kernel.
    #[must_use]
    pub fn at6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(self.v6()), port)
    }

    /// The namespace as a file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(stale::NAMESPACES).join(&self.name)
    }

    /// A command that will run in the namespace; its process is the program itself.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a program with its arguments and returns its standard output.
    pub fn run<I, S>(&self, args: I) -> Result<String>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.run_with_input(args, "")
    }

    /// As [`Host::run`], with this standard input.
    pub fn run_with_input<I, S>(&self, args: I, stdin: &str) -> Result<String>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        exec::capture(Command::new("ip").args(["netns", "exec", &self.name]).args(args), stdin)
    }

    /// Loads nft commands or a ruleset, in one transaction.
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        self.run_with_input(["nft", "-f", "-"], ruleset).map(drop)
    }

    /// Starts a program that is killed when the guard is dropped. Its output is collected.
    pub fn spawn<I, S>(&self, args: I) -> Result<Guarded>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).args(args);
        Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    /// Sets a sysctl of the namespace, for example `net.netfilter.nf_conntrack_acct`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        self.enter(|| {
            fs::write(&path, value).with_context(|| format!("setting {key} in {}", self.name))
        })
    }

    /// Runs a closure in a fresh thread that has joined the namespace. Sockets made there stay
    /// there: return them to use them anywhere.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.path();
        let namespace = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        thread::scope(|scope| {
            let worker = scope.spawn(move || {
                setns(&namespace, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("entering {}", path.display()))?;
                work()
            });
            worker.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
        })
    }

    /// Packets that came in through a device and packets that went out, by the device's counters.
    pub fn packets(&self, device: &str) -> Result<(u64, u64)> {
        let table = self.enter(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
        packets_of(&table, device)
            .with_context(|| format!("no counters of {device} in {}", self.name))
    }
}

/// Received and transmitted packets from the lines of /proc/net/dev.
fn packets_of(table: &str, device: &str) -> Option<(u64, u64)> {
    let fields = table.lines().find_map(|line| {
        let (name, fields) = line.split_once(':')?;
        (name.trim() == device).then_some(fields)
    })?;
    let mut fields = fields.split_whitespace();
    Some((fields.nth(1)?.parse().ok()?, fields.nth(7)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::packets_of;

    #[test]
    fn packet_counters_are_the_second_and_tenth_field() {
        let table = "Inter-|   Receive  |  Transmit\n face |bytes packets\n  \
                     lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
                     eth0:100 200 0 0 0 0 0 0 900 1000 0 0 0 0 0 0\n";
        assert_eq!(packets_of(table, "eth0"), Some((200, 1000)));
        assert_eq!(packets_of(table, "lo"), Some((2, 10)));
        assert_eq!(packets_of(table, "eth1"), None);
    }
}
