//! All that routing hangs on in a network namespace, as the messages that the kernel sends.

use nix::errno::Errno;

use super::super::{
    request::{DUMP, Request},
    socket::{Error, Socket},
};

/// Bytes that a dump may have: a full table of the Internet's routes takes more, and is left out.
const BYTES: usize = 16 << 20;

/// Dumps that are begun before one is taken during which something changed.
const ATTEMPTS: usize = 5;

/// Requests for a dump, and the bytes of the header behind each: `struct ifinfomsg`, `ifaddrmsg`, `rtmsg`,
/// `fib_rule_hdr`.
const RTM_GETLINK: (u16, usize) = (18, 16);
const RTM_GETADDR: (u16, usize) = (22, 8);
const RTM_GETROUTE: (u16, usize) = (26, 12);
const RTM_GETRULE: (u16, usize) = (34, 12);

/// Families.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// IFLA_EXT_MASK with RTEXT_FILTER_SKIP_STATS: without statistics, which cost most and are not needed.
const IFLA_EXT_MASK: u16 = 29;
const SKIP_STATS: u32 = 1 << 3;

/// The messages of a dump: interfaces, then addresses, routes and rules of IPv4 and IPv6.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutingDump {
    messages: Vec<u8>,
}

impl RoutingDump {
    /// Reads everything in the network namespace of the calling thread; `None` if that is more than 16 MiB.
    ///
    /// # Errors
    /// The kernel refuses a request.
    pub fn read() -> Result<Option<Self>, Error> {
        let mut dump = Self::default();
        for attempt in 1..=ATTEMPTS {
            dump.messages.clear();
            let Some(mut steady) = dump.ask("interfaces", RTM_GETLINK, 0)? else { return Ok(None) };
            for family in [AF_INET, AF_INET6] {
                for (name, request) in [
                    ("addresses", RTM_GETADDR),
                    ("routes", RTM_GETROUTE),
                    ("rules of routing", RTM_GETRULE),
                ] {
                    match dump.ask(name, request, family) {
                        // Without IPv6, or without rules of routing in the kernel.
                        Err(error) if is_without(&error) => {}
                        asked => match asked? {
                            Some(complete) => steady &= complete,
                            None => return Ok(None),
                        },
                    }
                }
            }
            if steady || attempt == ATTEMPTS {
                break;
            }
        }
        Ok(Some(dump))
    }

    /// A dump that was kept: what [`Self::bytes`] returned.
    #[must_use]
    pub fn of(messages: Vec<u8>) -> Self {
        Self { messages }
    }

    /// Its messages, whole and one behind the other.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.messages
    }

    /// The same, for good.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.messages
    }

    /// Appends the answer to a request; false if something changed meanwhile, `None` if it is all too much.
    fn ask(
        &mut self,
        name: &'static str,
        (kind, header): (u16, usize),
        family: u8,
    ) -> Result<Option<bool>, Error> {
        let mut bytes = vec![0; header];
        bytes[0] = family;
        let mut request = Request::new(kind, DUMP).raw(&bytes);
        if kind == RTM_GETLINK.0 {
            request = request.attribute(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
        }
        let asked = Socket::route()?.append(name, request, &mut self.messages, BYTES)?;
        Ok(asked.map(|noticed| noticed.interrupted == 0))
    }
}

fn is_without(error: &Error) -> bool {
    [Errno::EOPNOTSUPP, Errno::EAFNOSUPPORT].into_iter().any(|errno| error.is_refused(errno))
}
