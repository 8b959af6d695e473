//! Packets of any IP protocol.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};

use super::server::passing;
use super::{Server, TICK, bare, raw_socket};
use crate::lab::Host;

const GRE: u8 = 47;

/// Sends one packet of an IP protocol from the host's first address; the kernel makes the header.
pub fn raw_ip(host: &Host, protocol: u8, to: IpAddr, payload: &[u8]) -> Result<()> {
    let from = if to.is_ipv4() { host.v4().into() } else { host.v6().into() };
    host.enter(|| {
        raw_socket(from, protocol)?
            .send_to(payload, &bare(to))
            .with_context(|| format!("IP protocol {protocol} {from} to {to}"))?;
        Ok(())
    })
}

/// Takes all packets of an IP protocol and answers none. Without it a host returns an ICMP error,
/// which conntrack counts as traffic of the flow.
pub fn ip_sink(host: &Host, protocol: u8, at: IpAddr) -> Result<Server> {
    let socket = host.enter(|| raw_socket(at, protocol))?;
    socket.set_read_timeout(Some(TICK))?;
    Ok(Server::start(SocketAddr::new(at, 0), move |stop| {
        let mut buffer = [0; 2048];
        while !stop.load(Ordering::Relaxed) {
            match std::io::Read::read(&mut &socket, &mut buffer) {
                Ok(_) => {}
                Err(error) if passing(&error) => {}
                Err(_) => break,
            }
        }
    }))
}

/// Sends one GRE packet, version 0, with this key if any and an empty IPv4 protocol payload.
pub fn gre_packet(host: &Host, to: IpAddr, key: Option<u32>) -> Result<()> {
    const KEY_PRESENT: u8 = 0x20;
    let mut packet = vec![0, 0, 0x08, 0x00];
    if let Some(key) = key {
        packet[0] |= KEY_PRESENT;
        packet.extend(key.to_be_bytes());
    }
    raw_ip(host, GRE, to, &packet)
}
