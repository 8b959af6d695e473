//! A line of expectations: `allow tcp from 10.77.1.0/24 to 10.77.2.2 port 443 in lan out dmz`.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    path::Path,
};

use anyhow::{Context, Result, bail};
use conntracker_common::has_ports;
use ipnet::IpNet;

use crate::model::{harmless::OneLine, path::CtState, protocol};

/// The largest file of expectations.
const BYTES: u64 = 16 << 20;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Its number in the file, from 1.
    pub number: usize,
    /// It, without blanks around it.
    pub text: String,
    /// Packets must pass; otherwise they must not.
    pub allow: bool,
    pub proto: u8,
    pub source: End,
    pub destination: End,
    pub input: Option<String>,
    pub output: Option<String>,
    pub state: CtState,
    pub mark: u32,
}

/// One end of packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// Addresses; `None`: all.
    pub network: Option<IpNet>,
    /// Ports; empty: all.
    pub ports: Vec<RangeInclusive<u16>>,
}

/// Reads a file of lines. Empty ones, and what follows a `#`, are left out.
pub(super) fn read(file: &Path) -> Result<Vec<Line>> {
    let name = OneLine(&file.display().to_string()).to_string();
    let cannot = || format!("cannot read {name}");
    if fs::metadata(file).with_context(cannot)?.len() > BYTES {
        bail!("{name} has more than {} MiB", BYTES >> 20);
    }
    let text = fs::read_to_string(file).with_context(cannot)?;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            lines.push(parse(number, line).map_err(|why| {
                anyhow::anyhow!("{name}, line {number}: {why}: `{}`", OneLine(line))
            })?);
        }
    }
    Ok(lines)
}

fn parse(number: usize, text: &str) -> Result<Line, String> {
    let mut words = text.split_whitespace();
    let allow = match words.next() {
        Some("allow") => true,
        Some("deny") => false,
        _ => return Err("a line begins with `allow` or `deny`".to_owned()),
    };
    let proto = words.next().ok_or("the protocol is missing")?;
    let proto = protocol::number(proto).ok_or_else(|| format!("`{proto}` is no protocol"))?;
    let mut line = Line {
        number,
        text: text.to_owned(),
        allow,
        proto,
        source: End::default(),
        destination: End::default(),
        input: None,
        output: None,
        state: CtState::New,
        mark: 0,
    };
    // As in filters of firewalls, a port without an end is that of the destination.
    let mut of_source = false;
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("nothing follows `{word}`"))?;
        match word {
            "from" => line.source.network = network(value)?,
            "to" => line.destination.network = network(value)?,
            "port" => {
                let end = if of_source { &mut line.source } else { &mut line.destination };
                if !has_ports(proto) {
                    return Err("the protocol has no ports".to_owned());
                }
                end.ports = ports(value)?;
            }
            "in" => line.input = Some(value.to_owned()),
            "out" => line.output = Some(value.to_owned()),
            "state" => line.state = state(value)?,
            "mark" => line.mark = mark(value)?,
            _ => {
                return Err(format!("`{word}` is none of from, to, port, in, out, state and mark"));
            }
        }
        of_source = word == "from";
    }
    if let [Some(one), Some(other)] = [line.source.network, line.destination.network]
        && one.addr().is_ipv4() != other.addr().is_ipv4()
    {
        return Err("one address is of IPv4 and one of IPv6".to_owned());
    }
    Ok(line)
}

fn network(text: &str) -> Result<Option<IpNet>, String> {
    if text == "any" {
        return Ok(None);
    }
    let network = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>());
    let network =
        network.map_err(|_| format!("`{text}` is no address, no network and not `any`"))?;
    Ok(Some(network.trunc()))
}

fn ports(text: &str) -> Result<Vec<RangeInclusive<u16>>, String> {
    let range = |text: &str| -> Option<RangeInclusive<u16>> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some(first..=last)
    };
    let ranges = text.split(',').map(range).collect::<Option<_>>();
    ranges.ok_or_else(|| format!("`{text}` is no port, range (80-90) or list (80,443)"))
}

fn state(text: &str) -> Result<CtState, String> {
    Ok(match text {
        "new" => CtState::New,
        "established" => CtState::Established,
        "related" => CtState::Related,
        "invalid" => CtState::Invalid,
        "untracked" => CtState::Untracked,
        _ => {
            return Err(format!(
                "`{text}` is none of new, established, related, invalid and untracked"
            ));
        }
    })
}

fn mark(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("`{text}` is no mark"))
}

impl Line {
    /// The families that the line is about: whether of IPv6.
    pub fn families(&self) -> Vec<bool> {
        let given = self.source.network.or(self.destination.network);
        match given {
            Some(network) => vec![network.addr().is_ipv6()],
            None => vec![false, true],
        }
    }
}

impl End {
    /// Its addresses in a family.
    pub fn network(&self, v6: bool) -> IpNet {
        let all: IpAddr =
            if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        self.network.unwrap_or_else(|| IpNet::new_assert(all, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_it_says() {
        let line = parse(7, "allow tcp from 10.77.1.5/24 port 1000-2000 to any port 80,443 in lan");
        let line = line.unwrap();
        assert!(line.allow && line.number == 7 && line.proto == 6);
        assert_eq!(line.source.network, Some("10.77.1.0/24".parse().unwrap()));
        assert_eq!(line.source.ports, [1000..=2000]);
        assert_eq!((line.destination.network, line.destination.ports.len()), (None, 2));
        assert_eq!((line.input.as_deref(), line.output.as_deref()), (Some("lan"), None));
        assert_eq!(line.families(), [false]);
        let line = parse(1, "deny udp port 53 state established mark 0x10").unwrap();
        assert_eq!((line.destination.ports.as_slice(), line.mark), ([53..=53].as_slice(), 16));
        assert_eq!((line.families(), line.state), (vec![false, true], CtState::Established));
    }

    #[test]
    fn a_line_that_makes_no_sense_is_refused() {
        for wrong in [
            "permit tcp",
            "allow",
            "allow nothing",
            "allow tcp from",
            "allow tcp from 10.1",
            "allow tcp to 10.0.0.1 port http",
            "allow tcp to 10.0.0.1 port 9-1",
            "allow icmp to 10.0.0.1 port 9",
            "allow tcp from 10.0.0.1 to fd00::1",
            "allow tcp state fine",
            "allow tcp mark x",
            "allow tcp via eth0",
        ] {
            assert!(parse(1, wrong).is_err(), "{wrong}");
        }
    }
}
