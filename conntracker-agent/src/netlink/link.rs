//! Interface names of a network namespace.

#[cfg(feature = "tokio")]
use crate::os::watch::Watched;
use std::os::fd::{AsRawFd, RawFd};

use nix::errno::Errno;

use super::request::{DUMP, Request};
use super::socket::{Error, RECEIVE_BYTES, Socket};
use super::wire::{Attributes, DecodeError, Message, Messages};

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
/// RTEXT_FILTER_SKIP_STATS: leave out the statistics, which cost most and are not needed.
const SKIP_STATS: u32 = 1 << 3;

/// RTNLGRP_LINK: interfaces that come, change and go.
const RTNLGRP_LINK: u32 = 1;

/// Datagrams taken at once.
const DATAGRAMS: usize = 1024;

/// The interfaces of a network namespace: their names, and a socket that receives changes of them. It belongs to the
/// namespace in which it was opened, also when a thread of another one uses it.
pub struct InterfaceWatch {
    asking: Socket,
    changes: Socket,
    buffer: Vec<u8>,
}

/// What was read of the kernel's notifications.
#[derive(Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Noticed {
    /// Interfaces that are new or have changed: index and name, in the order of the changes.
    pub names: Vec<(u32, String)>,
    /// Whether notifications were lost, so that [`InterfaceWatch::list`] must be called.
    pub lost: bool,
    /// There are no more.
    pub all: bool,
}

impl InterfaceWatch {
    /// Listens in the calling thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        let changes = Socket::route()?;
        changes.set_nonblocking()?;
        changes.join(&[RTNLGRP_LINK])?;
        Ok(Self { asking: Socket::route()?, changes, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// The interfaces of now: index and name.
    pub fn list(&mut self) -> Result<Vec<(u32, String)>, Error> {
        let name = "interface dump";
        let request = Request::new(RTM_GETLINK, DUMP)
            .raw(&[0; IFINFOMSG])
            .attribute(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
        let (mut names, mut broken) = (Vec::new(), None);
        let mut buffer = vec![0; RECEIVE_BYTES];
        self.asking.ask(name, request, &mut buffer, |message| match decode(&message) {
            Ok((index, name)) => names.push((index, String::from_utf8_lossy(name).into_owned())),
            Err(error) => broken = Some(error),
        })?;
        match broken {
            Some(source) => Err(Error::Malformed { request: name, source }),
            None => Ok(names),
        }
    }

    /// Reads notifications, up to a bound.
    pub fn read(&mut self) -> Result<Noticed, Error> {
        let mut noticed = Noticed::default();
        for _ in 0..DATAGRAMS {
            match self.changes.receive(&mut self.buffer) {
                Ok(datagram) => {
                    for message in Messages::new(datagram).flatten() {
                        // Messages about other objects have no interface name.
                        if let Ok((index, name)) = decode(&message) {
                            let name = String::from_utf8_lossy(name).into_owned();
                            noticed.names.push((index, name));
                        }
                    }
                }
                Err(e) if e.is_system(Errno::ENOBUFS) => noticed.lost = true,
                Err(e) if e.is_system(Errno::EAGAIN) => {
                    noticed.all = true;
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(noticed)
    }
}

impl AsRawFd for InterfaceWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.changes.as_raw_fd()
    }
}

#[cfg(feature = "tokio")]
// SAFETY: the descriptor lives in the socket and never changes.
unsafe impl Watched for InterfaceWatch {}

/// Reads one message: index and name.
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
    fn interfaces_of_this_namespace_are_listed_and_nothing_has_changed() {
        let mut watch = InterfaceWatch::open().unwrap();
        assert!(watch.list().unwrap().contains(&(1, "lo".to_owned())));
        let noticed = watch.read().unwrap();
        assert!(noticed.all && !noticed.lost);
    }
}
