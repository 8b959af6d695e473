//! What the kernel itself says: for each packet, each rule that it met. From nftrace, which a table
//! of the test's own switches on ([`crate::rulesets::ORACLE_TABLE`]), for nf_tables and ip_tables
//! alike: `nft monitor trace` and the target TRACE, read as the messages they are made of.

mod assemble;
mod listing;
mod netlink;
mod nflog;
mod nftrace;
mod packet;
mod step;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub use assemble::{Collection, Packet, Run};
pub use listing::{Base, Listed, Listing, Rule};
pub use nftrace::State;
pub use step::{Backend, ChainName, Hook, Step, StepKind, Verdict};

use crate::lab::Host;
use assemble::Assembly;
use netlink::Socket;

/// Listens to the traces of one namespace. There can be one in a namespace.
#[derive(Debug)]
pub struct Oracle {
    socket: Socket,
}

impl Oracle {
    /// Begins to listen.
    pub fn start(host: &Host) -> Result<Self> {
        let mut socket = host.enter(|| Socket::open(1 << (nftrace::GROUP - 1)))?;
        // First: where the logger is a module, this makes the kernel load it.
        nflog::bind(&mut socket)?;
        // IPv4 and IPv6; a setting of the namespace, as those of `net.ipv4` are.
        for family in [2, 10] {
            host.sysctl(&format!("net.netfilter.nf_log.{family}"), "nfnetlink_log")?;
        }
        Ok(Self { socket })
    }

    /// Forgets what was traced until now, and tells how much that was.
    pub fn forget(&mut self) -> Result<usize> {
        let mut forgotten = 0;
        while let Some(messages) = self.socket.receive(Duration::ZERO)? {
            forgotten += messages.len();
        }
        Ok(forgotten)
    }

    /// All packets traced since the last time, once nothing has been traced for `quiet`.
    ///
    /// # Errors
    /// Traces were lost, or say what the listing does not know.
    pub fn collect(&mut self, listing: &Listing, quiet: Duration) -> Result<Collection> {
        const LONG: Duration = Duration::from_secs(10);
        let mut assembly = Assembly::new(listing);
        let start = Instant::now();
        while let Some(messages) = self.socket.receive(quiet)? {
            for message in messages {
                match message.kind {
                    nftrace::MESSAGE => assembly.nft(&nftrace::Event::decode(&message)?)?,
                    nflog::MESSAGE => {
                        if let Some(event) = nflog::Event::decode(&message)? {
                            assembly.legacy(&event)?;
                        }
                    }
                    _ => {}
                }
            }
            // Something that never ends would otherwise be traced for ever.
            (start.elapsed() < LONG).then_some(()).context("the packets do not end")?;
        }
        Ok(assembly.finish())
    }
}

#[cfg(test)]
mod tests;
