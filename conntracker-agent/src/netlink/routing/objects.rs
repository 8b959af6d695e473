//! Interfaces, addresses, routes and rules of routing, decoded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::wire::{Attributes, DecodeError, Message, Messages};

/// Messages of a dump.
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWRULE: u16 = 32;

const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_GROUP: u16 = 27;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
/// IFA_F_SECONDARY, also IFA_F_TEMPORARY of IPv6.
const SECONDARY: u32 = 1;
/// IFA_F_TENTATIVE and IFA_F_DEPRECATED.
const NOT_PREFERRED: u32 = 0x40 | 0x20;

const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
/// RTM_F_CLONED: an exception that was learned, which no table has.
const CLONED: u32 = 0x200;
/// RTNH_F_DEAD: the interface is down.
const DEAD: u32 = 1;
/// Bytes of `struct rtnexthop`.
const NEXT_HOP: usize = 8;

const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_GOTO: u16 = 4;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_IFGROUP: u16 = 13;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_OIFNAME: u16 = 17;
const FRA_L3MDEV: u16 = 19;
const FRA_PROTOCOL: u16 = 21;
/// Number and padding, which say nothing of packets.
const FRA_PAD: u16 = 18;
/// FR_ACT_TO_TBL.
pub(crate) const TO_TABLE: u8 = 1;
/// FIB_RULE_INVERT.
const INVERT: u32 = 2;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Type of hardware (ARPHRD_).
    pub hardware: u16,
    /// Group.
    pub group: u32,
    /// It belongs to another one (bridge, bond, VRF).
    pub has_master: bool,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of the interface.
    pub link: u32,
    /// The host's address.
    pub local: IpAddr,
    /// That of the network; of a point-to-point link, the peer's.
    pub network: Prefix,
    /// RT_SCOPE_.
    pub scope: u8,
    /// Another address of the same network comes first (IPv4), or it is temporary (IPv6).
    pub secondary: bool,
    /// It may be chosen as a source (IPv6).
    pub preferred: bool,
}

/// Addresses with a common beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The address; bits behind the prefix may be set.
    pub address: IpAddr,
    /// Bits.
    pub length: u8,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// Number of the table.
    pub table: u32,
    /// Where it leads.
    pub to: Prefix,
    /// Only for packets of these sources (IPv6).
    pub from: Option<Prefix>,
    /// RTN_.
    pub kind: u8,
    /// Type of service that packets must have, 0 for any.
    pub tos: u8,
    /// Metric: the lowest one is taken.
    pub metric: u32,
    /// Index of the interface; `None` if there is none, or there are several.
    pub link: Option<u32>,
    /// It leads through several interfaces.
    pub several: bool,
    /// Address of the next router.
    pub gateway: Option<IpAddr>,
    /// Source address for packets of this host.
    pub source: Option<IpAddr>,
}

/// A rule of routing (ip-rule(8)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutingRule {
    /// IPv6.
    pub v6: bool,
    /// Rules are looked at in the order of this number.
    pub priority: u32,
    /// FR_ACT_: 1 looks a table up, 2 goes to another rule, 3 does nothing, 6 to 8 refuse.
    pub action: u8,
    /// The table, or the priority to go to.
    pub table: u32,
    /// Destination.
    pub to: Option<Prefix>,
    /// Source.
    pub from: Option<Prefix>,
    /// Interface of input.
    pub iif: Option<String>,
    /// Interface of output.
    pub oif: Option<String>,
    /// Mark and mask.
    pub mark: Option<(u32, u32)>,
    /// Routes with prefixes up to this length do not count.
    pub suppress_length: Option<u32>,
    /// Type of service, 0 for any.
    pub tos: u8,
    /// It is for packets that do not match.
    pub invert: bool,
    /// It compares something else: ports, users, tunnels, VRFs.
    pub compares_more: bool,
}

impl RoutingRule {
    /// A rule that looks a table up for all packets.
    #[must_use]
    pub fn lookup(v6: bool, priority: u32, table: u32) -> Self {
        Self {
            v6,
            priority,
            action: TO_TABLE,
            table,
            to: None,
            from: None,
            iif: None,
            oif: None,
            mark: None,
            suppress_length: None,
            tos: 0,
            invert: false,
            compares_more: false,
        }
    }
}

/// Everything that a dump has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutingObjects {
    /// Interfaces.
    pub links: Vec<Link>,
    /// Addresses, in the kernel's order.
    pub addresses: Vec<Address>,
    /// Routes, in the kernel's order.
    pub routes: Vec<RouteEntry>,
    /// Rules, in the kernel's order.
    pub rules: Vec<RoutingRule>,
}

impl RoutingObjects {
    /// Decodes the messages of a dump.
    ///
    /// # Errors
    /// A message makes no sense.
    pub fn decode(messages: &[u8]) -> Result<Self, DecodeError> {
        let mut all = Self::default();
        for message in Messages::new(messages) {
            let message = message?;
            match message.kind {
                RTM_NEWLINK => all.links.extend(link(&message)?),
                RTM_NEWADDR => all.addresses.extend(address(&message)?),
                RTM_NEWROUTE => all.routes.extend(route(&message)?),
                RTM_NEWRULE => all.rules.extend(rule(&message)?),
                _ => {}
            }
        }
        Ok(all)
    }
}

/// The fixed header of a message, and its attributes.
fn split<'a, const N: usize>(
    message: &Message<'a>,
    what: &'static str,
) -> Result<(&'a [u8; N], Attributes<'a>), DecodeError> {
    let have = message.payload.len();
    let (head, attributes) = message
        .payload
        .split_first_chunk::<N>()
        .ok_or(DecodeError::TruncatedHeader { what, have })?;
    Ok((head, Attributes::new(attributes)))
}

fn word(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}

/// An address of 4 or 16 bytes.
fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(*bytes.first_chunk()?).into()),
        16 => Some(Ipv6Addr::from(*bytes.first_chunk()?).into()),
        _ => None,
    }
}

/// The prefix of all addresses of a family; `None` if it is neither IPv4 nor IPv6.
fn any(family: u8) -> Option<Prefix> {
    let address = match i32::from(family) {
        libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    Some(Prefix { address, length: 0 })
}

fn link(message: &Message<'_>) -> Result<Option<Link>, DecodeError> {
    let (&[_, _, h0, h1, i0, i1, i2, i3, ..], attributes) = split::<16>(message, "ifinfomsg")?;
    let (mut name, mut group, mut has_master) = (None, 0, false);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_IFNAME => name = Some(String::from_utf8_lossy(attribute.text()).into_owned()),
            IFLA_GROUP => group = word(attribute.array("IFLA_GROUP")?),
            IFLA_MASTER => has_master = true,
            _ => {}
        }
    }
    let (index, hardware) = (word([i0, i1, i2, i3]), u16::from_ne_bytes([h0, h1]));
    Ok(name.map(|name| Link { index, name, hardware, group, has_master }))
}

fn address(message: &Message<'_>) -> Result<Option<Address>, DecodeError> {
    let (&[_, length, flags, scope, i0, i1, i2, i3], attributes) = split(message, "ifaddrmsg")?;
    let (mut local, mut peer, mut flags) = (None, None, u32::from(flags));
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            IFA_LOCAL => local = ip(attribute.payload),
            IFA_ADDRESS => peer = ip(attribute.payload),
            IFA_FLAGS => flags = word(attribute.array("IFA_FLAGS")?),
            _ => {}
        }
    }
    let Some(local) = local.or(peer) else { return Ok(None) };
    Ok(Some(Address {
        link: word([i0, i1, i2, i3]),
        local,
        network: Prefix { address: peer.unwrap_or(local), length },
        scope,
        secondary: flags & SECONDARY != 0,
        preferred: flags & NOT_PREFERRED == 0,
    }))
}

fn route(message: &Message<'_>) -> Result<Option<RouteEntry>, DecodeError> {
    let (&[family, to_len, from_len, tos, table, _, _, kind, f0, f1, f2, f3], attributes) =
        split(message, "rtmsg")?;
    let flags = word([f0, f1, f2, f3]);
    let Some(to) = any(family).filter(|_| flags & (CLONED | DEAD) == 0) else { return Ok(None) };
    let mut entry = RouteEntry {
        table: table.into(),
        to: Prefix { length: to_len, ..to },
        from: None,
        kind,
        tos,
        metric: 0,
        link: None,
        several: false,
        gateway: None,
        source: None,
    };
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            RTA_DST => {
                entry.to.address = ip(attribute.payload).unwrap_or(entry.to.address);
            }
            RTA_SRC => {
                let prefix = |address| Prefix { address, length: from_len };
                entry.from = ip(attribute.payload).map(prefix);
            }
            RTA_OIF => entry.link = Some(word(attribute.array("RTA_OIF")?)),
            RTA_GATEWAY => entry.gateway = ip(attribute.payload),
            RTA_PRIORITY => entry.metric = word(attribute.array("RTA_PRIORITY")?),
            RTA_PREFSRC => entry.source = ip(attribute.payload),
            RTA_TABLE => entry.table = word(attribute.array("RTA_TABLE")?),
            RTA_MULTIPATH => {
                let links = next_hops(attribute.payload);
                entry.link = links.first().copied();
                entry.several = links.iter().any(|link| Some(*link) != entry.link);
            }
            _ => {}
        }
    }
    if entry.several {
        entry.link = None;
    }
    Ok(Some(entry))
}

/// The interfaces of `struct rtnexthop`s that are not dead.
fn next_hops(mut bytes: &[u8]) -> Vec<u32> {
    let mut links = Vec::new();
    while let Some(&[l0, l1, flags, _, i0, i1, i2, i3]) = bytes.first_chunk::<NEXT_HOP>() {
        if u32::from(flags) & DEAD == 0 {
            links.push(word([i0, i1, i2, i3]));
        }
        let length = usize::from(u16::from_ne_bytes([l0, l1])).max(NEXT_HOP);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    links
}

fn rule(message: &Message<'_>) -> Result<Option<RoutingRule>, DecodeError> {
    let (&[family, to_len, from_len, tos, table, _, _, action, f0, f1, f2, f3], attributes) =
        split(message, "fib_rule_hdr")?;
    if any(family).is_none() {
        return Ok(None);
    }
    let mut rule = RoutingRule {
        action,
        tos,
        invert: word([f0, f1, f2, f3]) & INVERT != 0,
        ..RoutingRule::lookup(i32::from(family) == libc::AF_INET6, 0, table.into())
    };
    let (mut mark, mut mask) = (None, u32::MAX);
    for attribute in attributes {
        let attribute = attribute?;
        let text = || String::from_utf8_lossy(attribute.text()).into_owned();
        let prefix = |length| ip(attribute.payload).map(|address| Prefix { address, length });
        match attribute.kind {
            FRA_DST => rule.to = prefix(to_len),
            FRA_SRC => rule.from = prefix(from_len),
            FRA_IIFNAME => rule.iif = Some(text()),
            FRA_OIFNAME => rule.oif = Some(text()),
            FRA_PRIORITY => rule.priority = word(attribute.array("FRA_PRIORITY")?),
            FRA_TABLE | FRA_GOTO => rule.table = word(attribute.array("FRA_TABLE")?),
            FRA_FWMARK => mark = Some(word(attribute.array("FRA_FWMARK")?)),
            FRA_FWMASK => mask = word(attribute.array("FRA_FWMASK")?),
            FRA_SUPPRESS_PREFIXLEN => {
                let length = word(attribute.array("FRA_SUPPRESS_PREFIXLEN")?);
                // -1: none.
                rule.suppress_length = Some(length).filter(|length| *length != u32::MAX);
            }
            FRA_SUPPRESS_IFGROUP => {
                rule.compares_more |= word(attribute.array("FRA_SUPPRESS_IFGROUP")?) != u32::MAX;
            }
            FRA_L3MDEV => rule.compares_more |= attribute.u8("FRA_L3MDEV")? != 0,
            FRA_PROTOCOL | FRA_PAD => {}
            _ => rule.compares_more = true,
        }
    }
    // Without a mark the mask is 0, and any mark matches.
    rule.mark = mark.or((mask != u32::MAX && mask != 0).then_some(0)).map(|mark| (mark, mask));
    Ok(Some(rule))
}
