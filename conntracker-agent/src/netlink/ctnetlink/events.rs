//! Notifications of new, changed and ended entries.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use super::decode::Entry;
use super::dump::message_type;
use super::expect::Expectation;
use super::expect_requests;
use super::listener::{EventBuffer, EventGroups, Listener, Received};
use super::uapi::{
    IPCTNL_MSG_CT_DELETE, IPCTNL_MSG_CT_NEW, IPCTNL_MSG_EXP_DELETE, IPCTNL_MSG_EXP_NEW,
};
use crate::netlink::socket::{Error, RECEIVE_BYTES, Socket};
use crate::netlink::wire::{DecodeError, Message, Messages};
#[cfg(feature = "tokio")]
use crate::os::watch::Watched;

/// NLM_F_EXCL | NLM_F_CREATE.
const NLM_F_EXCL_CREATE: u16 = 0x600;
/// Datagrams taken by one [`Events::drain`]. The kernel sends one event in each.
const DATAGRAMS: usize = 1024;

/// What happened to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// It was made.
    New,
    /// It changed. Messages of a dump have this kind too.
    Update,
    /// It ended.
    Destroy,
}

impl Kind {
    /// From a message's type and flags; `None` if it is not about a conntrack entry.
    #[must_use]
    pub const fn of(message: &Message<'_>) -> Option<Self> {
        const NEW: u16 = message_type(IPCTNL_MSG_CT_NEW);
        const DELETE: u16 = message_type(IPCTNL_MSG_CT_DELETE);
        match message.kind {
            NEW if message.flags & NLM_F_EXCL_CREATE == NLM_F_EXCL_CREATE => Some(Self::New),
            NEW => Some(Self::Update),
            DELETE => Some(Self::Destroy),
            _ => None,
        }
    }
}

/// A notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event<'a> {
    /// What happened.
    pub kind: Kind,
    /// Netlink port of the process that did it; 0 when traffic or time did.
    pub portid: u32,
    /// The entry, as far as the kernel describes it in this kind of event.
    pub entry: Entry<'a>,
}

impl<'a> Event<'a> {
    /// Decodes one notification.
    pub fn decode(message: &Message<'a>) -> Result<Self, DecodeError> {
        let kind = Kind::of(message).ok_or(DecodeError::UnexpectedMessage(message.kind))?;
        Ok(Self { kind, portid: message.portid, entry: Entry::decode(message.payload)? })
    }
}

/// A notification about an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExpectEvent<'a> {
    /// What happened: New or Destroy.
    pub kind: Kind,
    /// Netlink port of the process that did it; 0 when traffic or time did.
    pub portid: u32,
    /// The expectation.
    pub expectation: Expectation<'a>,
}

impl<'a> ExpectEvent<'a> {
    /// Decodes one notification; `None` if it is not about an expectation.
    #[must_use]
    pub fn decode(message: &Message<'a>) -> Option<Result<Self, DecodeError>> {
        const NEW: u16 = expect_requests::message_type(IPCTNL_MSG_EXP_NEW);
        const DELETE: u16 = expect_requests::message_type(IPCTNL_MSG_EXP_DELETE);
        let kind = match message.kind {
            NEW => Kind::New,
            DELETE => Kind::Destroy,
            _ => return None,
        };
        let expectation = Expectation::decode(message.payload);
        Some(expectation.map(|expectation| Self { kind, portid: message.portid, expectation }))
    }
}

/// Counts of one [`Events::drain`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Messages handed on, decoded or not.
    pub messages: u64,
    /// Messages among them that could not be decoded.
    pub rejected: u64,
    /// Overruns of the receive buffer since the last call. Each lost an unknown number of events, so that only a dump
    /// has the present table.
    pub overruns: u64,
    /// Datagrams from other senders than the kernel, which were ignored.
    pub foreign: u64,
    /// The call reached its bound, and more may have arrived.
    pub more: bool,
}

impl Drained {
    /// Decodes the messages of a datagram.
    pub(super) fn datagram(
        &mut self,
        datagram: &[u8],
        each: &mut impl FnMut(Result<Event<'_>, DecodeError>),
    ) {
        for message in Messages::new(datagram) {
            let event = message.and_then(|message| Event::decode(&message));
            self.messages += 1;
            self.rejected += u64::from(event.is_err());
            each(event);
        }
    }
}

/// A socket that receives conntrack events.
///
/// It never waits: wait until its descriptor is readable (`tokio::io::unix::AsyncFd`, poll(2)), then
/// call [`Self::drain`] until `more` is false.
///
/// With `nf_conntrack_events=2`, the default, the kernel reports events only of flows that began while a socket
/// listened.
pub struct Events {
    listener: Listener,
    buffer: Vec<u8>,
}

impl Events {
    /// Listens in the network namespace of the calling thread. `receive_buffer` is the number of
    /// bytes to ask for (see [`Socket::set_receive_buffer`]); an event takes about 700 of them.
    pub fn open(receive_buffer: usize) -> Result<Self, Error> {
        let buffer = EventBuffer::fixed(receive_buffer);
        let listener = Listener::new(Socket::netfilter()?, EventGroups::ENTRIES, buffer)?;
        Ok(Self { listener, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// Hands the events that have arrived to `each`: at most 1024 datagrams, so that a flood of events does not keep
    /// the caller from its other work.
    pub fn drain(
        &mut self,
        mut each: impl FnMut(Result<Event<'_>, DecodeError>),
    ) -> Result<Drained, Error> {
        let mut drained = Drained { more: true, ..Drained::default() };
        let strangers = self.listener.strangers();
        for _ in 0..DATAGRAMS {
            match self.listener.receive(&mut self.buffer)? {
                Received::Datagram(len) => {
                    let datagram = self.buffer.get(..len).unwrap_or_default();
                    drained.datagram(datagram, &mut each);
                }
                // An overrun counts as a datagram, so that the loop ends whatever the kernel returns.
                Received::Overrun => drained.overruns += 1,
                Received::Nothing => {
                    drained.more = false;
                    break;
                }
            }
        }
        drained.foreign = self.listener.strangers() - strangers;
        Ok(drained)
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

#[cfg(feature = "tokio")]
// SAFETY: the descriptor lives in the socket and never changes.
unsafe impl Watched for Events {}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}
