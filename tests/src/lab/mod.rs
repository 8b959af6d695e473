//! Three hosts in a row, each a network namespace:
//!
//! ```text
//! client eth0 ───── toclient router toserver ───── eth0 server
//! 10.77.1.2         10.77.1.1       10.77.2.1      10.77.2.2
//! fd77:1::2         fd77:1::1       fd77:2::1      fd77:2::2
//! 10.78.0.0/16, fd78::/64: further addresses of the client, all of them local to it
//! ```
//!
//! The router forwards; firewall and NAT are the test's business. Neighbours are static and
//! duplicate address detection is off: but for a few multicast listener reports in the first second,
//! which conntrack does not track, the packets of a test are the only ones on the wire.

mod child;
mod exec;
mod hidden;
mod host;
mod stale;
mod topology;

use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, ensure};

pub use child::Guarded;
pub use hidden::output_without;
pub use host::{Host, Link};

/// The smallest ruleset that makes a namespace track connections (without a rule that needs it,
/// conntrack stays unhooked) and that lets everything pass.
pub const TRACKING: &str = "
    table inet lab_tracking {
        chain forward { type filter hook forward priority filter; ct state established accept; }
    }
";

/// A client, a router and a server. Dropping it removes the namespaces.
#[derive(Debug)]
pub struct Lab {
    /// Where connections start.
    pub client: Host,
    /// In the middle; what the tests observe.
    pub router: Host,
    /// Where connections go.
    pub server: Host,
}

impl Lab {
    /// Builds the three hosts. Needs root.
    pub fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the lab needs root: `cargo xtask test` sees to it"
        );
        stale::remove_once();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{}{}-{number}", stale::PREFIX, process::id());
        // Made before the namespaces, so that a failure half way removes what there is by then.
        let lab = topology::plan(&prefix);
        topology::make(&lab)?;
        Ok(lab)
    }

    /// The same, with a rule that makes conntrack work in the router.
    pub fn tracking() -> Result<Self> {
        let lab = Self::new()?;
        lab.router.nft(TRACKING)?;
        Ok(lab)
    }

    /// All three hosts, in the order of the packets.
    #[must_use]
    pub fn hosts(&self) -> [&Host; 3] {
        [&self.client, &self.router, &self.server]
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in self.hosts() {
            if host.path().exists()
                && let Err(error) = exec::ip(["netns", "del", &host.name])
            {
                eprintln!("lab: {} stays behind: {error:#}", host.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_namespace_is_entered_by_the_closure_only() {
        let lab = Lab::new().unwrap();
        let inside = lab.server.enter(|| Ok(UdpSocket::bind(lab.server.at(5000))?)).unwrap();
        assert_eq!(inside.local_addr().unwrap(), lab.server.at(5000));
        assert!(UdpSocket::bind(lab.server.at(5000)).is_err(), "we never left our own namespace");
    }

    #[test]
    fn a_panic_removes_the_lab() {
        let mut left: Vec<PathBuf> = Vec::new();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let lab = Lab::new().unwrap();
            left.extend(lab.hosts().map(Host::path));
            assert!(left.iter().all(|path| path.exists()));
            panic!("as a failing test does");
        }));
        assert!(panicked.is_err());
        assert_eq!(left.len(), 3);
        assert!(left.iter().all(|path| !path.exists()));
    }

    #[test]
    fn errors_carry_what_the_command_said() {
        let lab = Lab::new().unwrap();
        let error = lab.router.nft("table inet broken {").unwrap_err();
        assert!(format!("{error:#}").contains("syntax error"), "{error:#}");
        lab.router.nft(TRACKING).unwrap();
        assert!(lab.router.run(["nft", "list", "ruleset"]).unwrap().contains("lab_tracking"));
    }

    #[test]
    fn sysctls_stay_in_the_namespace() {
        let lab = Lab::new().unwrap();
        lab.router.sysctl("net.netfilter.nf_conntrack_udp_timeout", "77").unwrap();
        let read = ["cat", "/proc/sys/net/netfilter/nf_conntrack_udp_timeout"];
        assert_eq!(lab.router.run(read).unwrap().trim(), "77");
        assert_ne!(lab.client.run(read).unwrap().trim(), "77");
        assert!(lab.router.sysctl("net.no.such.key", "1").is_err());
    }
}
