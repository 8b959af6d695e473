//! Some forty flows at once, none like another, that need no more than a few milliseconds: what
//! each ruleset of [`crate::rulesets`] is tried with.
//!
//! Nothing here waits for an answer, so that rules may drop what they like. [`Services`] answer.

mod plan;
mod services;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

pub use plan::{Kind, Planned, Sender, flows};
pub use services::Services;

use crate::lab::{Host, Lab};

/// Sockets of a burst. They are closed, TCP connections by a reset, when this is dropped.
#[derive(Debug)]
pub struct Open {
    sockets: Vec<Socket>,
}

impl Open {
    /// Number of sockets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }
}

/// Sends the first packets of these flows.
pub fn send(lab: &Lab, flows: &[Planned]) -> Result<Open> {
    let mut sockets = Vec::with_capacity(flows.len());
    for (sender, host) in [
        (Sender::Client, &lab.client),
        (Sender::Router, &lab.router),
        (Sender::Server, &lab.server),
    ] {
        sockets.extend(send_from(host, flows.iter().filter(|flow| flow.sender == sender))?);
    }
    Ok(Open { sockets })
}

fn send_from<'a>(
    host: &Host,
    flows: impl Iterator<Item = &'a Planned> + Send,
) -> Result<Vec<Socket>> {
    host.enter(|| {
        flows.map(|flow| begin(flow).with_context(|| format!("beginning {flow:?}"))).collect()
    })
}

fn begin(flow: &Planned) -> Result<Socket> {
    let Planned { kind, from, to, number, payload, sender } = *flow;
    let v4 = from.is_ipv4();
    let (kind_of_socket, protocol) = match kind {
        Kind::Tcp => (Type::STREAM, None),
        Kind::Udp(_) => (Type::DGRAM, None),
        Kind::Echo | Kind::StrayReply if v4 => (Type::RAW, Some(Protocol::ICMPV4)),
        Kind::Echo | Kind::StrayReply => (Type::RAW, Some(Protocol::ICMPV6)),
    };
    let socket = Socket::new(Domain::for_address(from), kind_of_socket, protocol)?;
    // The client's further addresses are on no device.
    if v4 {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_freebind_v6(true)?;
    }
    let raw = kind_of_socket == Type::RAW;
    let address =
        |at: SocketAddr| SockAddr::from(if raw { SocketAddr::new(at.ip(), 0) } else { at });
    socket.bind(&address(from))?;
    let sent = match kind {
        Kind::Tcp => {
            // No data is on its way at the end, so that nothing is sent again later.
            socket.set_linger(Some(Duration::ZERO))?;
            socket.set_nonblocking(true)?;
            socket.connect(&to.into())
        }
        Kind::Udp(packets) => (0..packets).try_for_each(|packet| {
            let text = payload_of(number, packet, payload);
            socket.send_to(&text, &to.into()).map(drop)
        }),
        Kind::Echo | Kind::StrayReply => {
            let message = echo(kind == Kind::Echo, from, number, payload);
            socket.send_to(&message, &address(to)).map(drop)
        }
    };
    match sent {
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
        // What the rules of the sender's own host refuse is an error of the system call.
        Err(_) if sender == Sender::Router => {}
        other => other?,
    }
    Ok(socket)
}

/// Twelve bytes that no other packet has (traces have so many), and then some, so that the lengths
/// differ too: that much is in an ICMP error.
fn payload_of(number: u32, packet: u8, length: usize) -> Vec<u8> {
    let mut payload = b"burst".to_vec();
    payload.extend(number.to_be_bytes());
    payload.push(packet);
    payload.extend((length as u16).to_be_bytes());
    payload.resize(12 + length, 0);
    payload
}

fn echo(request: bool, from: SocketAddr, number: u32, length: usize) -> Vec<u8> {
    let v4 = from.is_ipv4();
    let kind = match (v4, request) {
        (true, true) => 8,
        (true, false) => 0,
        (false, true) => 128,
        (false, false) => 129,
    };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(from.port().to_be_bytes());
    message.extend([0, 1]);
    message.extend(payload_of(number, 0, length));
    if v4 {
        // For ICMPv6 the kernel does this: there the sum covers the addresses.
        let words = message.chunks(2).map(|pair| {
            u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default())
        });
        let sum: u32 = words.sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = !((folded & 0xffff) + (folded >> 16)) as u16;
        message[2..4].copy_from_slice(&folded.to_be_bytes());
    }
    message
}

/// An error of a receive that is no reason to stop: it belongs to an earlier packet.
fn passing(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted,
        NetworkUnreachable, PermissionDenied,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkUnreachable
            | PermissionDenied
    )
}
