//! Dumps: the entries of a list that match a request, one message at a time.

use super::decode::Entry;
use super::filter::DumpRequest;
use super::uapi::{
    IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_GET_CTRZERO, IPCTNL_MSG_CT_GET_DYING,
    IPCTNL_MSG_CT_GET_UNCONFIRMED, IPCTNL_MSG_CT_NEW, NFNL_SUBSYS_CTNETLINK,
};
use crate::netlink::exchange::{Answer, Found};
use crate::netlink::request::{DUMP, Request};
use crate::netlink::socket::{Error, RECEIVE_BYTES, Socket};
use crate::netlink::wire::{DecodeError, Message};

/// Which entries of a network namespace to dump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum List {
    /// The table.
    #[default]
    Table,
    /// The table; the kernel resets the accounting of each entry that it sends. Do not combine it with a filter that
    /// the kernel does not apply itself (see [`DumpRequest::left_to_user_space`]), because entries that the library
    /// leaves out are reset too.
    TableZeroing,
    /// Entries that have left the table and whose DESTROY event was not delivered to all listeners yet. The kernel
    /// filters them by family only.
    Dying,
    /// Entries that are not confirmed, because their first packet is still inside the kernel. Linux 5.19 and newer
    /// have no such list. The kernel filters them by family only.
    Unconfirmed,
}

/// Counts of a dump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DumpStats {
    /// Entries decoded that match.
    pub entries: u64,
    /// Entries that the kernel sent and that do not match the request.
    pub left_out: u64,
    /// Messages of the dump that could not be decoded.
    pub rejected: u64,
    /// Messages with NLM_F_DUMP_INTR: if any, entries may be missing or come twice.
    pub interrupted: u64,
    /// Messages that were not of this dump, skipped.
    pub foreign: u64,
}

impl DumpStats {
    /// Decodes one message and counts it; `None` if it is not asked for.
    pub(super) fn decode<'a>(
        &mut self,
        request: &DumpRequest,
        message: &Message<'a>,
    ) -> Result<Option<Entry<'a>>, DecodeError> {
        let entry = if message.kind == message_type(IPCTNL_MSG_CT_NEW) {
            Entry::decode(message.payload)
        } else {
            Err(DecodeError::UnexpectedMessage(message.kind))
        };
        match &entry {
            Ok(entry) if !request.matches(entry) => {
                self.left_out += 1;
                return Ok(None);
            }
            Ok(_) => self.entries += 1,
            Err(_) => self.rejected += 1,
        }
        entry.map(Some)
    }
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<T> {
    /// The item.
    Item(T),
    /// A datagram without it was read: the caller may do other work before it goes on.
    More,
    /// There is no more of it.
    End,
}

/// A running dump. The table changes meanwhile: an entry that begins or ends during the dump may be in it or not, and
/// a resize of the hash table may repeat entries.
#[derive(Debug)]
pub struct Cursor {
    answer: Answer,
    request: DumpRequest,
    stats: DumpStats,
}

impl Cursor {
    /// Asks for a dump of the socket's network namespace. The socket can be used for nothing else
    /// until it is read.
    pub fn start(socket: &mut Socket, list: List, request: &DumpRequest) -> Result<Self, Error> {
        let answer = socket.begin("conntrack dump", encode(list, request))?;
        Ok(Self { answer, request: *request, stats: DumpStats::default() })
    }

    /// Finds the next entry that matches, hands it to `make`, and returns the result and where the message lies in
    /// the buffer. Messages that cannot be decoded are counted and skipped. See [`Answer::advance`].
    pub fn step<T>(
        &mut self,
        socket: &Socket,
        buffer: &mut [u8],
        make: impl FnOnce(&Entry<'_>) -> T,
    ) -> Result<Progress<(Found, T)>, Error> {
        while let Some(found) = self.answer.advance(socket, buffer)? {
            match self.stats.decode(&self.request, &found.message(buffer)) {
                Ok(Some(entry)) => {
                    let made = make(&entry);
                    return Ok(Progress::Item((found, made)));
                }
                Ok(None) => {}
                Err(error) => log::debug!("conntrack entry skipped: {error}"),
            }
            if self.answer.datagram_is_read() {
                return Ok(Progress::More);
            }
        }
        Ok(Progress::End)
    }

    /// As [`Self::step`], however many datagrams it takes; `None` at the end.
    pub fn next<T>(
        &mut self,
        socket: &Socket,
        buffer: &mut [u8],
        mut make: impl FnMut(&Entry<'_>) -> T,
    ) -> Result<Option<(Found, T)>, Error> {
        loop {
            match self.step(socket, buffer, &mut make)? {
                Progress::Item(item) => return Ok(Some(item)),
                Progress::More => {}
                Progress::End => return Ok(None),
            }
        }
    }

    /// The answer, the request and the statistics, borrowed apart.
    pub(super) fn parts(&mut self) -> (&mut Answer, &DumpRequest, &mut DumpStats) {
        (&mut self.answer, &self.request, &mut self.stats)
    }

    /// What was dumped so far.
    #[must_use]
    pub fn stats(&self) -> DumpStats {
        let noticed = self.answer.noticed();
        DumpStats { interrupted: noticed.interrupted, foreign: noticed.foreign, ..self.stats }
    }

    /// The answer that is read.
    #[must_use]
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Ends the dump and returns its answer, whose rest must be read before another dump.
    #[must_use]
    pub fn into_answer(self) -> Answer {
        self.answer
    }
}

/// Dumps the table of the socket's network namespace, an entry at a time and in the kernel's order,
/// through one buffer. `socket` must be blocking, and be given up after an error (see
/// [`Socket::ask`]).
pub fn dump(
    socket: &mut Socket,
    request: &DumpRequest,
    mut each: impl FnMut(Entry<'_>),
) -> Result<DumpStats, Error> {
    let mut buffer = vec![0; RECEIVE_BYTES];
    let mut cursor = Cursor::start(socket, List::Table, request)?;
    while cursor.next(socket, &mut buffer, |entry| each(*entry))?.is_some() {}
    Ok(cursor.stats())
}

/// Type of a conntrack message.
pub(super) const fn message_type(message: u8) -> u16 {
    u16::from_be_bytes([NFNL_SUBSYS_CTNETLINK, message])
}

fn encode(list: List, request: &DumpRequest) -> Request {
    let (message, filters) = match list {
        List::Table => (IPCTNL_MSG_CT_GET, true),
        List::TableZeroing => (IPCTNL_MSG_CT_GET_CTRZERO, true),
        List::Dying => (IPCTNL_MSG_CT_GET_DYING, false),
        List::Unconfirmed => (IPCTNL_MSG_CT_GET_UNCONFIRMED, false),
    };
    let dump = Request::netfilter(NFNL_SUBSYS_CTNETLINK, message, DUMP, request.header_family());
    if filters { request.encode(dump) } else { dump }
}
