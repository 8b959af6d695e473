//! Messages of nf_tables' trace group: what `nft monitor trace` prints, but with handles.
//! (`nft_trace_notify` of net/netfilter/nf_tables_trace.c)

use anyhow::{Context, Result, bail};

use super::netlink::{Attributes, Message};
use super::packet::Heads;
use super::step::Verdict;

/// NFNLGRP_NFTRACE.
pub(super) const GROUP: u32 = 9;

/// NFNL_SUBSYS_NFTABLES, NFT_MSG_TRACE.
pub(super) const MESSAGE: u16 = 0x0a11;

const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const TYPE: u16 = 4;
const VERDICT: u16 = 5;
const ID: u16 = 6;
const NETWORK_HEADER: u16 = 8;
const TRANSPORT_HEADER: u16 = 9;
const IIF: u16 = 10;
const MARK: u16 = 14;
const POLICY: u16 = 16;
const CT_DIRECTION: u16 = 19;
const CT_STATE: u16 = 21;

const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// `lo` is the first device of each namespace.
const LOOPBACK: u32 = 1;

/// What was traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A rule that matched. Without a handle it is the end of a chain.
    Rule { handle: Option<u64>, verdict: Verdict },
    /// The policy of a base chain.
    Policy(Verdict),
}

/// One message.
#[derive(Clone, Debug)]
pub(super) struct Event<'a> {
    /// The same for all messages of one packet, as long as the packet lives.
    pub id: u32,
    /// Family of the table.
    pub family: &'static str,
    pub table: &'a str,
    pub chain: &'a str,
    pub what: What,
    /// After the statements of the rule.
    pub mark: u32,
    /// In the first message of each base chain.
    pub heads: Option<Heads>,
    /// In the same: the bytes of the headers of IP and above, and the interface of input.
    pub headers: Option<(&'a [u8], &'a [u8])>,
    pub input: Option<u32>,
    /// In the same: it came from the host itself.
    pub looped: bool,
    /// In the same, since Linux 6.16, if conntrack has seen the packet.
    pub state: Option<State>,
}

/// What conntrack thought of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// `new`, `established`, `related` or `untracked`.
    pub name: &'static str,
    /// Against the direction of the flow.
    pub reply: bool,
}

impl<'a> Event<'a> {
    pub(super) fn decode(message: &Message<'a>) -> Result<Self> {
        let Message { family, attributes, .. } = *message;
        let family = match family {
            1 => "inet",
            2 => "ip",
            10 => "ip6",
            other => bail!("a trace of family {other}"),
        };
        let what = match attributes.u32(TYPE).context("a trace without a type")? {
            // A return without a rule is the end of a chain, one with a rule is a rule.
            1 => What::Policy(match attributes.u32(POLICY) {
                Some(0) => Verdict::Drop,
                Some(1) => Verdict::Accept,
                other => bail!("policy {other:?}"),
            }),
            2 | 3 => What::Rule {
                handle: attributes.u64(RULE_HANDLE),
                verdict: verdict(Attributes(attributes.get(VERDICT).context("no verdict")?))?,
            },
            other => bail!("a trace of type {other}"),
        };
        let heads = attributes.get(NETWORK_HEADER).map(|network| {
            Heads::new(network, attributes.get(TRANSPORT_HEADER).unwrap_or_default())
        });
        Ok(Self {
            id: attributes.u32(ID).context("a trace without an id")?,
            family,
            table: attributes.text(TABLE).context("a trace without a table")?,
            chain: attributes.text(CHAIN).context("a trace without a chain")?,
            what,
            mark: attributes.u32(MARK).unwrap_or(0),
            heads: heads.transpose()?,
            headers: attributes
                .get(NETWORK_HEADER)
                .map(|network| (network, attributes.get(TRANSPORT_HEADER).unwrap_or_default())),
            input: attributes.u32(IIF),
            looped: attributes.u32(IIF) == Some(LOOPBACK),
            state: attributes.u32(CT_STATE).and_then(|bits| {
                let reply = attributes.get(CT_DIRECTION).is_some_and(|value| value == [1]);
                Some(State { name: state(bits)?, reply })
            }),
        })
    }
}

/// `NF_CT_STATE_BIT` and its friends.
fn state(bits: u32) -> Option<&'static str> {
    Some(match bits {
        2 => "established",
        4 => "related",
        8 => "new",
        64 => "untracked",
        _ => return None,
    })
}

fn verdict(attributes: Attributes<'_>) -> Result<Verdict> {
    let chain = || -> Result<String> {
        Ok(attributes.text(VERDICT_CHAIN).context("a jump to nowhere")?.to_owned())
    };
    Ok(match attributes.u32(VERDICT_CODE).context("no verdict code")?.cast_signed() {
        -5 => Verdict::Return,
        -4 => Verdict::Goto(chain()?),
        -3 => Verdict::Jump(chain()?),
        -1 => Verdict::Continue,
        // The upper half may say why, or to which queue.
        code => match code & 0xff {
            0 => Verdict::Drop,
            1 => Verdict::Accept,
            2 => Verdict::Stolen,
            3 => Verdict::Queue,
            other => bail!("verdict {other}"),
        },
    })
}
