//! How full the table is.

use super::dump::message_type;
use super::uapi::{
    CTA_STATS_GLOBAL_ENTRIES, CTA_STATS_GLOBAL_MAX_ENTRIES, IPCTNL_MSG_CT_GET_STATS,
    NFNL_SUBSYS_CTNETLINK,
};
use crate::kernel::netlink::request::{ACK, Request};
use crate::kernel::netlink::socket::{Error, RECEIVE_BYTES, Socket};
use crate::kernel::netlink::wire::{self, DecodeError, Message};

/// What was asked for, in errors.
const NAME: &str = "conntrack statistics";

/// The table of a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalStats {
    /// Entries now.
    pub entries: u32,
    /// Entries there may be (nf_conntrack_max); told since Linux 4.18.
    pub max_entries: Option<u32>,
}

/// Asks for the statistics of the socket's network namespace.
pub fn global(socket: &mut Socket) -> Result<GlobalStats, Error> {
    let request = Request::netfilter(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET_STATS, ACK, 0);
    let mut stats = Err(DecodeError::Missing("CTA_STATS_GLOBAL_ENTRIES"));
    let mut buffer = vec![0; RECEIVE_BYTES];
    socket.ask(NAME, request, &mut buffer, |message| stats = decode(&message))?;
    stats.map_err(|source| Error::Malformed { request: NAME, source })
}

fn decode(message: &Message<'_>) -> Result<GlobalStats, DecodeError> {
    if message.kind != message_type(IPCTNL_MSG_CT_GET_STATS) {
        return Err(DecodeError::UnexpectedMessage(message.kind));
    }
    let (_, attributes) = wire::netfilter(message.payload)?;
    let (mut entries, mut max_entries) = (None, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            CTA_STATS_GLOBAL_ENTRIES => {
                entries = Some(attribute.be32("CTA_STATS_GLOBAL_ENTRIES")?);
            }
            CTA_STATS_GLOBAL_MAX_ENTRIES => {
                max_entries = Some(attribute.be32("CTA_STATS_GLOBAL_MAX_ENTRIES")?);
            }
            _ => {}
        }
    }
    let entries = entries.ok_or(DecodeError::Missing("CTA_STATS_GLOBAL_ENTRIES"))?;
    Ok(GlobalStats { entries, max_entries })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::wire::Messages;

    #[test]
    fn the_answer_of_a_kernel_is_read() {
        // Linux 6.18, followed by the acknowledgement.
        let datagram = include_bytes!("fixtures/stats.bin");
        let message = Messages::new(datagram).next().unwrap().unwrap();
        let stats = decode(&message).unwrap();
        assert_eq!(stats, GlobalStats { entries: 10, max_entries: Some(0x4_0000) });
    }
}
