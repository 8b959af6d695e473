//! All entries of the table, or those that the kernel can tell apart.

use super::decode::Entry;
use super::uapi::{
    CTA_MARK, CTA_MARK_MASK, CTA_STATUS, CTA_STATUS_MASK, CTA_ZONE, IPCTNL_MSG_CT_GET,
    IPCTNL_MSG_CT_NEW, NFNL_SUBSYS_CTNETLINK,
};
use crate::kernel::netlink::request::{DUMP, Request};
use crate::kernel::netlink::socket::{Error, RECEIVE_BYTES, Socket};
use crate::kernel::netlink::wire::{DecodeError, Message};

/// Which entries to dump; `None` means any. Kernels older than a filter ignore it and send more, so
/// the caller must look at each entry again all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpRequest {
    /// AF_INET (2) or AF_INET6 (10).
    pub family: Option<u8>,
    /// Value and mask: entries whose `mark & mask` is the value. A kernel without
    /// CONFIG_NF_CONNTRACK_MARK refuses it with EOPNOTSUPP.
    pub mark: Option<(u32, u32)>,
    /// Value and mask: entries whose `status & mask` is the value (IPS_ bits; Linux 5.15+).
    pub status: Option<(u32, u32)>,
    /// Entries of this zone, whichever of their directions it applies to (Linux 6.8+).
    pub zone: Option<u16>,
}

/// What a dump consisted of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpStats {
    /// Entries decoded.
    pub entries: u64,
    /// Messages of the dump that could not be decoded.
    pub rejected: u64,
    /// Messages with NLM_F_DUMP_INTR: if any, entries may be missing or come twice.
    pub interrupted: u64,
    /// Messages that were not of this dump, skipped.
    pub foreign: u64,
}

impl DumpStats {
    /// Counts one message and decodes it.
    pub(super) fn decode<'a>(&mut self, message: &Message<'a>) -> Result<Entry<'a>, DecodeError> {
        let entry = if message.kind == message_type(IPCTNL_MSG_CT_NEW) {
            Entry::decode(message.payload)
        } else {
            Err(DecodeError::UnexpectedMessage(message.kind))
        };
        match entry {
            Ok(_) => self.entries += 1,
            Err(_) => self.rejected += 1,
        }
        entry
    }
}

/// Dumps the table of the socket's network namespace, an entry at a time and in the kernel's order,
/// through one buffer. `socket` must be blocking, and be given up after an error (see
/// [`Socket::ask`]).
///
/// The table changes meanwhile: an entry made or ended during the dump may or may not be in it, and
/// on a resize of the hash table some may come twice.
pub fn dump(
    socket: &mut Socket,
    request: &DumpRequest,
    mut each: impl FnMut(Result<Entry<'_>, DecodeError>),
) -> Result<DumpStats, Error> {
    let mut stats = DumpStats::default();
    let mut buffer = vec![0; RECEIVE_BYTES];
    let noticed = socket.ask("conntrack dump", encode(request), &mut buffer, |message| {
        each(stats.decode(&message));
    })?;
    Ok(DumpStats { interrupted: noticed.interrupted, foreign: noticed.foreign, ..stats })
}

/// Type of a conntrack message.
pub(super) const fn message_type(message: u8) -> u16 {
    u16::from_be_bytes([NFNL_SUBSYS_CTNETLINK, message])
}

fn encode(request: &DumpRequest) -> Request {
    let DumpRequest { family, mark, status, zone } = *request;
    let mut message = Request::netfilter(
        NFNL_SUBSYS_CTNETLINK,
        IPCTNL_MSG_CT_GET,
        DUMP,
        family.unwrap_or_default(),
    );
    if let Some((value, mask)) = mark {
        message = message
            .attribute(CTA_MARK, &value.to_be_bytes())
            .attribute(CTA_MARK_MASK, &mask.to_be_bytes());
    }
    // A mask of no bits compares nothing; the kernel answers EINVAL to it.
    if let Some((value, mask)) = status.filter(|&(_, mask)| mask != 0) {
        message = message
            .attribute(CTA_STATUS, &value.to_be_bytes())
            .attribute(CTA_STATUS_MASK, &mask.to_be_bytes());
    }
    if let Some(zone) = zone {
        message = message.attribute(CTA_ZONE, &zone.to_be_bytes());
    }
    message
}
