//! `conntracker explain`.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;
use clap::{Args, ValueEnum};
use conntracker::{
    commands::{
        explain::{
            AskedPacket, Expectations, Format, HostSource, Question, RulesSource, expect, explain,
        },
        report::When,
    },
    model::path::CtState,
};

use super::{bad_usage, report::whole, values};

/// Flags of TCP, by bit.
const FLAGS: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 accepted (--expect: all lines hold), 1 dropped (--expect: a line fails) or failure,\n\
                  2 bad usage, 4 undecided."
)]
pub struct ExplainArgs {
    /// Protocol: tcp, udp, icmp, icmpv6, another name or a number.
    #[arg(value_name = "PROTOCOL", value_parser = values::one_proto, required_unless_present = "expect")]
    proto: Option<u8>,
    /// Source: an address, or an address and a port (192.0.2.1:40000, [2001:db8::1]:40000).
    #[arg(value_name = "SRC[:PORT]", value_parser = end, required_unless_present = "expect")]
    source: Option<End>,
    /// Destination: the same.
    #[arg(value_name = "DST[:PORT]", value_parser = end, required_unless_present = "expect")]
    destination: Option<End>,
    /// Source port.
    #[arg(long, value_name = "PORT", value_parser = values::port)]
    sport: Option<u16>,
    /// Interface that the packet comes in through; otherwise that of the route to its source, or none if this host
    /// has the source.
    #[arg(long, value_name = "NAME")]
    iif: Option<String>,
    /// Interface that the packet leaves through; otherwise that of the route to its destination.
    #[arg(long, value_name = "NAME")]
    oif: Option<String>,
    /// Packet mark at the beginning.
    #[arg(long, value_name = "MARK", value_parser = values::whole_mark, default_value = "0")]
    mark: u32,
    /// What conntrack says about the packet.
    #[arg(long, value_enum, default_value_t)]
    state: StateArg,
    /// The packet belongs to a flow that conntrack's table has, or the recording: its state, mark and translation.
    #[arg(long, conflicts_with = "state")]
    flow: bool,
    /// Flags of TCP, comma-separated, such as syn,ack; otherwise syn of new flows and ack of others.
    #[arg(long, value_name = "FLAGS", value_parser = flags)]
    flags: Option<u8>,
    /// Observe for this time (10s, 1m30s) what really becomes of such packets, and mark where it is something else.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = values::duration,
        conflicts_with_all = ["against", "recording", "no_host", "expect"]
    )]
    watch: Option<Duration>,
    /// Rules that would be loaded: a file for `nft -f`, or of iptables-save; several one after the other. The answer
    /// is about these, and what the rules of today say stands beside it.
    #[arg(long, value_name = "FILE")]
    against: Vec<PathBuf>,
    /// Check the lines of FILE: `allow tcp from 10.77.1.0/24 to 10.77.2.2 port 443`, `deny udp from any in wan`, …
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["proto", "sport", "iif", "oif", "mark", "state", "flow", "flags"]
    )]
    expect: Option<PathBuf>,
    /// The rules and routes of a recording in the place of those that are loaded here.
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    /// The time of the recording whose rules are asked about; otherwise its last.
    #[arg(long, value_name = "TIME", value_parser = When::parse, allow_hyphen_values = true, requires = "recording")]
    at: Option<When>,
    /// No host: the rules of --against alone. A packet comes in through --iif, or is sent by the host; it leaves
    /// through --oif, or is for the host.
    #[arg(long, requires = "against", conflicts_with_all = ["recording", "netns", "flow"])]
    no_host: bool,
    /// Network namespace: a name, `pid:N` or a path; of a recording, the name that it has there.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// Format of the answer.
    #[arg(long, value_enum, default_value_t)]
    format: ExplainFormat,
}

/// An address and perhaps a port.
#[derive(Clone, Copy, Debug)]
struct End {
    address: IpAddr,
    port: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum StateArg {
    /// The first packet of a flow.
    #[default]
    New,
    /// A packet of a flow that was answered, and is not translated.
    Established,
    /// The first packet of an expected flow, or an ICMP error.
    Related,
    /// A packet that conntrack does not accept.
    Invalid,
    /// A packet that a rule took from conntrack.
    Untracked,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum ExplainFormat {
    /// The path for people.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

fn end(text: &str) -> Result<End, String> {
    if let Ok(address) = text.parse() {
        return Ok(End { address, port: None });
    }
    let both: SocketAddr =
        text.parse().map_err(|_| "must be an address, or ADDRESS:PORT, or [ADDRESS]:PORT")?;
    Ok(End { address: both.ip(), port: Some(both.port()) })
}

fn flags(text: &str) -> Result<u8, String> {
    text.split(',').try_fold(0, |flags, name| {
        let bit = FLAGS.iter().position(|flag| flag.eq_ignore_ascii_case(name));
        let bit = bit.ok_or_else(|| format!("`{name}` is none of {}", FLAGS.join(", ")))?;
        Ok(flags | 1 << bit)
    })
}

impl From<ExplainFormat> for Format {
    fn from(format: ExplainFormat) -> Self {
        match format {
            ExplainFormat::Text => Self::Text,
            ExplainFormat::Json => Self::Json,
        }
    }
}

impl From<StateArg> for CtState {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::New => Self::New,
            StateArg::Established => Self::Established,
            StateArg::Related => Self::Related,
            StateArg::Invalid => Self::Invalid,
            StateArg::Untracked => Self::Untracked,
        }
    }
}

pub fn run(args: ExplainArgs) -> Result<ExitCode> {
    let host = match args.recording {
        Some(file) => {
            HostSource::Recording { source: Box::new(whole(file)), at: args.at, netns: args.netns }
        }
        None if args.no_host => HostSource::None,
        None => HostSource::Live { netns: args.netns },
    };
    let (rules, format) = (RulesSource { host, against: args.against }, args.format.into());
    if let Some(file) = args.expect {
        return expect(&Expectations { rules, file, format });
    }
    let (Some(proto), Some(source), Some(destination)) =
        (args.proto, args.source, args.destination)
    else {
        bad_usage("a packet has a protocol, a source and a destination");
    };
    if source.address.is_ipv4() != destination.address.is_ipv4() {
        bad_usage("source and destination must both be of IPv4 or both of IPv6");
    }
    if source.port.is_some() && args.sport.is_some() {
        bad_usage("the source port is given twice");
    }
    let packet = AskedPacket {
        proto,
        addresses: [source.address, destination.address],
        ports: [source.port.or(args.sport), destination.port],
        input: args.iif,
        output: args.oif,
        mark: args.mark,
        state: args.state.into(),
        flags: args.flags,
    };
    explain(&Question { rules, packet, of_flow: args.flow, watch: args.watch, format })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_have_an_address_and_perhaps_a_port() {
        assert_eq!(end("192.0.2.1").unwrap().port, None);
        assert_eq!(end("192.0.2.1:80").unwrap().port, Some(80));
        assert_eq!(end("2001:db8::1").unwrap().port, None);
        assert_eq!(end("[2001:db8::1]:80").unwrap().port, Some(80));
        assert!(end("192.0.2.1:http").is_err() && end("[2001:db8::1]").is_err());
    }

    #[test]
    fn flags_are_names() {
        assert_eq!(flags("syn,ACK"), Ok(0x12));
        assert!(flags("syn,fun").is_err());
    }
}
