//! Packets for the lab. Each helper takes the host that acts, and addresses as `host.at(port)` and
//! `host.at6(port)`, so that a test reads as the packet plan it carries out.

mod icmp;
mod raw;
mod sctp;
mod server;
mod storm;
mod stream;
mod tcp;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

pub use icmp::{ping, ping_blindly, ping4, ping6};
pub use raw::{gre_packet, ip_sink, raw_ip};
pub use sctp::{sctp_exchange, sctp_init, sctp_server};
pub use server::Server;
pub use storm::{udp_flood, udp_spread_of, udp_storm, udp_storm_of};
pub use stream::{Stream, keep_off, pin, udp_drain, udp_stream};
pub use tcp::{tcp_connect, tcp_echo_server, tcp_exchange};
pub use udp::{udp_echo_server, udp_exchange, udp_send, udp_sink, udp_socket, udp_through};

/// How long a helper waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often a server looks whether it is to stop.
const TICK: Duration = Duration::from_millis(25);

/// A raw socket of an IP protocol, in the namespace of the calling thread.
fn raw_socket(source: IpAddr, protocol: u8) -> Result<Socket> {
    let domain = if source.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(protocol))))?;
    socket.bind(&bare(source))?;
    Ok(socket)
}

/// The address of a raw socket: it has no port.
fn bare(address: IpAddr) -> SockAddr {
    SocketAddr::new(address, 0).into()
}

/// What a raw socket received, without the IPv4 header (the kernel leaves IPv6 headers out).
fn without_header(packet: &[u8], v4: bool) -> Option<&[u8]> {
    if !v4 {
        return Some(packet);
    }
    let words = packet.first()? & 0x0f;
    packet.get(usize::from(words) * 4..)
}

/// A message cannot go from one family to the other.
fn same_family(from: SocketAddr, to: SocketAddr) -> Result<()> {
    ensure!(from.is_ipv4() == to.is_ipv4(), "{from} and {to} are of different families");
    Ok(())
}

#[cfg(test)]
mod tests;
