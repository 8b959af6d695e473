//! TRACE of ip_tables. A packet with nftrace set is traced by ip_tables too: the mark is the same
//! bit of the packet that its target TRACE sets. The text goes to the logger of the namespace; with
//! `nfnetlink_log` there that is a netlink message to whoever is bound to group 0.
//! (`trace_packet` of net/ipv4/netfilter/ip_tables.c, `nf_log_trace`)

use anyhow::{Context, Result};

use super::netlink::{Message, Socket};
use super::packet::Heads;
use super::step::Hook;

/// NFNL_SUBSYS_ULOG, NFULNL_MSG_PACKET.
pub(super) const MESSAGE: u16 = 0x0400;

const MESSAGE_CONFIG: u16 = MESSAGE | 1;
const CONFIG_COMMAND: u16 = 1;
const CONFIG_MODE: u16 = 2;
const CONFIG_THRESHOLD: u16 = 5;

const PACKET_HEADER: u16 = 1;
const MARK: u16 = 2;
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;

/// One message.
#[derive(Clone, Debug)]
pub(super) struct Event<'a> {
    /// Family of the table.
    pub family: &'static str,
    pub table: &'a str,
    pub chain: &'a str,
    /// Whose base chain the packet is in.
    pub hook: Hook,
    /// Number in the chain, from 1.
    pub position: u32,
    /// Before the target.
    pub mark: u32,
    pub heads: Heads,
}

/// Binds the socket to group 0: all of the packet, each message at once.
pub(super) fn bind(socket: &mut Socket) -> Result<()> {
    const BIND: u8 = 1;
    const COPY_PACKET: u8 = 2;
    let mode = [&0xffff_u32.to_be_bytes()[..], &[COPY_PACKET, 0]].concat();
    for attribute in [
        (CONFIG_COMMAND, &[BIND][..]),
        (CONFIG_MODE, &mode),
        (CONFIG_THRESHOLD, &1_u32.to_be_bytes()),
    ] {
        socket.request(MESSAGE_CONFIG, 0, 0, &[attribute]).context("binding to NFLOG group 0")?;
    }
    Ok(())
}

impl<'a> Event<'a> {
    /// `None` if it is no trace but something that a rule logs.
    pub(super) fn decode(message: &Message<'a>) -> Result<Option<Self>> {
        let Message { family, attributes, .. } = *message;
        let Some(prefix) = attributes.text(PREFIX).and_then(|text| text.strip_prefix("TRACE: "))
        else {
            return Ok(None);
        };
        // Table, chain, a word that depends on how the rule looks, number.
        let mut fields = prefix.trim_end().rsplitn(3, ':');
        let mut field = || fields.next().with_context(|| format!("trace «{prefix}»"));
        let (position, _, place) = (field()?.parse()?, field()?, field()?);
        let (table, chain) = place.split_once(':').context("a trace without a chain")?;
        let hook = *attributes.get(PACKET_HEADER).and_then(|h| h.get(2)).context("no hook")?;
        Ok(Some(Self {
            family: if family == 2 { "ip" } else { "ip6" },
            table,
            chain,
            hook: *Hook::ALL.get(usize::from(hook)).context("no such hook")?,
            position,
            mark: attributes.u32(MARK).unwrap_or(0),
            heads: Heads::of_packet(attributes.get(PAYLOAD).context("a trace without a packet")?)?,
        }))
    }
}
