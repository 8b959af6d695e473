//! The headers of a traced packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail};

use super::netlink::array;
use crate::tracer::{L4, Tuple};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// As much of the transport header, and of what follows it, as nftrace gives.
const TRACED: usize = 20;

/// What the headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heads {
    pub tuple: Tuple,
    /// An ICMP error: its tuple says nothing of the flow that it belongs to.
    pub error: bool,
    pub print: Print,
}

/// What no translation of addresses changes: by it packets are recognised where the kernel gives no
/// other sign. Those of a burst have all different ones, but for answers that repeat a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Print {
    protocol: u8,
    bytes: [u8; 12],
}

impl Heads {
    /// From the two headers; the second one may be followed by payload.
    pub(super) fn new(network: &[u8], transport: &[u8]) -> Result<Self> {
        let version = network.first().context("no network header")? >> 4;
        let (protocol, src, dst) = match version {
            4 => (
                array::<1>(network, 9)?[0],
                IpAddr::from(Ipv4Addr::from(array::<4>(network, 12)?)),
                IpAddr::from(Ipv4Addr::from(array::<4>(network, 16)?)),
            ),
            6 => (
                array::<1>(network, 6)?[0],
                IpAddr::from(Ipv6Addr::from(array::<16>(network, 8)?)),
                IpAddr::from(Ipv6Addr::from(array::<16>(network, 24)?)),
            ),
            other => bail!("IP version {other}"),
        };
        let mut traced = [0; TRACED];
        for (to, from) in traced.iter_mut().zip(transport) {
            *to = *from;
        }
        let number = |at: usize| u16::from_be_bytes([traced[at], traced[at + 1]]);
        let kind = traced[0];
        let echo = match protocol {
            ICMP => matches!(kind, 0 | 8),
            ICMPV6 => matches!(kind, 128 | 129),
            _ => false,
        };
        let icmp = matches!(protocol, ICMP | ICMPV6);
        let l4 = match protocol {
            TCP | UDP => L4::Ports(number(0), number(2)),
            _ if icmp => L4::Icmp(kind, traced[1], if echo { number(4) } else { 0 }),
            _ => L4::Nothing,
        };
        let mut bytes = [0; 12];
        match protocol {
            // Sequence numbers, offset, flags.
            TCP => bytes[..10].copy_from_slice(&traced[4..14]),
            UDP => bytes.copy_from_slice(&traced[8..]),
            // The identifier may be translated; an answer repeats all but the type.
            _ if echo => bytes.copy_from_slice(&traced[8..]),
            // Of the packet that the error is about: length and identifier, or length and so on. Two errors may be
            // about one packet.
            _ => {
                bytes[..8].copy_from_slice(&traced[8..16]);
                bytes[8..10].copy_from_slice(&traced[..2]);
            }
        }
        Ok(Self {
            tuple: Tuple { proto: protocol, src, dst, l4 },
            error: icmp && !echo,
            print: Print { protocol, bytes },
        })
    }

    /// From a whole packet.
    pub(super) fn of_packet(packet: &[u8]) -> Result<Self> {
        let first = *packet.first().context("an empty packet")?;
        let length = match (first >> 4, packet.get(6), packet.get(41)) {
            (4, ..) => usize::from(first & 0x0f) * 4,
            // Multicast listener reports have hop-by-hop options.
            (_, Some(0), Some(words)) => 48 + usize::from(*words) * 8,
            _ => 40,
        };
        let (network, transport) =
            packet.split_at_checked(length).context("a packet shorter than its header")?;
        Self::new(network, transport)
    }
}
