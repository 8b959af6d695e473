//! `conntracker explain`.

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
};

use anyhow::Result;
use clap::{Args, ValueEnum};
use conntracker::{
    commands::explain::{Format, Question, explain},
    model::path::CtState,
};

use super::{bad_usage, values};

/// Flags of TCP, by bit.
const FLAGS: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 accepted, 1 dropped or failure, 2 bad usage, 4 undecided.")]
pub struct ExplainArgs {
    /// Protocol: tcp, udp, icmp, icmpv6, another name or a number.
    #[arg(value_name = "PROTOCOL", value_parser = values::one_proto)]
    proto: u8,
    /// Source: an address, or an address and a port (192.0.2.1:40000, [2001:db8::1]:40000).
    #[arg(value_name = "SRC[:PORT]", value_parser = end)]
    source: End,
    /// Destination: the same.
    #[arg(value_name = "DST[:PORT]", value_parser = end)]
    destination: End,
    /// Source port.
    #[arg(long, value_name = "PORT", value_parser = values::port)]
    sport: Option<u16>,
    /// Interface that the packet comes in through; otherwise that of the route to its source, or none if this host
    /// has the source.
    #[arg(long, value_name = "NAME")]
    iif: Option<String>,
    /// Packet mark at the beginning.
    #[arg(long, value_name = "MARK", value_parser = values::whole_mark, default_value = "0")]
    mark: u32,
    /// What conntrack says about the packet.
    #[arg(long, value_enum, default_value_t)]
    state: StateArg,
    /// Flags of TCP, comma-separated, such as syn,ack; otherwise syn of new flows and ack of others.
    #[arg(long, value_name = "FLAGS", value_parser = flags)]
    flags: Option<u8>,
    /// Network namespace: a name, `pid:N` or a path.
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

pub fn run(args: ExplainArgs) -> Result<ExitCode> {
    let ExplainArgs { proto, source, destination, sport, iif, mark, state, flags, netns, format } =
        args;
    if source.address.is_ipv4() != destination.address.is_ipv4() {
        bad_usage("source and destination must both be of IPv4 or both of IPv6");
    }
    if source.port.is_some() && sport.is_some() {
        bad_usage("the source port is given twice");
    }
    explain(&Question {
        netns,
        format: match format {
            ExplainFormat::Text => Format::Text,
            ExplainFormat::Json => Format::Json,
        },
        proto,
        addresses: [source.address, destination.address],
        ports: [source.port.or(sport), destination.port],
        input: iif,
        mark,
        state: match state {
            StateArg::New => CtState::New,
            StateArg::Established => CtState::Established,
            StateArg::Related => CtState::Related,
            StateArg::Invalid => CtState::Invalid,
            StateArg::Untracked => CtState::Untracked,
        },
        flags,
    })
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
