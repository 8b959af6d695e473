//! Matches by name and revision: decoded once, when the ruleset is compiled.

use super::{
    MatchResult,
    address::{AddrType, IpRange},
    conntrack::{Connlabel, Connmark, Conntrack, Helper, State},
    meta::{self, DevGroup, Mac, Mark, Owner, PktType},
    multiport::Multiport,
    network::{Ecn, Length, Tos, Ttl},
    tcp::{Tcp, TcpMss, Udp},
    transport::{Ah, Dccp, Esp, Icmp, IpComp, Mobility, Sctp, extension_header},
    u32_match::U32,
};
use crate::firewall::{
    evaluate::{
        context::Context,
        decision::Decision,
        packet::Packet,
        unknown::{Attribute, Unknown},
    },
    fields::Fields,
};

/// A match.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is called as in iptables-extensions(8)")]
pub enum Match {
    AddrType(AddrType),
    Ah(Ah),
    Comment,
    Connlabel(Connlabel),
    Connmark(Connmark),
    Conntrack(Conntrack),
    Dccp(Dccp),
    DevGroup(DevGroup),
    Ecn(Ecn),
    Esp(Esp),
    /// It compares an extension header of IPv6, and matches no packet without one.
    ExtensionHeader,
    Eui64,
    Helper(Helper),
    Icmp(Icmp),
    IpComp(IpComp),
    IpRange(IpRange),
    Length(Length),
    Mac(Mac),
    Mark(Mark),
    Mobility(Mobility),
    Multiport(Multiport),
    Owner(Owner),
    PktType(PktType),
    Sctp(Sctp),
    State(State),
    Statistic(Statistic),
    Tcp(Tcp),
    TcpMss(TcpMss),
    Tos(Tos),
    Ttl(Ttl),
    U32(U32),
    Udp(Udp),
    /// It depends on what no packet has, or it is not evaluated.
    Unknown(Unknown),
}

/// What a match depends on that is never known, whatever its options are.
const UNDECIDED: [(&str, Unknown); 28] = [
    ("bpf", Unknown::Extension),
    ("cgroup", Unknown::Attribute(Attribute::Socket)),
    ("cluster", Unknown::Extension),
    ("connbytes", Unknown::LaterPackets),
    ("connlimit", Unknown::ConnLimit),
    ("cpu", Unknown::Attribute(Attribute::Meta)),
    ("hashlimit", Unknown::Limit),
    ("ipv4options", Unknown::Attribute(Attribute::IpOptions)),
    ("ipv6header", Unknown::Attribute(Attribute::IpOptions)),
    ("ipvs", Unknown::Attribute(Attribute::Meta)),
    ("l2tp", Unknown::Attribute(Attribute::Payload)),
    ("limit", Unknown::Limit),
    ("nfacct", Unknown::Quota),
    ("osf", Unknown::Attribute(Attribute::TcpOptions)),
    ("physdev", Unknown::Attribute(Attribute::InterfaceDetails)),
    ("policy", Unknown::Attribute(Attribute::Meta)),
    ("quota", Unknown::Quota),
    ("rateest", Unknown::Limit),
    ("realm", Unknown::Attribute(Attribute::Meta)),
    ("recent", Unknown::DynamicSet),
    ("rpfilter", Unknown::Attribute(Attribute::Routes)),
    ("set", Unknown::DynamicSet),
    ("socket", Unknown::Attribute(Attribute::Socket)),
    ("string", Unknown::Attribute(Attribute::Payload)),
    ("time", Unknown::Time),
    ("geoip", Unknown::Extension),
    ("ndpi", Unknown::Attribute(Attribute::Payload)),
    ("tls", Unknown::Attribute(Attribute::Payload)),
];

impl Match {
    /// Decodes the structure of a match. What cannot be decoded is [`Match::Unknown`].
    #[must_use]
    pub fn decode(name: &str, revision: u32, info: &[u8]) -> Self {
        let info = Fields(info);
        let found = match (name, revision) {
            ("addrtype", _) => AddrType::decode(revision, info).map(Self::AddrType),
            ("ah", 0) => Ah::decode(info).map(Self::Ah),
            ("comment", 0) => Some(Self::Comment),
            ("connlabel", 0) => Connlabel::decode(info).map(Self::Connlabel),
            ("connmark", 1) => Connmark::decode(info).map(Self::Connmark),
            ("conntrack", _) => Conntrack::decode(revision, info).map(Self::Conntrack),
            ("dccp", 0) => Dccp::decode(info).map(Self::Dccp),
            ("devgroup", 0) => DevGroup::decode(info).map(Self::DevGroup),
            ("dscp", 0) => Tos::decode_dscp(info).map(Self::Tos),
            ("ecn", 0) => Ecn::decode(info).map(Self::Ecn),
            ("esp", 0) => Esp::decode(info).map(Self::Esp),
            ("dst" | "frag" | "hbh" | "rt" | "srh", _) => Some(Self::ExtensionHeader),
            ("eui64", 0) => Some(Self::Eui64),
            ("helper", 0) => Helper::decode(info).map(Self::Helper),
            ("hl" | "ttl", 0) => Ttl::decode(info).map(Self::Ttl),
            ("icmp", 0) => Icmp::decode(info, false).map(Self::Icmp),
            ("icmp6", 0) => Icmp::decode(info, true).map(Self::Icmp),
            ("ipcomp", 0) => IpComp::decode(info).map(Self::IpComp),
            ("iprange", 1) => IpRange::decode(info).map(Self::IpRange),
            ("length", 0) => Length::decode(info).map(Self::Length),
            ("mac", 0) => Mac::decode(info).map(Self::Mac),
            ("mark", 1) => Mark::decode(info).map(Self::Mark),
            ("mh", 0) => Mobility::decode(info).map(Self::Mobility),
            ("multiport", 1) => Multiport::decode(info).map(Self::Multiport),
            ("owner", 1) => Owner::decode(info).map(Self::Owner),
            ("pkttype", 0) => PktType::decode(info).map(Self::PktType),
            ("sctp", 0) => Sctp::decode(info).map(Self::Sctp),
            ("state", 0) => State::decode(info).map(Self::State),
            ("statistic", 0) => Statistic::decode(info).map(Self::Statistic),
            ("tcp", 0) => Tcp::decode(info).map(Self::Tcp),
            ("tcpmss", 0) => TcpMss::decode(info).map(Self::TcpMss),
            ("tos", 1) => Tos::decode_tos(info).map(Self::Tos),
            ("u32", 0) => U32::decode(info).map(Self::U32),
            ("udp" | "udplite", 0) => Udp::decode(info).map(Self::Udp),
            _ => None,
        };
        found.unwrap_or_else(|| {
            let known = UNDECIDED.iter().find(|(of, _)| *of == name);
            Self::Unknown(known.map_or(Unknown::Extension, |(_, why)| *why))
        })
    }

    /// What it says of a packet.
    #[must_use]
    pub fn result(&self, packet: &Packet, context: &Context<'_>) -> MatchResult {
        MatchResult::Matches(match self {
            Self::AddrType(of) => of.decide(packet, context),
            Self::Ah(of) => of.decide(packet),
            Self::Comment => Decision::Yes,
            Self::Connlabel(of) => of.decide(packet),
            Self::Connmark(of) => of.decide(packet),
            Self::Conntrack(of) => of.decide(packet),
            Self::Dccp(of) => return of.result(packet),
            Self::DevGroup(of) => of.decide(packet),
            Self::Ecn(of) => of.decide(packet),
            Self::Esp(of) => of.decide(packet),
            Self::ExtensionHeader => extension_header(packet),
            Self::Eui64 => meta::eui64(packet),
            Self::Helper(of) => of.decide(packet),
            Self::Icmp(of) => of.decide(packet),
            Self::IpComp(of) => of.decide(packet),
            Self::IpRange(of) => of.decide(packet),
            Self::Length(of) => of.decide(packet),
            Self::Mac(of) => of.decide(packet),
            Self::Mark(of) => of.decide(packet),
            Self::Mobility(of) => of.decide(packet),
            Self::Multiport(of) => of.decide(packet),
            Self::Owner(of) => of.decide(packet),
            Self::PktType(of) => of.decide(packet),
            Self::Sctp(of) => return of.result(packet),
            Self::State(of) => of.decide(packet),
            Self::Statistic(of) => of.decide(),
            Self::Tcp(of) => return of.result(packet),
            Self::TcpMss(of) => return of.result(packet),
            Self::Tos(of) => of.decide(packet),
            Self::Ttl(of) => of.decide(packet),
            Self::U32(of) => of.decide(packet),
            Self::Udp(of) => of.decide(packet),
            Self::Unknown(unknown) => Decision::Undecided((*unknown).into()),
        })
    }
}

/// `struct xt_statistic_info`: every so many packets, or some of them at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// A share of the packets, of 2^31, and whether it is the others that match.
    Random(u32, bool),
    /// One packet of so many, and whether it is the others.
    Nth(u32, bool),
}

impl Statistic {
    fn decode(info: Fields<'_>) -> Option<Self> {
        let inverted = info.u16(2)? & 1 != 0;
        let number = info.u32(4)?;
        match info.u16(0)? {
            0 => Some(Self::Random(number, inverted)),
            // The kernel counts from 0.
            1 => Some(Self::Nth(number.saturating_add(1), inverted)),
            _ => None,
        }
    }

    /// All packets or none are certain.
    fn decide(self) -> Decision {
        match self {
            Self::Random(0, inverted) => inverted.into(),
            Self::Random(share, inverted) if share >= 1 << 31 => (!inverted).into(),
            Self::Nth(1, inverted) => (!inverted).into(),
            _ => Decision::Undecided(Unknown::Numgen.into()),
        }
    }
}
