//! What conntrack(8) says: the witness for what the program under test reports.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::PATIENCE;
use super::flow::{Direction, Flow, L4, Tuple, merge};
use crate::lab::{Guarded, Host};

/// The lines of `conntrack -L -o extended` of both families, with further options.
pub fn lines(host: &Host, options: &[&str]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for family in ["ipv4", "ipv6"] {
        let args = ["conntrack", "-L", "-o", "extended", "-f", family];
        let listed = host.run(args.iter().chain(options))?;
        lines.extend(listed.lines().map(str::to_owned));
    }
    Ok(lines)
}

/// All entries of the table.
pub fn list(host: &Host) -> Result<Vec<Flow>> {
    lines(host, &[])?.iter().map(|line| parse(line)).collect()
}

/// A running `conntrack -E`.
#[derive(Debug)]
pub struct Events {
    process: Guarded,
}

impl Events {
    /// Starts it, and waits until it listens.
    pub fn start(host: &Host) -> Result<Self> {
        let before = listeners(host)?;
        let process = host.spawn(["conntrack", "-E", "-o", "extended", "-b", "8388608"])?;
        let start = Instant::now();
        while listeners(host)? == before {
            if start.elapsed() > PATIENCE {
                bail!("conntrack -E does not listen: {}", process.stderr());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { process })
    }

    /// Waits until it has told of something. Events come in the order in which they happen, so that
    /// it has then told of all that was before.
    pub fn wait_for(&mut self, text: &str) -> Result<()> {
        self.process.wait_for(text, PATIENCE)
    }

    /// Ends it and returns the flows that it told of.
    pub fn finish(mut self) -> Result<Vec<Flow>> {
        self.process.stop(Signal::SIGINT, PATIENCE)?;
        let told: Result<Vec<Flow>> = self.process.stdout().lines().map(parse).collect();
        Ok(merge(told?))
    }
}

/// Number of netfilter netlink sockets in the namespace that are in a multicast group.
pub fn listeners(host: &Host) -> Result<usize> {
    const NETLINK_NETFILTER: &str = "12";
    let table = host.enter(|| Ok(fs::read_to_string("/proc/thread-self/net/netlink")?))?;
    // sk Eth Pid Groups …
    let listens = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [_, NETLINK_NETFILTER, _, groups, ..] if groups != "00000000")
    };
    Ok(table.lines().filter(listens).count())
}

/// One line of `conntrack -L -o extended` or `conntrack -E -o extended`.
pub fn parse(line: &str) -> Result<Flow> {
    parse_words(line).with_context(|| format!("conntrack said: {line}"))
}

fn parse_words(line: &str) -> Result<Flow> {
    let mut words = line.split_whitespace().peekable();
    let _tag = words.next_if(|word| matches!(*word, "[NEW]" | "[UPDATE]" | "[DESTROY]"));
    // ipv4 2 udp 17 …
    let proto: u8 = words.nth(3).context("too short")?.parse()?;
    let mut halves: Vec<Vec<(&str, &str)>> = Vec::new();
    let mut flow_wide: Vec<(&str, &str)> = Vec::new();
    let mut replied = true;
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            replied &= word != "[UNREPLIED]";
            continue;
        };
        if key == "src" {
            halves.push(Vec::new());
        }
        match key {
            "mark" | "zone" => flow_wide.push((key, value)),
            _ => halves.last_mut().context("a value before src=")?.push((key, value)),
        }
    }
    let [orig, reply] = &halves[..] else { bail!("{} tuples", halves.len()) };
    let number = |key| value(&flow_wide, key).map(str::parse::<u32>).transpose();
    let (zone, zone_direction) = match (value(orig, "zone-orig"), value(reply, "zone-reply")) {
        (Some(zone), _) => (zone.parse()?, Some(Direction::Original)),
        (_, Some(zone)) => (zone.parse()?, Some(Direction::Reply)),
        _ => (number("zone")?.unwrap_or(0).try_into()?, None),
    };
    Ok(Flow {
        orig: tuple(proto, orig)?,
        reply: Some(tuple(proto, reply)?),
        zone,
        zone_direction,
        mark: number("mark")?.unwrap_or(0),
        replied,
    })
}

fn value<'a>(values: &[(&str, &'a str)], wanted: &str) -> Option<&'a str> {
    values.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value)
}

fn tuple(proto: u8, values: &[(&str, &str)]) -> Result<Tuple> {
    let get = |key: &'static str| value(values, key).with_context(|| format!("no {key}="));
    let number = |key| -> Result<u16> {
        let text = get(key)?;
        Ok(match text.strip_prefix("0x") {
            Some(hex) => u16::from_str_radix(hex, 16)?,
            None => text.parse()?,
        })
    };
    let l4 = if value(values, "sport").is_some() {
        L4::Ports(number("sport")?, number("dport")?)
    } else if value(values, "type").is_some() {
        L4::Icmp(get("type")?.parse()?, get("code")?.parse()?, number("id")?)
    } else if value(values, "srckey").is_some() {
        L4::Keys(number("srckey")?, number("dstkey")?)
    } else {
        L4::Nothing
    };
    Ok(Tuple { proto, src: get("src")?.parse()?, dst: get("dst")?.parse()?, l4 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_list_is_read() {
        let flow = parse(
            "ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=40000 \
             dport=80 zone-orig=6 packets=3 bytes=164 src=192.0.2.9 dst=10.0.0.1 sport=8080 \
             dport=40000 packets=1 bytes=60 [ASSURED] mark=17 use=1",
        )
        .unwrap();
        assert_eq!(
            flow.to_string(),
            "10.0.0.1 > 10.0.0.2 proto 6 ports 40000 > 80 | \
             192.0.2.9 > 10.0.0.1 proto 6 ports 8080 > 40000 | zone 6 Original mark 0x11 replied"
        );
    }

    #[test]
    fn events_without_an_answer_are_unreplied() {
        let flow = parse(
            "    [NEW] ipv6     10 icmpv6   58 30 src=fd77::1 dst=fd77::2 type=128 code=0 id=7 \
             [UNREPLIED] src=fd77::2 dst=fd77::1 type=129 code=0 id=7 zone=5",
        )
        .unwrap();
        assert_eq!(flow.orig.turned(), flow.reply.unwrap());
        assert_eq!((flow.zone, flow.zone_direction, flow.replied), (5, None, false));
        let gre = parse(
            "ipv4 2 gre 47 29 src=10.0.0.1 dst=10.0.0.2 srckey=0x0 dstkey=0x1f [UNREPLIED] \
             src=10.0.0.2 dst=10.0.0.1 srckey=0x1f dstkey=0x0 mark=0 use=1",
        )
        .unwrap();
        assert_eq!(gre.orig.l4, L4::Keys(0, 31));
        assert!(parse("nonsense").is_err());
    }
}
