//! A socket that receives events, and what it does when they come too fast.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;

use super::uapi::{
    NFNLGRP_CONNTRACK_DESTROY, NFNLGRP_CONNTRACK_EXP_DESTROY, NFNLGRP_CONNTRACK_EXP_NEW,
    NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_UPDATE,
};
use crate::netlink::socket::{Error, Socket};
#[cfg(feature = "tokio")]
use crate::os::watch::Watched;

/// Kinds of events to listen to; add them with [`Self::and`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventGroups(u32);

impl EventGroups {
    /// New entries.
    pub const NEW: Self = Self(1 << NFNLGRP_CONNTRACK_NEW);
    /// Changes of entries.
    pub const UPDATE: Self = Self(1 << NFNLGRP_CONNTRACK_UPDATE);
    /// Ends of entries.
    pub const DESTROY: Self = Self(1 << NFNLGRP_CONNTRACK_DESTROY);
    /// New expectations. There is no event when one changes.
    pub const EXPECT_NEW: Self = Self(1 << NFNLGRP_CONNTRACK_EXP_NEW);
    /// Ends of expectations.
    pub const EXPECT_DESTROY: Self = Self(1 << NFNLGRP_CONNTRACK_EXP_DESTROY);
    /// All events of entries.
    pub const ENTRIES: Self = Self::NEW.and(Self::UPDATE).and(Self::DESTROY);
    /// All events of expectations.
    pub const EXPECTATIONS: Self = Self::EXPECT_NEW.and(Self::EXPECT_DESTROY);
    /// All events.
    pub const ALL: Self = Self::ENTRIES.and(Self::EXPECTATIONS);

    /// These and those.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether some of `other` are among them.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// NFNLGRP_ numbers.
    fn numbers(self) -> Vec<u32> {
        (0..u32::BITS).filter(|group| self.0 >> group & 1 == 1).collect()
    }
}

/// The size of the receive buffer, in bytes as SO_RCVBUF takes them. An event takes about 700.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventBuffer {
    /// At first.
    pub start: usize,
    /// The buffer is doubled when it is half full and after each overrun, up to this size.
    pub limit: usize,
}

impl EventBuffer {
    /// Always this size.
    #[must_use]
    pub const fn fixed(bytes: usize) -> Self {
        Self { start: bytes, limit: bytes }
    }
}

impl Default for EventBuffer {
    /// From 2 MiB to 64 MiB.
    fn default() -> Self {
        Self { start: 2 << 20, limit: 64 << 20 }
    }
}

/// The result of [`Listener::receive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Received {
    /// A datagram of so many bytes.
    Datagram(usize),
    /// The buffer was full, and events have been lost since. The kernel queues no more events until the buffer was
    /// read empty.
    Overrun,
    /// No datagram.
    Nothing,
}

/// The fill of the buffer is checked once for so many datagrams, which are a small part of the smallest default
/// buffer.
const CHECK_EVERY: u32 = 64;

/// A socket in some multicast groups, which never waits.
pub struct Listener {
    socket: Socket,
    buffer: EventBuffer,
    /// Size that was asked for last, and size that the kernel granted.
    asked: usize,
    granted: usize,
    /// Datagrams received.
    received: u32,
    /// `Socket::drops` when it was last read, and the sum of all its increments.
    drops: u32,
    lost: u64,
}

impl Listener {
    /// Listens in the network namespace of `socket`.
    pub fn new(socket: Socket, groups: EventGroups, buffer: EventBuffer) -> Result<Self, Error> {
        socket.set_nonblocking()?;
        let mut listener =
            Self { socket, buffer, asked: 0, granted: 0, received: 0, drops: 0, lost: 0 };
        listener.resize(buffer.start)?;
        listener.socket.join(&groups.numbers())?;
        Ok(listener)
    }

    /// Receives a datagram. A buffer that is half full or has overrun is enlarged, up to the limit.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<Received, Error> {
        match self.socket.receive(buffer) {
            Ok(datagram) => {
                let len = datagram.len();
                self.received = self.received.wrapping_add(1);
                if self.received.is_multiple_of(CHECK_EVERY)
                    && self.socket.waiting().is_some_and(|(waiting, fits)| waiting > fits / 2)
                {
                    self.grow()?;
                }
                Ok(Received::Datagram(len))
            }
            Err(e) if e.is_system(Errno::ENOBUFS) => {
                self.grow()?;
                Ok(Received::Overrun)
            }
            Err(e) if e.is_system(Errno::EAGAIN) => Ok(Received::Nothing),
            Err(e) => Err(e),
        }
    }

    /// Size of the receive buffer as the kernel granted it. Less than what was asked for if neither
    /// CAP_NET_ADMIN nor net.core.rmem_max allows that.
    #[must_use]
    pub fn buffer(&self) -> usize {
        self.granted
    }

    /// Events that found the buffer full so far; `None` if the kernel does not count them (before Linux 4.12). After
    /// an overrun the number grows until the buffer was read empty.
    #[must_use]
    pub fn lost(&mut self) -> Option<u64> {
        let drops = self.socket.drops()?;
        self.lost += u64::from(drops.wrapping_sub(self.drops));
        self.drops = drops;
        Some(self.lost)
    }

    /// Datagrams from other senders than the kernel, which were ignored.
    #[must_use]
    pub fn strangers(&self) -> u64 {
        self.socket.strangers()
    }

    fn grow(&mut self) -> Result<(), Error> {
        let larger = self.asked.saturating_mul(2).min(self.buffer.limit);
        if larger > self.asked { self.resize(larger) } else { Ok(()) }
    }

    fn resize(&mut self, bytes: usize) -> Result<(), Error> {
        self.asked = bytes;
        // The kernel charges its own structures to the buffer too, and doubles the size that it is asked for.
        self.granted = self.socket.set_receive_buffer(bytes)? / 2;
        if self.granted < bytes {
            log::warn!(
                "the event buffer has {} bytes instead of {bytes}: without CAP_NET_ADMIN net.core.rmem_max is the limit",
                self.granted
            );
        }
        Ok(())
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(feature = "tokio")]
// SAFETY: the descriptor lives in the socket and never changes.
unsafe impl Watched for Listener {}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_numbers_and_not_bits() {
        assert_eq!(EventGroups::ALL.numbers(), [1, 2, 3, 4, 6]);
        assert_eq!(EventGroups::NEW.and(EventGroups::EXPECT_DESTROY).numbers(), [1, 6]);
        assert!(EventGroups::ALL.overlaps(EventGroups::EXPECTATIONS));
        assert!(!EventGroups::ENTRIES.overlaps(EventGroups::EXPECTATIONS));
    }
}
