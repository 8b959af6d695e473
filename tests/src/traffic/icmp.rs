//! ICMP and ICMPv6 echo with an identifier of the caller's choice, which conntrack has in its tuple.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result};

use super::server::passing;
use super::{PATIENCE, bare, raw_socket, without_header};
use crate::lab::Host;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Sends `count` echo requests from the host's first IPv4 address; returns how many were answered.
pub fn ping4(host: &Host, to: IpAddr, id: u16, count: u16) -> Result<u16> {
    ping(host, host.v4().into(), to, id, count)
}

/// Sends `count` echo requests from the host's first IPv6 address; returns how many were answered.
pub fn ping6(host: &Host, to: IpAddr, id: u16, count: u16) -> Result<u16> {
    ping(host, host.v6().into(), to, id, count)
}

/// Sends `count` echo requests one after the other and returns how many were answered. It gives up
/// at the first one that is not.
pub fn ping(host: &Host, from: IpAddr, to: IpAddr, id: u16, count: u16) -> Result<u16> {
    let v4 = to.is_ipv4();
    let (protocol, request, reply) = if v4 { (ICMP, 8, 0) } else { (ICMPV6, 128, 129) };
    host.enter(|| {
        let socket = raw_socket(from, protocol)?;
        socket.set_read_timeout(Some(PATIENCE / 3))?;
        for sequence in 0..count {
            let message = echo(request, id, sequence, v4);
            socket.send_to(&message, &bare(to)).with_context(|| format!("ping {from} to {to}"))?;
            let expected = echo(reply, id, sequence, v4);
            if !answered(&socket, expected, v4)? {
                return Ok(sequence);
            }
        }
        Ok(count)
    })
}

/// Sends `count` echo requests and waits for no answer. That a rule of this host drops them is no failure.
pub fn ping_blindly(host: &Host, from: IpAddr, to: IpAddr, id: u16, count: u16) -> Result<()> {
    let v4 = to.is_ipv4();
    let (protocol, request) = if v4 { (ICMP, 8) } else { (ICMPV6, 128) };
    host.enter(|| {
        let socket = raw_socket(from, protocol)?;
        for sequence in 0..count {
            match socket.send_to(&echo(request, id, sequence, v4), &bare(to)) {
                Err(error) if error.kind() != ErrorKind::PermissionDenied => {
                    return Err(error).with_context(|| format!("ping {from} to {to}"));
                }
                _ => {}
            }
        }
        Ok(())
    })
}

/// Waits for one message among all that a raw ICMP socket sees.
fn answered(socket: &socket2::Socket, expected: [u8; 8], v4: bool) -> Result<bool> {
    let mut buffer = [0; 2048];
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match std::io::Read::read(&mut &*socket, &mut buffer) {
            Ok(length) => {
                let message = without_header(&buffer[..length], v4).unwrap_or_default();
                // All but the checksum, which the kernel has verified.
                if message.get(..2) == Some(&expected[..2])
                    && message.get(4..8) == Some(&expected[4..])
                {
                    return Ok(true);
                }
            }
            Err(error) if passing(&error) => return Ok(false),
            Err(error) => Err(error)?,
        }
    }
    Ok(false)
}

fn echo(kind: u8, id: u16, sequence: u16, v4: bool) -> [u8; 8] {
    let ([id0, id1], [seq0, seq1]) = (id.to_be_bytes(), sequence.to_be_bytes());
    let mut message = [kind, 0, 0, 0, id0, id1, seq0, seq1];
    // For ICMPv6 the kernel fills the checksum in: it covers the addresses.
    if v4 {
        let sum: u32 =
            message.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
        message[2..4].copy_from_slice(&folded.to_be_bytes());
    }
    message
}
