//! As much of netlink as the oracle needs, without the code of the program under test.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// Room for all that one ruleset's packets can give, many times over.
const BUFFER: usize = 128 << 20;

const HEADER: usize = 16;
const NFGENMSG: usize = 4;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;

/// A socket of NETLINK_NETFILTER in the namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

/// A message: type, `nfgen_family`, and the attributes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub kind: u16,
    pub family: u8,
    pub attributes: Attributes<'a>,
}

impl Socket {
    /// Joins these multicast groups, given as bits (group 1 is the lowest).
    pub(super) fn open(groups: u32) -> Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups)).context("joining netlink groups")?;
        setsockopt(&fd, RcvBufForce, &BUFFER).context("enlarging the receive buffer")?;
        Ok(Self { fd, buffer: vec![0; 1 << 16] })
    }

    /// Sends a request and waits for its acknowledgement. What else arrives meanwhile is lost.
    pub(super) fn request(
        &mut self,
        kind: u16,
        family: u8,
        resource: u16,
        attributes: &[(u16, &[u8])],
    ) -> Result<()> {
        let mut body = vec![family, 0];
        body.extend(resource.to_be_bytes());
        for (attribute, value) in attributes {
            body.extend((value.len() as u16 + 4).to_ne_bytes());
            body.extend(attribute.to_ne_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        send(self.fd.as_raw_fd(), &message, MsgFlags::empty()).context("netlink request")?;
        for _ in 0..1000 {
            let datagram = self.datagram(Duration::from_secs(1))?.context("no acknowledgement")?;
            if u16_at(datagram, 4)? == NLMSG_ERROR {
                let code = i32::from_ne_bytes(array(datagram, HEADER)?);
                ensure!(code == 0, "netlink request: {}", io::Error::from_raw_os_error(-code));
                return Ok(());
            }
        }
        bail!("no acknowledgement among many messages")
    }

    /// The messages of the next datagram; `None` if none came in time.
    pub(super) fn receive(&mut self, timeout: Duration) -> Result<Option<Vec<Message<'_>>>> {
        self.datagram(timeout)?.map(messages).transpose()
    }

    fn datagram(&mut self, timeout: Duration) -> Result<Option<&[u8]>> {
        let micros = timeout.as_micros().max(1).try_into().unwrap_or(i64::MAX);
        setsockopt(&self.fd, ReceiveTimeout, &TimeVal::microseconds(micros))?;
        match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC) {
            Ok(length) => {
                Ok(Some(self.buffer.get(..length).context("a message is longer than the buffer")?))
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(Errno::ENOBUFS) => bail!("the oracle was overrun: traces are lost"),
            Err(error) => Err(error).context("receiving traces"),
        }
    }
}

/// Takes a datagram apart.
pub(super) fn messages(mut datagram: &[u8]) -> Result<Vec<Message<'_>>> {
    let mut messages = Vec::new();
    while datagram.len() >= HEADER {
        let length = u32::from_ne_bytes(array(datagram, 0)?) as usize;
        let kind = u16_at(datagram, 4)?;
        let body = datagram.get(HEADER..length).context("netlink message cut short")?;
        if body.len() >= NFGENMSG {
            let attributes = Attributes(&body[NFGENMSG..]);
            messages.push(Message { kind, family: body[0], attributes });
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(messages)
}

/// Attributes that follow each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of an attribute, if it is there.
    pub(super) fn get(self, wanted: u16) -> Option<&'a [u8]> {
        const FLAGS: u16 = 0xc000;
        let mut rest = self.0;
        while rest.len() >= 4 {
            let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
            let kind = u16::from_ne_bytes([rest[2], rest[3]]) & !FLAGS;
            let value = rest.get(4..length)?;
            if kind == wanted {
                return Some(value);
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        None
    }

    /// A number in network byte order.
    pub(super) fn u32(self, wanted: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(wanted)?.try_into().ok()?))
    }

    /// A larger number.
    pub(super) fn u64(self, wanted: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.get(wanted)?.try_into().ok()?))
    }

    /// A text, without the zero at its end.
    pub(super) fn text(self, wanted: u16) -> Option<&'a str> {
        let bytes = self.get(wanted)?;
        std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
    }
}

/// Some bytes at an offset.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk()).copied();
    found.with_context(|| format!("no {N} bytes at offset {at} of {}", bytes.len()))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_ne_bytes(array(bytes, at)?))
}
