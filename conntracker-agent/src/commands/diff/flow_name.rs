//! What a flow is called in differences.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::Serialize;

use crate::{
    model::{FlowKey, L4, Tuple, protocol},
    report::Names,
};

/// A flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::commands) struct FlowName {
    pub netns: String,
    pub zone: u16,
    pub protocol: String,
    pub src: IpAddr,
    pub dst: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp: Option<(u8, u8)>,
}

impl FlowName {
    /// The flow of this key, with this tuple: its own, or that folded.
    pub fn of(key: &FlowKey, tuple: Tuple, names: &Names<'_>) -> Self {
        let Tuple { src, dst, proto, l4 } = tuple;
        let (mut ports, mut icmp) = (None, None);
        match l4 {
            L4::Ports { src, dst } | L4::Gre { src, dst } => ports = Some((src, dst)),
            L4::Icmp { kind, code, .. } => icmp = Some((kind, code)),
            L4::None => {}
        }
        Self {
            netns: names.netns(key.netns).to_string(),
            zone: key.zone.0,
            protocol: protocol::name(proto).map_or_else(|| proto.to_string(), str::to_owned),
            src,
            dst,
            sport: ports.map(|(src, _)| src),
            dport: ports.map(|(_, dst)| dst),
            icmp,
        }
    }
}

impl fmt::Display for FlowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { netns, zone, protocol, src, dst, sport, dport, icmp } = self;
        match (sport, dport, icmp) {
            (Some(sport), Some(dport), _) => {
                let (src, dst) = (SocketAddr::new(*src, *sport), SocketAddr::new(*dst, *dport));
                write!(f, "{protocol} {src} -> {dst}")?;
            }
            (_, _, Some((kind, code))) => {
                write!(f, "{protocol} {src} -> {dst} type {kind} code {code}")?;
            }
            _ => write!(f, "{protocol} {src} -> {dst}")?,
        }
        write!(f, " [{netns}]")?;
        if *zone == 0 { Ok(()) } else { write!(f, " [zone {zone}]") }
    }
}
