//! A netlink socket: neli's, with the options that neli lacks and errors that name their call.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use neli::consts::socket::{Msg, NlFamily};
use neli::socket::NlSocket;
use neli::utils::Groups;
use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use nix::sys::socket::{MsgFlags, NetlinkAddr, getsockopt, recvmsg, setsockopt};

use super::request::Request;
use super::wire::DecodeError;
use crate::os::sockopt;
#[cfg(feature = "tokio")]
use crate::os::watch::Watched;

/// The kernel's port id (netlink(7)).
const KERNEL: u32 = 0;

/// SK_MEMINFO_DROPS (include/uapi/linux/sock_diag.h): the last number of SO_MEMINFO, the messages that found the
/// buffer full.
const MEMINFO_DROPS: usize = 8;

/// Bytes of the buffer that datagrams are received into: ctnetlink dumps come in pieces of up to
/// 32 KiB, rtnetlink's in pieces of up to 64 KiB where the buffer allows.
pub const RECEIVE_BYTES: usize = 64 * 1024;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{call} failed")]
    System {
        /// The call, with its important argument.
        call: &'static str,
        /// What it returned.
        source: io::Error,
    },
    /// The kernel answered a request with an error.
    #[error("{request}: {errno}{}", hint(*errno, message.as_deref()))]
    Refused {
        /// What was asked for.
        request: &'static str,
        /// The error number of the answer.
        errno: Errno,
        /// The kernel's message (NETLINK_EXT_ACK), if it sent one.
        message: Option<String>,
    },
    /// The answer makes no sense.
    #[error("{request}: the answer makes no sense")]
    Malformed {
        /// What was asked for.
        request: &'static str,
        /// What is wrong with the answer.
        source: DecodeError,
    },
    /// A datagram was longer than the receive buffer; its end is lost.
    #[error("a netlink datagram of {have} bytes exceeds the buffer of {want}")]
    Truncated {
        /// Bytes of the datagram.
        have: usize,
        /// Bytes of the buffer.
        want: usize,
    },
    /// A request has an attribute of more than 64 KiB.
    #[error("{0}: the request is too long")]
    RequestTooLong(&'static str),
}

/// The kernel's message, or ours where that says more.
fn hint(errno: Errno, message: Option<&str>) -> String {
    match (errno, message) {
        (_, Some(message)) => format!(" ({message})"),
        (Errno::EPERM, None) => " (CAP_NET_ADMIN is needed)".to_owned(),
        (_, None) => String::new(),
    }
}

impl Error {
    fn system(call: &'static str, source: impl Into<io::Error>) -> Self {
        Self::System { call, source: source.into() }
    }

    /// Whether the kernel refused a request with this error number.
    #[must_use]
    pub fn is_refused(&self, number: Errno) -> bool {
        matches!(self, Self::Refused { errno, .. } if *errno == number)
    }

    /// Whether a system call failed with this error number.
    #[must_use]
    pub fn is_system(&self, errno: Errno) -> bool {
        matches!(self, Self::System { source, .. } if source.raw_os_error() == Some(errno as i32))
    }
}

/// A netlink socket with a port id chosen by the kernel.
///
/// It belongs to the network namespace of the thread that opened it, whichever thread uses it. Calls block until
/// [`Self::set_nonblocking`].
pub struct Socket {
    inner: NlSocket,
    portid: u32,
    seq: u32,
    /// Datagrams from other senders than the kernel.
    strangers: AtomicU64,
}

impl Socket {
    /// NETLINK_NETFILTER: conntrack, nf_tables. Needs CAP_NET_ADMIN in the namespace for nearly
    /// every request.
    pub fn netfilter() -> Result<Self, Error> {
        Self::open(NlFamily::Netfilter)
    }

    /// NETLINK_ROUTE: interfaces.
    pub fn route() -> Result<Self, Error> {
        Self::open(NlFamily::Route)
    }

    fn open(family: NlFamily) -> Result<Self, Error> {
        let inner = NlSocket::connect(family, None, Groups::empty())
            .map_err(|e| Error::system("socket(AF_NETLINK)", e))?;
        inner.enable_ext_ack(true).map_err(|e| Error::system("setsockopt(NETLINK_EXT_ACK)", e))?;
        let portid = inner.pid().map_err(|e| Error::system("getsockname", e))?;
        Ok(Self { inner, portid, seq: 0, strangers: AtomicU64::new(0) })
    }

    /// Port id: the kernel's name for this socket within its namespace.
    #[must_use]
    pub fn portid(&self) -> u32 {
        self.portid
    }

    /// Makes receiving fail with EAGAIN instead of waiting.
    pub fn set_nonblocking(&self) -> Result<(), Error> {
        self.inner.nonblock().map_err(|e| Error::system("fcntl(O_NONBLOCK)", e))
    }

    /// Asks for a receive buffer of `bytes`, beyond net.core.rmem_max where CAP_NET_ADMIN allows
    /// it. Returns what the kernel accounts for, twice what it granted (socket(7), SO_RCVBUF).
    pub fn set_receive_buffer(&self, bytes: usize) -> Result<usize, Error> {
        setsockopt(self, RcvBufForce, &bytes)
            .or_else(|_| setsockopt(self, RcvBuf, &bytes))
            .map_err(|e| Error::system("setsockopt(SO_RCVBUF)", e))?;
        getsockopt(self, RcvBuf).map_err(|e| Error::system("getsockopt(SO_RCVBUF)", e))
    }

    /// Messages that have found the receive buffer full since the socket was opened, modulo 2^32; `None` before Linux
    /// 4.12.
    #[must_use]
    pub fn drops(&self) -> Option<u32> {
        let info: [u8; 4 * (MEMINFO_DROPS + 1)] = sockopt::get(self, libc::SO_MEMINFO).ok()?;
        info.last_chunk().copied().map(u32::from_ne_bytes)
    }

    /// Bytes in the receive buffer and its size, both with the kernel's own structures; `None` before Linux 4.12.
    #[must_use]
    pub fn waiting(&self) -> Option<(u32, u32)> {
        let info: [u8; 8] = sockopt::get(self, libc::SO_MEMINFO).ok()?;
        let [waiting, fitting] = [0, 4].map(|at| info[at..].first_chunk().copied());
        Some((u32::from_ne_bytes(waiting?), u32::from_ne_bytes(fitting?)))
    }

    /// Joins multicast groups (NFNLGRP_, numbers and not bits).
    pub fn join(&self, groups: &[u32]) -> Result<(), Error> {
        self.inner
            .add_mcast_membership(Groups::new_groups(groups))
            .map_err(|e| Error::system("setsockopt(NETLINK_ADD_MEMBERSHIP)", e))
    }

    /// Sends a request and returns its sequence number. `name` names the request in errors.
    pub fn send(&mut self, name: &'static str, request: Request) -> Result<u32, Error> {
        // Sequence number 0 is that of notifications, so no request has it.
        self.seq = self.seq.checked_add(1).unwrap_or(1);
        let bytes = request.finish(self.seq, self.portid).ok_or(Error::RequestTooLong(name))?;
        retry(|| self.inner.send(&bytes, Msg::empty())).map_err(|e| Error::system("send", e))?;
        Ok(self.seq)
    }

    /// Receives one datagram from the kernel. A process with CAP_NET_ADMIN in the namespace may send to the socket
    /// too: such datagrams are counted and ignored.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], Error> {
        loop {
            let (have, sender) = retry(|| {
                let mut into = [IoSliceMut::new(buffer)];
                // With MSG_TRUNC the call returns the length of the datagram, not of the part that fits.
                let received = recvmsg::<NetlinkAddr>(
                    self.inner.as_raw_fd(),
                    &mut into,
                    None,
                    MsgFlags::MSG_TRUNC,
                )?;
                Ok((received.bytes, received.address))
            })
            .map_err(|e| Error::system("recvmsg", e))?;
            if sender.is_some_and(|sender| sender.pid() == KERNEL) {
                let want = buffer.len();
                return buffer.get(..have).ok_or(Error::Truncated { have, want });
            }
            self.strangers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Datagrams from other senders than the kernel, which were ignored.
    #[must_use]
    pub fn strangers(&self) -> u64 {
        self.strangers.load(Ordering::Relaxed)
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}

#[cfg(feature = "tokio")]
// SAFETY: the descriptor lives in the socket and never changes.
unsafe impl Watched for Socket {}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `inner` owns the descriptor and closes it only when dropped, which the lifetime
        // of the borrow excludes.
        unsafe { BorrowedFd::borrow_raw(self.inner.as_raw_fd()) }
    }
}

/// Repeats a call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::sendto;

    use super::*;

    #[test]
    fn only_the_kernel_is_listened_to() {
        let ours = Socket::route().unwrap();
        ours.set_nonblocking().unwrap();
        let stranger = Socket::route().unwrap();
        let to = NetlinkAddr::new(ours.portid(), 0);
        // A whole message, of a type that we would take.
        let mut forged = [0; 32];
        forged[..4].copy_from_slice(&32_u32.to_ne_bytes());
        forged[4..6].copy_from_slice(&16_u16.to_ne_bytes());
        for _ in 0..2 {
            sendto(stranger.as_raw_fd(), &forged, &to, MsgFlags::empty()).unwrap();
        }
        let error = ours.receive(&mut [0; 64]).unwrap_err();
        assert!(error.is_system(Errno::EAGAIN), "{error}");
        assert_eq!(ours.strangers(), 2);
    }
}
