//! Parsers of option values.

use std::net::IpAddr;

use conntracker_common::{
    IPPROTO_DCCP, IPPROTO_GRE, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP,
    IPPROTO_UDP, IPPROTO_UDPLITE,
};
use ipnet::IpNet;

use super::{Names, Rejection};
use crate::conntrack::{EventGroups, ProtoState};
use crate::model::Status;
use crate::report::conntrack::{Format, LabelMap};

/// An address and a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masked {
    /// The address.
    pub address: IpAddr,
    /// Its mask, of the same family; `None` means all bits.
    pub mask: Option<IpAddr>,
}

/// The target of a translation: an address and possibly a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translated {
    /// Address.
    pub address: IpAddr,
    /// Port, or ICMP identifier.
    pub port: Option<u16>,
}

/// Value and mask of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkArgument {
    /// Value.
    pub value: u32,
    /// Bits that count.
    pub mask: u32,
}

/// Status bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusBits {
    /// Bits that are set.
    pub value: u32,
    /// Bits that count.
    pub mask: u32,
    /// Whether `SRC_NAT` or `DST_NAT` were given, for which there are other options.
    pub ignored: [bool; 2],
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The format.
    pub format: Format,
    /// Layer 3 protocols.
    pub extended: bool,
    /// Identifiers.
    pub id: bool,
    /// When entries began and ended.
    pub ktimestamp: bool,
    /// When events came.
    pub timestamp: bool,
    /// Labels.
    pub labels: bool,
}

impl Output {
    /// Adds what `-o` says.
    pub(super) fn add(&mut self, text: &str) -> Result<(), Rejection> {
        for word in text.split(',') {
            match name(word, &OUTPUTS)? {
                OutputWord::Xml => self.format = Format::Xml,
                OutputWord::Save => self.format = Format::Save,
                OutputWord::Extended => self.extended = true,
                OutputWord::Id => self.id = true,
                OutputWord::Ktimestamp => self.ktimestamp = true,
                OutputWord::Timestamp => self.timestamp = true,
                OutputWord::Labels => self.labels = true,
                // Events always print it.
                OutputWord::Userspace => {}
            }
        }
        Ok(())
    }
}

/// A word of `-o`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OutputWord {
    Xml,
    Extended,
    Timestamp,
    Id,
    Ktimestamp,
    Labels,
    Userspace,
    Save,
}

const OUTPUTS: [(&str, OutputWord); 8] = [
    ("xml", OutputWord::Xml),
    ("extended", OutputWord::Extended),
    ("timestamp", OutputWord::Timestamp),
    ("id", OutputWord::Id),
    ("ktimestamp", OutputWord::Ktimestamp),
    ("labels", OutputWord::Labels),
    ("userspace", OutputWord::Userspace),
    ("save", OutputWord::Save),
];

/// Whether `-o` has the word `save`, and whether it has other words.
pub(super) fn words(text: &str) -> Result<(bool, bool), Rejection> {
    let (mut save, mut other) = (false, false);
    for word in text.split(',') {
        match name(word, &OUTPUTS)? {
            OutputWord::Save => save = true,
            _ => other = true,
        }
    }
    Ok((save, other))
}

/// The meaning of a word of `-u`.
#[derive(Clone, Copy)]
enum StatusWord {
    Set(u32),
    NotSet(u32),
    Translation(usize),
}

const STATUSES: [(&str, StatusWord); 10] = [
    ("ASSURED", StatusWord::Set(Status::ASSURED.0)),
    ("SRC_NAT", StatusWord::Translation(0)),
    ("SEEN_REPLY", StatusWord::Set(Status::SEEN_REPLY.0)),
    ("DST_NAT", StatusWord::Translation(1)),
    ("UNSET", StatusWord::Set(0)),
    ("FIXED_TIMEOUT", StatusWord::Set(Status::FIXED_TIMEOUT.0)),
    ("EXPECTED", StatusWord::Set(Status::EXPECTED.0)),
    ("UNREPLIED", StatusWord::NotSet(Status::SEEN_REPLY.0)),
    ("OFFLOAD", StatusWord::Set(Status::OFFLOAD.0)),
    ("HW_OFFLOAD", StatusWord::Set(Status::HW_OFFLOAD.0)),
];

impl StatusBits {
    /// Adds what `-u` says.
    pub(super) fn add(&mut self, text: &str) -> Result<(), Rejection> {
        for word in text.split(',') {
            match name(word, &STATUSES)? {
                StatusWord::Set(bits) => {
                    self.value |= bits;
                    self.mask |= bits;
                }
                StatusWord::NotSet(bits) => {
                    self.value &= !bits;
                    self.mask |= bits;
                }
                StatusWord::Translation(which) => self.ignored[which] = true,
            }
        }
        Ok(())
    }
}

/// The kinds of events that `-e` says.
pub(super) fn events(text: &str) -> Result<EventGroups, Rejection> {
    const EVENTS: [(&str, EventGroups); 4] = [
        ("ALL", EventGroups::ENTRIES),
        ("NEW", EventGroups::NEW),
        ("UPDATES", EventGroups::UPDATE),
        ("DESTROY", EventGroups::DESTROY),
    ];
    let mut groups: Option<EventGroups> = None;
    for word in text.split(',') {
        let group = name(word, &EVENTS)?;
        groups = Some(groups.map_or(group, |groups| groups.and(group)));
    }
    groups.ok_or_else(|| bad_parameter(text))
}

/// The first of some names that begins with a word, in any case.
fn name<T: Copy>(word: &str, names: &[(&str, T)]) -> Result<T, Rejection> {
    let begins =
        |name: &str| name.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    names
        .iter()
        .find(|(name, _)| !word.is_empty() && begins(name))
        .map(|(_, value)| *value)
        .ok_or_else(|| bad_parameter(word))
}

fn bad_parameter(text: &str) -> Rejection {
    Rejection::usage(format!("Bad parameter `{text}'"))
}

/// The number of an option: hexadecimal after 0x and octal after 0, as in strtoul(3), but without trailing text and
/// in range.
pub(super) fn number<T: TryFrom<u64>>(text: &str, option: &str) -> Result<T, Rejection> {
    let parsed = if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        digits(hex, 16)
    } else if text.len() > 1 && text.starts_with('0') {
        digits(text, 8)
    } else {
        digits(text, 10)
    };
    in_range(parsed, text, option)
}

/// A decimal number of an option.
pub(super) fn decimal<T: TryFrom<u64>>(text: &str, option: &str) -> Result<T, Rejection> {
    in_range(digits(text, 10), text, option)
}

fn digits(text: &str, radix: u32) -> Option<u64> {
    // Unlike `from_str_radix` no sign is taken.
    if text.chars().all(|c| c.is_digit(radix)) {
        u64::from_str_radix(text, radix).ok()
    } else {
        None
    }
}

fn in_range<T: TryFrom<u64>>(
    number: Option<u64>,
    text: &str,
    option: &str,
) -> Result<T, Rejection> {
    let refused = || Rejection::usage(format!("Invalid number `{text}' for `--{option}'"));
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(refused)
}

/// As [`number`], for an option whose error names its letter in 1.4.9.
pub(super) fn lettered<T: TryFrom<u64>>(text: &str, letter: char) -> Result<T, Rejection> {
    number(text, "").map_err(|_| unexpected(text, letter))
}

/// A mark and its mask.
pub(super) fn mark(text: &str) -> Result<MarkArgument, Rejection> {
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    match (number(value, ""), number(mask, "")) {
        (Ok(value), Ok(mask)) => Ok(MarkArgument { value, mask }),
        _ => Err(unexpected(text, 'm')),
    }
}

fn unexpected(text: &str, letter: char) -> Rejection {
    Rejection::failure(format!("unexpected value '{text}' with -{letter} option"))
}

/// An address.
pub(super) fn address(text: &str) -> Result<IpAddr, Rejection> {
    text.parse().map_err(|_| Rejection::usage(format!("Invalid IP address `{text}'")))
}

/// An address with an optional prefix length.
pub(super) fn masked(text: &str) -> Result<Masked, Rejection> {
    let Some((host, length)) = text.split_once('/') else {
        return Ok(Masked { address: address(text)?, mask: None });
    };
    let address = address(host)?;
    let net = digits(length, 10)
        .and_then(|length| u8::try_from(length).ok())
        .filter(|_| !length.is_empty())
        .and_then(|length| IpNet::new(address, length).ok())
        .ok_or_else(|| Rejection::usage("Invalid netmask"))?;
    Ok(Masked { address, mask: Some(net.netmask()) })
}

/// An address that may have none.
pub(super) fn unmasked(text: &str, option: &str) -> Result<IpAddr, Rejection> {
    if text.contains('/') {
        return Err(Rejection::usage(format!("CIDR notation unavailable for `--{option}'")));
    }
    address(text)
}

/// `address`, `v4:port` or `[address]:port`.
pub(super) fn translated(text: &str, option: &str) -> Result<Translated, Rejection> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((host, port)) = rest.split_once(']') else {
            return Err(Rejection::usage("No closing ']' around IPv6 address"));
        };
        match port.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None => (text, None),
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (text, None),
        }
    };
    let port = match port {
        Some("") => return Err(Rejection::usage("No port specified after `:'")),
        Some(text) => Some(
            digits(text, 10)
                .and_then(|port| u16::try_from(port).ok())
                .ok_or_else(|| Rejection::usage(format!("Invalid port `{text}'")))?,
        ),
        None => None,
    };
    Ok(Translated { address: unmasked(host, option)?, port })
}

/// AF_INET or AF_INET6.
pub(super) fn family(text: &str) -> Result<u8, Rejection> {
    use conntracker_common::record::{FAMILY_V4, FAMILY_V6};
    match text {
        "ipv4" => Ok(FAMILY_V4),
        "ipv6" => Ok(FAMILY_V6),
        _ => Err(unsupported(text)),
    }
}

/// A protocol by name or number.
pub(super) fn protocol(text: &str, names: &Names) -> Result<u8, Rejection> {
    const NAMES: [(&str, u8); 8] = [
        ("tcp", IPPROTO_TCP),
        ("udp", IPPROTO_UDP),
        ("udplite", IPPROTO_UDPLITE),
        ("icmp", IPPROTO_ICMP),
        ("icmpv6", IPPROTO_ICMPV6),
        ("sctp", IPPROTO_SCTP),
        ("dccp", IPPROTO_DCCP),
        ("gre", IPPROTO_GRE),
    ];
    NAMES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text))
        .map(|(_, number)| *number)
        .or_else(|| names.protocol(text))
        .or_else(|| number(text, "protonum").ok())
        .ok_or_else(|| unsupported(text))
}

fn unsupported(text: &str) -> Rejection {
    Rejection::usage(format!("`{text}' unsupported protocol"))
}

/// Labels by name or number, as bits.
pub(super) fn labels(text: &str, names: &LabelMap) -> Result<u128, Rejection> {
    let mut labels = 0;
    for name in text.split(',') {
        let unknown = || Rejection::usage(format!("unknown label '{name}'"));
        labels |= 1 << names.number(name).ok_or_else(unknown)?;
    }
    Ok(labels)
}

/// The number of a state of a protocol's tracker.
pub(super) fn state(proto: u8, text: &str) -> Result<u8, Rejection> {
    let name = match proto {
        IPPROTO_SCTP => "SCTP",
        IPPROTO_DCCP => "DCCP",
        _ => "TCP",
    };
    // Number 9 of TCP has two names, the present one and an old one.
    let known = if name == "TCP" && text == "LISTEN" { "SYN_SENT2" } else { text };
    ProtoState::number_of(proto, known).ok_or_else(|| {
        // The same words, with another beginning.
        let unknown = if name == "DCCP" { "Unknown" } else { "unknown" };
        Rejection::usage(format!("{unknown} {name} state `{text}'"))
    })
}

/// The role of the original direction of DCCP.
pub(super) fn role(text: &str) -> Result<u8, Rejection> {
    match () {
        () if text.eq_ignore_ascii_case("client") => Ok(0),
        () if text.eq_ignore_ascii_case("server") => Ok(1),
        () => Err(Rejection::usage(format!("Unknown DCCP role `{text}'"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why<T: std::fmt::Debug>(result: Result<T, Rejection>) -> String {
        result.unwrap_err().message
    }

    #[test]
    fn numbers_are_read_in_full() {
        assert_eq!(number::<u32>("0x11", "mark").unwrap(), 17);
        assert_eq!(number::<u32>("021", "mark").unwrap(), 17);
        assert_eq!(number::<u32>("0", "mark").unwrap(), 0);
        assert_eq!(decimal::<u16>("080", "sport").unwrap(), 80);
        for bad in ["", "1:100", "-1", "+1", "0x", "65536", "1 ", "a"] {
            let got = why(decimal::<u16>(bad, "dport"));
            assert_eq!(got, format!("Invalid number `{bad}' for `--dport'"));
        }
        assert_eq!(mark("0x1/0xf").unwrap(), MarkArgument { value: 1, mask: 15 });
        assert_eq!(mark("7").unwrap(), MarkArgument { value: 7, mask: u32::MAX });
        for bad in ["", "/", "1/", "1/x", "x", "-1", "0x100000000", "1/0x100000000"] {
            assert_eq!(why(mark(bad)), format!("unexpected value '{bad}' with -m option"));
        }
        assert_eq!(lettered::<u16>("0xffff", 'w').unwrap(), u16::MAX);
        assert_eq!(why(lettered::<u16>("65536", 'w')), "unexpected value '65536' with -w option");
    }

    #[test]
    fn addresses_have_masks_or_ports_where_they_may() {
        let net = masked("192.0.2.7/24").unwrap();
        assert_eq!(net.address.to_string(), "192.0.2.7");
        assert_eq!(net.mask.unwrap().to_string(), "255.255.255.0");
        assert_eq!(masked("2001:db8::/0").unwrap().mask.unwrap().to_string(), "::");
        for bad in ["192.0.2.1/33", "192.0.2.1/", "192.0.2.1/a", "::1/129", "::1/+1"] {
            assert_eq!(why(masked(bad)), "Invalid netmask");
        }
        assert_eq!(why(masked("192.0.2")), "Invalid IP address `192.0.2'");
        assert_eq!(
            why(unmasked("192.0.2.0/24", "reply-src")),
            "CIDR notation unavailable for `--reply-src'"
        );
        let to = |text| translated(text, "src-nat");
        let ends = |text| to(text).map(|t| (t.address.to_string(), t.port)).unwrap();
        assert_eq!(ends("192.0.2.1:77"), ("192.0.2.1".to_owned(), Some(77)));
        assert_eq!(ends("[2001:db8::9]:7"), ("2001:db8::9".to_owned(), Some(7)));
        assert_eq!(ends("2001:db8::9:7"), ("2001:db8::9:7".to_owned(), None));
        assert_eq!(why(to("192.0.2.1:")), "No port specified after `:'");
        assert_eq!(why(to("192.0.2.1:1-9")), "Invalid port `1-9'");
        assert_eq!(why(to("[2001:db8::9]")), "Invalid IP address `[2001:db8::9]'");
        assert_eq!(why(to("[2001:db8::9")), "No closing ']' around IPv6 address");
    }

    #[test]
    fn words_may_be_shortened_and_in_any_case() {
        let mut output = Output::default();
        output.add("XML,ext,ktime").unwrap();
        assert!(output.format == Format::Xml && output.extended && output.ktimestamp);
        assert_eq!(why(Output::default().add("id,")), "Bad parameter `'");
        assert_eq!(words("save").unwrap(), (true, false));
        assert_eq!(words("save,id").unwrap(), (true, true));
        let status = |text| {
            let mut status = StatusBits::default();
            status.add(text).map(|()| (status.value, status.mask, status.ignored))
        };
        assert_eq!(status("ass,SEEN_REPLY").unwrap(), (6, 6, [false; 2]));
        assert_eq!(status("UNREPLIED,FIXED_TIMEOUT").unwrap(), (0x400, 0x402, [false; 2]));
        assert_eq!(status("U").unwrap(), (0, 0, [false; 2]));
        assert_eq!(status("S,D").unwrap(), (0, 0, [true; 2]));
        assert_eq!(why(status("CONFIRMED")), "Bad parameter `CONFIRMED'");
        assert_eq!(events("new,UPDATE").unwrap(), EventGroups::NEW.and(EventGroups::UPDATE));
        assert_eq!(why(events("NEW,FOO")), "Bad parameter `FOO'");
    }

    #[test]
    fn states_are_those_of_their_protocol() {
        assert_eq!(state(6, "ESTABLISHED").unwrap(), 3);
        assert_eq!((state(6, "LISTEN").unwrap(), state(6, "SYN_SENT2").unwrap()), (9, 9));
        assert_eq!(state(132, "ESTABLISHED").unwrap(), 4);
        assert_eq!(state(33, "OPEN").unwrap(), 4);
        assert_eq!(why(state(6, "established")), "unknown TCP state `established'");
        assert_eq!(why(state(132, "LISTEN")), "unknown SCTP state `LISTEN'");
        assert_eq!(why(state(33, "FOO")), "Unknown DCCP state `FOO'");
        assert_eq!((role("SERVER").unwrap(), role("client").unwrap()), (1, 0));
        assert_eq!(why(role("foo")), "Unknown DCCP role `foo'");
    }
}
