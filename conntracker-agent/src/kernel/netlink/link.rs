//! Interface names of a network namespace.

use std::collections::{HashMap, HashSet};

use super::request::{DUMP, Request};
use super::socket::{Error, RECEIVE_BYTES, Socket};
use super::wire::{Attributes, DecodeError, Message};

/// RTM_NEWLINK.
const RTM_NEWLINK: u16 = 16;
/// RTM_GETLINK.
const RTM_GETLINK: u16 = 18;
/// Bytes of `struct ifinfomsg` (include/uapi/linux/rtnetlink.h).
const IFINFOMSG: usize = 16;
/// IFLA_IFNAME, a string.
const IFLA_IFNAME: u16 = 3;
/// IFLA_EXT_MASK, u32 in host byte order.
const IFLA_EXT_MASK: u16 = 29;
/// RTEXT_FILTER_SKIP_STATS: leave out what costs most and is not used here.
const SKIP_STATS: u32 = 1 << 3;

/// Interface names of the network namespace in which it was opened, also when used from a thread
/// in another one. Names are those of the last look: an interface renamed since keeps its old name
/// until an unknown index or name is asked for, and one that is gone keeps its name until another has it.
pub struct InterfaceNames {
    socket: Socket,
    names: HashMap<u32, String>,
    unknown: HashSet<u32>,
}

impl InterfaceNames {
    /// Reads the names of the calling thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        let mut names =
            Self { socket: Socket::route()?, names: HashMap::new(), unknown: HashSet::new() };
        names.refresh()?;
        Ok(names)
    }

    /// Name of an interface index. The kernel is asked again for an index that is not known, but
    /// only once for each: interfaces whose packets are still on their way may be gone.
    pub fn name(&mut self, ifindex: u32) -> Option<&str> {
        if ifindex != 0 && !self.names.contains_key(&ifindex) && !self.unknown.contains(&ifindex) {
            self.refresh_or_log();
            if !self.names.contains_key(&ifindex) {
                self.unknown.insert(ifindex);
            }
        }
        self.names.get(&ifindex).map(String::as_str)
    }

    /// Index of an interface name. The kernel is asked again for a name that is not known.
    pub fn index_of(&mut self, name: &str) -> Option<u32> {
        self.find(name).or_else(|| {
            self.refresh_or_log();
            self.find(name)
        })
    }

    fn find(&self, name: &str) -> Option<u32> {
        self.names.iter().find(|(_, n)| *n == name).map(|(index, _)| *index)
    }

    /// Looks again.
    pub fn refresh_or_log(&mut self) {
        if let Err(error) = self.refresh() {
            log::warn!("interface names may be out of date: {error}");
        }
    }

    fn refresh(&mut self) -> Result<(), Error> {
        let name = "interface dump";
        let request = Request::new(RTM_GETLINK, DUMP)
            .raw(&[0; IFINFOMSG])
            .attribute(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
        let mut names = HashMap::new();
        let mut broken = None;
        let mut buffer = vec![0; RECEIVE_BYTES];
        self.socket.ask(name, request, &mut buffer, |message| match decode(&message) {
            Ok((index, name)) => {
                names.insert(index, String::from_utf8_lossy(name).into_owned());
            }
            Err(error) => broken = Some(error),
        })?;
        let taken: HashSet<&String> = names.values().collect();
        self.names.retain(|_, name| !taken.contains(name));
        self.names.extend(names);
        self.unknown.retain(|index| !self.names.contains_key(index));
        match broken {
            Some(source) => Err(Error::Malformed { request: name, source }),
            None => Ok(()),
        }
    }
}

/// Index and name of an interface.
fn decode<'a>(message: &Message<'a>) -> Result<(u32, &'a [u8]), DecodeError> {
    if message.kind != RTM_NEWLINK {
        return Err(DecodeError::UnexpectedMessage(message.kind));
    }
    let truncated = DecodeError::TruncatedHeader { what: "ifinfomsg", have: message.payload.len() };
    let (&[_, _, _, _, i0, i1, i2, i3, ..], attributes) =
        message.payload.split_first_chunk::<IFINFOMSG>().ok_or(truncated)?;
    for attribute in Attributes::new(attributes) {
        let attribute = attribute?;
        if attribute.kind == IFLA_IFNAME {
            return Ok((u32::from_ne_bytes([i0, i1, i2, i3]), attribute.text()));
        }
    }
    Err(DecodeError::Missing("IFLA_IFNAME"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::wire::Messages;

    #[test]
    fn index_and_name_are_read_from_a_kernel_s_answer() {
        // RTM_GETLINK dump of a new network namespace, Linux 6.18.
        let datagram = include_bytes!("ctnetlink/fixtures/link.bin");
        let message = Messages::new(datagram).next().unwrap().unwrap();
        assert_eq!(decode(&message), Ok((1, &b"lo"[..])));
        let short = Message { payload: &message.payload[..15], ..message };
        assert!(decode(&short).is_err());
    }

    #[test]
    fn interfaces_of_this_namespace_are_found_both_ways() {
        let mut names = InterfaceNames::open().unwrap();
        assert_eq!(names.name(1), Some("lo"));
        assert_eq!(names.index_of("lo"), Some(1));
        assert_eq!(names.name(0), None);
        assert_eq!(names.name(u32::MAX), None);
        assert_eq!(names.index_of("no such name"), None);
    }
}
