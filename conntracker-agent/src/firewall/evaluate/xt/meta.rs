//! What is not in the packet's own bytes above the link: `mark`, `owner`, `mac`, `pkttype`, `devgroup`, `eui64`
//! (net/netfilter/xt_*.c, net/ipv6/netfilter/ip6t_eui64.c).

use std::net::IpAddr;

use super::compare::Range;
use crate::firewall::{
    evaluate::{
        decision::Decision,
        header::Header,
        interface::Interface,
        packet::{Packet, PacketType, Side, SocketOwner},
        unknown::{Attr, Attribute},
    },
    fields::Fields,
};

/// `struct xt_mark_mtinfo1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Mark.
    pub mark: u32,
    /// Bits that are compared.
    pub mask: u32,
    /// It must be another one.
    pub inverted: bool,
}

impl Mark {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        Some(Self { mark: info.u32(0)?, mask: info.u32(4)?, inverted: info.u8(8)? != 0 })
    }

    pub(super) fn decide(self, packet: &Packet) -> Decision {
        packet.mark.has(self.mark, self.mask).inverted_if(self.inverted)
    }
}

/// `struct xt_owner_match_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Users.
    pub users: Option<Range<u32>>,
    /// Groups.
    pub groups: Option<Range<u32>>,
    /// Also the other groups of the user count.
    pub supplementary: bool,
    /// Whether a socket must exist, or must not.
    pub socket: Option<bool>,
}

impl Owner {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        let (matches, inverts) = (info.u8(16)?, info.u8(17)?);
        let range = |at, bit: u8| {
            let (first, last) = (info.u32(at)?, info.u32(at + 4)?);
            let inverted = inverts & bit != 0;
            Some((matches & bit != 0).then_some(Range { first, last, inverted }))
        };
        Some(Self {
            users: range(0, 1)?,
            groups: range(8, 2)?,
            supplementary: matches & 8 != 0,
            socket: (matches & 4 != 0).then_some(inverts & 4 == 0),
        })
    }

    pub(super) fn decide(&self, packet: &Packet) -> Decision {
        let Self { users, groups, supplementary, socket } = self;
        match packet.owner {
            Err(unknown) => Decision::Undecided(unknown.into()),
            // Everything that is asked for must be inverted, and there is nothing to invert of other groups.
            Ok(None) => {
                let inverted = |range: &Option<Range<u32>>| range.is_none_or(|of| of.inverted);
                let lacks = inverted(users) && inverted(groups) && *socket != Some(true);
                (lacks && !supplementary).into()
            }
            Ok(Some(SocketOwner { uid, gid })) => {
                let user = users.map_or(Decision::Yes, |users| users.has(Ok(uid)));
                let group = groups.map_or(Decision::Yes, |groups| {
                    let own = Range { inverted: false, ..groups }.has(Ok(gid));
                    let other = if *supplementary {
                        Decision::Undecided(Attribute::Owner.into())
                    } else {
                        Decision::No
                    };
                    own.or(other).inverted_if(groups.inverted)
                });
                user.and(group).and((*socket != Some(false)).into())
            }
        }
    }
}

/// Address of the source in the header of Ethernet; its type.
const LINK_SOURCE: usize = 6;
const LINK_TYPE: usize = 12;

/// ARPHRD_ETHER, ETH_P_IPV6.
const ETHERNET: u16 = 1;
const IPV6: u16 = 0x86dd;

/// Whether the packet has come in from a device with Ethernet's header.
fn has_link(packet: &Packet) -> Decision {
    match &packet.input {
        Err(unknown) if packet.link.is_some() => Decision::Undecided((*unknown).into()),
        Ok(Some(Interface { hardware: Ok(ETHERNET), .. })) => packet.link.is_some().into(),
        Ok(Some(Interface { hardware: Err(unknown), .. })) if packet.link.is_some() => {
            Decision::Undecided((*unknown).into())
        }
        _ => Decision::No,
    }
}

/// `struct xt_mac_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac {
    /// Source.
    pub address: [u8; 6],
    /// It must be another one.
    pub inverted: bool,
}

impl Mac {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        Some(Self { address: info.array(0)?, inverted: info.i32(8)? != 0 })
    }

    /// A packet without the header does not match, neither inverted.
    pub(super) fn decide(self, packet: &Packet) -> Decision {
        let equal = link(packet, LINK_SOURCE, Attribute::LinkAddresses)
            .map(|source: [u8; 6]| source == self.address);
        has_link(packet).and(Decision::from(equal).inverted_if(self.inverted))
    }
}

fn link<const N: usize>(packet: &Packet, at: usize, why: Attribute) -> Attr<[u8; N]> {
    packet.link.as_ref().and_then(|header: &Header| header.array(at)).ok_or(why.into())
}

/// Whether the source of IPv6 is made of the MAC address (no options).
pub(super) fn eui64(packet: &Packet) -> Decision {
    let kind = link(packet, LINK_TYPE, Attribute::EtherType);
    let is_v6 = kind.map(|kind| u16::from_be_bytes(kind) == IPV6);
    let source: Attr<[u8; 6]> = link(packet, LINK_SOURCE, Attribute::LinkAddresses);
    let equal = packet.address(Side::Source).and_then(|address| {
        let IpAddr::V6(address) = address else { return Ok(false) };
        let mut mac = source?;
        // The bit that says that an address is unique is inverted.
        mac[0] ^= 2;
        let identifier = [&mac[..3], &[0xff, 0xfe], &mac[3..]].concat();
        Ok(address.octets().ends_with(&identifier))
    });
    Decision::from(packet.link.is_some()).and(is_v6.into()).and(equal.into())
}

/// `struct xt_pkttype_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PktType {
    /// PACKET_ number.
    pub kind: i32,
    /// It must be another one.
    pub inverted: bool,
}

impl PktType {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        Some(Self { kind: info.i32(0)?, inverted: info.i32(4)? != 0 })
    }

    pub(super) fn decide(self, packet: &Packet) -> Decision {
        let kind = packet.packet_type.and_then(|kind| match kind {
            // Looped back by `lo`: the group or everybody it was sent to.
            PacketType::Loopback => packet.address(Side::Destination).map(|to| {
                if to.is_multicast() { PacketType::Multicast } else { PacketType::Broadcast }
            }),
            kind => Ok(kind),
        });
        let equal = kind.map(|kind| kind as i32 == self.kind);
        Decision::from(equal).inverted_if(self.inverted)
    }
}

/// Group and mask of an interface, and whether it must be in another group.
pub type Group = (u32, u32, bool);

/// `struct xt_devgroup_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevGroup {
    /// Of the interface of input.
    pub input: Option<Group>,
    /// Of the interface of output.
    pub output: Option<Group>,
}

impl DevGroup {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        let flags = info.u32(0)?;
        let group = |at, bit: u32| {
            let (group, mask) = (info.u32(at)?, info.u32(at + 4)?);
            Some((flags & bit != 0).then_some((group, mask, flags & bit << 1 != 0)))
        };
        Some(Self { input: group(4, 1)?, output: group(12, 4)? })
    }

    pub(super) fn decide(&self, packet: &Packet) -> Decision {
        let has = |wanted: Option<Group>, interface: &Attr<Option<Interface>>| {
            let Some((group, mask, inverted)) = wanted else { return Decision::Yes };
            let is = match interface {
                // The hooks where this match is allowed have the interface.
                Ok(None) => Err(Attribute::InterfaceDetails.into()),
                Ok(Some(interface)) => interface.group,
                Err(unknown) => Err(*unknown),
            };
            Decision::from(is.map(|is| (is ^ group) & mask == 0)).inverted_if(inverted)
        };
        has(self.input, &packet.input).and(has(self.output, &packet.output))
    }
}
