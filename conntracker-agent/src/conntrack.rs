//! The library's front door: the connection tracking table of the current network namespace.
//!
//! ```no_run
//! use conntracker::conntrack::{Conntrack, DumpRequest, Error};
//!
//! # fn main() -> Result<(), Error> {
//! let mut conntrack = Conntrack::connect()?;
//! for flow in conntrack.dump()? {
//!     println!("{} -> {}", flow.orig.src, flow.orig.dst);
//! }
//!
//! // Large tables: one entry at a time, and only those with connmark 1 in the low byte.
//! let request = DumpRequest { mark: Some((1, 0xff)), ..DumpRequest::default() };
//! let mut bytes = 0;
//! conntrack.dump_with(&request, |entry| {
//!     bytes += entry.counters.iter().flatten().map(|c| c.bytes).sum::<u64>();
//! })?;
//! println!("{bytes} bytes in {} flows", conntrack.count()?);
//! # Ok(())
//! # }
//! ```

pub use crate::kernel::netlink::Error;
pub use crate::kernel::netlink::ctnetlink::stats::GlobalStats;
pub use crate::kernel::netlink::ctnetlink::{
    ConntrackEntry, Counters, DumpRequest, DumpStats, Entry, ProtoState, SeqAdj, SynProxy,
};

use crate::kernel::netlink::Socket;
use crate::kernel::netlink::ctnetlink::{dump, stats};

/// The connection tracking table of one network namespace. Needs CAP_NET_ADMIN there.
pub struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    /// Opens the table of the calling thread's network namespace. It stays that one's, whichever
    /// thread uses it.
    pub fn connect() -> Result<Self, Error> {
        Ok(Self { socket: Socket::netfilter()? })
    }

    /// All entries, in the kernel's order. Entries that cannot be decoded are logged; to count
    /// them, and to use less memory, see [`Self::dump_with`].
    pub fn dump(&mut self) -> Result<Vec<ConntrackEntry>, Error> {
        let mut entries = Vec::new();
        let stats =
            self.dump_with(&DumpRequest::default(), |entry| entries.push((&entry).into()))?;
        if stats.rejected > 0 {
            log::warn!("{} conntrack entries could not be decoded", stats.rejected);
        }
        Ok(entries)
    }

    /// Hands the entries that match `request` to `each` as they arrive, in constant memory. Older
    /// kernels do not know all filters and send more (see [`DumpRequest`]).
    ///
    /// After an error the answer may be half read: connect again.
    pub fn dump_with(
        &mut self,
        request: &DumpRequest,
        mut each: impl FnMut(Entry<'_>),
    ) -> Result<DumpStats, Error> {
        dump(&mut self.socket, request, |entry| match entry {
            Ok(entry) => each(entry),
            Err(error) => log::debug!("conntrack entry skipped: {error}"),
        })
    }

    /// Number of entries, without reading them.
    pub fn count(&mut self) -> Result<u32, Error> {
        self.stats().map(|stats| stats.entries)
    }

    /// Number of entries and the most there may be.
    pub fn stats(&mut self) -> Result<GlobalStats, Error> {
        stats::global(&mut self.socket)
    }
}
