//! A packet that the evaluator was asked about, for people and in JSON.

use std::net::SocketAddr;

use serde::Serialize;

use crate::{
    firewall::evaluate::{Packet, interface::Interface, packet::Side},
    report::text::protocol_name,
};

/// What is said of a packet in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct PacketObject {
    protocol: u8,
    source: String,
    destination: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_flags: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp: Option<(u8, u8)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    mark: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    later_fragment: bool,
}

impl PacketObject {
    /// Of a packet.
    pub fn of(packet: &Packet) -> Self {
        let end = |side: Side| {
            let address = packet.address(side);
            match (address, packet.port(side)) {
                (Ok(address), Ok(Some(port))) => SocketAddr::new(address, port).to_string(),
                (Ok(address), _) => address.to_string(),
                (Err(_), _) => "?".to_owned(),
            }
        };
        let name = |interface: &Option<Interface>| interface.as_ref().map(Interface::text);
        Self {
            protocol: packet.protocol().unwrap_or_default(),
            source: end(Side::Source),
            destination: end(Side::Destination),
            tcp_flags: packet.tcp_flags().ok().flatten(),
            icmp: packet.icmp().ok().flatten(),
            input: packet.input.as_ref().ok().and_then(name),
            output: packet.output.as_ref().ok().and_then(name),
            state: packet.tracking.state.ok().map(|state| state.name()),
            mark: packet.mark.value(),
            later_fragment: packet.fragment_offset().is_ok_and(|offset| offset > 0),
        }
    }

    /// One line.
    pub fn text(&self) -> String {
        let Self { protocol, source, destination, tcp_flags, icmp, .. } = self;
        let mut text = format!("{} {source} -> {destination}", protocol_name(*protocol));
        if let Some(state) = self.state {
            text.push_str(&format!(", {state}"));
        }
        if let Some((kind, code)) = icmp {
            text.push_str(&format!(", type {kind} code {code}"));
        }
        // A SYN alone is what one expects.
        if let Some(flags) = tcp_flags.filter(|flags| *flags != 2) {
            text.push_str(&format!(", flags {flags:#04x}"));
        }
        for (word, interface) in [("in", &self.input), ("out", &self.output)] {
            if let Some(interface) = interface {
                text.push_str(&format!(", {word} {interface}"));
            }
        }
        if self.mark != 0 {
            text.push_str(&format!(", mark {:#x}", self.mark));
        }
        if self.later_fragment {
            text.push_str(", a later fragment");
        }
        text
    }
}
