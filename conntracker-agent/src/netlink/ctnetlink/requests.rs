//! Requests about single entries.

use super::change::{Change, EntryKey, NewEntry};
use super::decode::Entry;
use super::dump::message_type;
use super::encode;
use super::uapi::{
    CTA_MARK, CTA_MARK_MASK, IPCTNL_MSG_CT_DELETE, IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_GET_CTRZERO,
    IPCTNL_MSG_CT_NEW, NFNL_SUBSYS_CTNETLINK,
};
use crate::model::Mark;
use crate::netlink::request::{ACK, CREATE, EXCL, Request};
use crate::netlink::socket::{Error, Socket};
use crate::netlink::wire::DecodeError;

/// Asks for an entry and hands it to `make`. With `zero` the kernel resets its accounting. It does not compare the
/// identifier, so this function does.
pub fn get<T>(
    socket: &mut Socket,
    buffer: &mut [u8],
    key: &EntryKey,
    zero: bool,
    make: impl FnOnce(&Entry<'_>) -> T,
) -> Result<T, Error> {
    const NAME: &str = "conntrack get";
    let message = if zero { IPCTNL_MSG_CT_GET_CTRZERO } else { IPCTNL_MSG_CT_GET };
    let mut answer = socket.begin(NAME, encode::key(request(message, ACK, key), key))?;
    let mut made = Err(DecodeError::Missing("an entry"));
    let mut make = Some(make);
    while let Some(found) = answer.advance(socket, buffer)? {
        let message = found.message(buffer);
        let entry = if message.kind == message_type(IPCTNL_MSG_CT_NEW) {
            Entry::decode(message.payload)
        } else {
            Err(DecodeError::UnexpectedMessage(message.kind))
        };
        match (entry, make.take()) {
            (Ok(entry), Some(make)) => made = Ok(make(&entry)),
            (Err(error), _) => made = Err(error),
            (Ok(_), None) => {}
        }
    }
    made.map_err(|source| Error::Malformed { request: NAME, source })
}

/// Makes an entry. If one with its original direction exists, that one is changed, or with `exclusive` the kernel
/// answers EEXIST. EEXIST too if another entry has one of its tuples.
pub fn create(
    socket: &mut Socket,
    buffer: &mut [u8],
    entry: &NewEntry,
    exclusive: bool,
) -> Result<(), Error> {
    let flags = if exclusive { CREATE | EXCL } else { CREATE };
    let request = Request::netfilter(
        NFNL_SUBSYS_CTNETLINK,
        IPCTNL_MSG_CT_NEW,
        ACK | flags,
        encode::family(entry.orig.src),
    );
    acknowledged(socket, buffer, "conntrack create", encode::new_entry(request, entry))
}

/// Changes an entry; ENOENT if there is none. The kernel does not compare the identifier here.
pub fn update(
    socket: &mut Socket,
    buffer: &mut [u8],
    key: &EntryKey,
    change: &Change,
) -> Result<(), Error> {
    let request = encode::key(request(IPCTNL_MSG_CT_NEW, ACK, key), key);
    acknowledged(socket, buffer, "conntrack update", encode::change(request, change))
}

/// Removes an entry; ENOENT if there is none, or if it has another identifier.
pub fn delete(socket: &mut Socket, buffer: &mut [u8], key: &EntryKey) -> Result<(), Error> {
    let request = encode::key(request(IPCTNL_MSG_CT_DELETE, ACK, key), key);
    acknowledged(socket, buffer, "conntrack delete", request)
}

/// Removes all entries, or those of a family, or those whose `mark & mask` is a value. There is no other filter,
/// because a kernel that ignores it would remove everything.
pub fn flush(
    socket: &mut Socket,
    buffer: &mut [u8],
    family: Option<u8>,
    mark: Option<(Mark, u32)>,
) -> Result<(), Error> {
    // With version 0 the kernel ignores the family in the header and flushes all.
    let request = match family {
        Some(family) => {
            Request::netfilter_v1(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE, ACK, family)
        }
        None => Request::netfilter(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE, ACK, 0),
    };
    let request = request
        .optional(CTA_MARK, mark.map(|(Mark(value), _)| value.to_be_bytes()))
        .optional(CTA_MARK_MASK, mark.map(|(_, mask)| mask.to_be_bytes()));
    acknowledged(socket, buffer, "conntrack flush", request)
}

fn request(message: u8, flags: u16, key: &EntryKey) -> Request {
    Request::netfilter(NFNL_SUBSYS_CTNETLINK, message, flags, encode::family(key.tuple.src))
}

/// Sends a request that is answered by an acknowledgement alone.
fn acknowledged(
    socket: &mut Socket,
    buffer: &mut [u8],
    name: &'static str,
    request: Request,
) -> Result<(), Error> {
    socket.ask(name, request, buffer, |_| {}).map(|_| ())
}
