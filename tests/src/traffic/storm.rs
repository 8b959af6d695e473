//! Very many UDP flows of one packet each, made as fast as the machine can.
//!
//! Binding a socket per flow would be the bottleneck, so the packets are made whole, headers
//! included, and leave through raw sockets, in batches.

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use nix::sys::socket::MultiHeaders;
use socket2::{Domain, Protocol, Socket, Type};

use super::bare;
use super::stream::{BATCH, send_batch};
use crate::lab::Host;

/// Source ports of one source address: all that are not privileged.
const PORTS: usize = 65_536 - FIRST_PORT;
const FIRST_PORT: usize = 1024;

/// Source addresses: 10.78.0.0/16, which the lab routes to the client.
const ADDRESSES: usize = 65_536;

const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const PACKET: usize = IP_HEADER + UDP_HEADER + 4;

/// Sends one packet in each of `flows` distinct UDP flows to one destination, from source ports
/// 1024 to 65535 of as many addresses of 10.78.0.0/16 as it takes, and returns how many were sent.
/// The caller sees to it that the destination answers nothing (see [`super::udp_sink`]).
pub fn udp_storm(host: &Host, to: SocketAddrV4, flows: usize, threads: usize) -> Result<usize> {
    udp_storm_of(host, to, 0..flows, threads)
}

/// As [`udp_storm`], in the flows of these numbers: other numbers are other flows.
pub fn udp_storm_of(
    host: &Host,
    to: SocketAddrV4,
    flows: Range<usize>,
    threads: usize,
) -> Result<usize> {
    ensure!(flows.end <= PORTS * ADDRESSES, "{flows:?} do not fit into 10.78.0.0/16");
    let first = flows.start;
    share(host, flows.len(), threads, |part| {
        send(to, first + part.start..first + part.end, packet_of)
    })
}

/// As [`udp_storm_of`], in flows that do not fold into each other: of each source address and destination port there is
/// one. The port of `to` is the first one.
pub fn udp_spread_of(
    host: &Host,
    to: SocketAddrV4,
    flows: Range<usize>,
    threads: usize,
) -> Result<usize> {
    let ports = flows.end.div_ceil(ADDRESSES);
    ensure!(usize::from(to.port()) + ports <= PORTS, "{flows:?} do not fit into 10.78.0.0/16");
    let first = flows.start;
    share(host, flows.len(), threads, |part| {
        send(to, first + part.start..first + part.end, |flow, to| {
            let port = to.port() + (flow / ADDRESSES) as u16;
            packet_of(flow % ADDRESSES * PORTS, SocketAddrV4::new(*to.ip(), port))
        })
    })
}

/// As [`udp_storm`], for so long, and each packet in a flow of its own.
pub fn udp_flood(host: &Host, to: SocketAddrV4, time: Duration, threads: usize) -> Result<usize> {
    const AT_ONCE: usize = 4096;
    let end = Instant::now() + time;
    share(host, PORTS * ADDRESSES, threads, |mut flows| {
        let mut sent = 0;
        while Instant::now() < end && !flows.is_empty() {
            let next = flows.start + AT_ONCE.min(flows.len());
            sent += send(to, flows.start..next, packet_of)?;
            flows.start = next;
        }
        Ok(sent)
    })
}

/// Shares flows out to threads in the host's namespace, and adds up what they have sent.
fn share(
    host: &Host,
    flows: usize,
    threads: usize,
    work: impl Fn(Range<usize>) -> Result<usize> + Sync,
) -> Result<usize> {
    let share = flows.div_ceil(threads.max(1));
    let work = &work;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1))
            .map(|worker| {
                let (first, last) = (worker * share, ((worker + 1) * share).min(flows));
                scope.spawn(move || host.enter(|| work(first.min(last)..last)))
            })
            .collect();
        let mut sent = 0;
        for worker in workers {
            match worker.join() {
                Ok(result) => sent += result?,
                Err(_) => bail!("a thread of the storm panicked"),
            }
        }
        Ok(sent)
    })
}

fn send(
    to: SocketAddrV4,
    mut flows: Range<usize>,
    packet_of: impl Fn(usize, SocketAddrV4) -> [u8; PACKET],
) -> Result<usize> {
    const IPPROTO_RAW: i32 = 255; // our own IP headers
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW)))?;
    socket.connect(&bare(IpAddr::V4(*to.ip())))?;
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let mut packets = [[0; PACKET]; BATCH];
    let total = flows.len();
    while !flows.is_empty() {
        let count = flows.len().min(BATCH);
        for (packet, flow) in packets.iter_mut().zip(flows.clone()) {
            *packet = packet_of(flow, to);
        }
        let messages: Vec<_> = packets[..count].iter().map(|p| [IoSlice::new(p)]).collect();
        flows.start += send_batch(&socket, &mut headers, &messages)?;
    }
    Ok(total)
}

fn packet_of(flow: usize, to: SocketAddrV4) -> [u8; PACKET] {
    let [high, low] = ((flow / PORTS) as u16).to_be_bytes();
    let source = Ipv4Addr::new(10, 78, high, low);
    let port = (FIRST_PORT + flow % PORTS) as u16;
    let mut packet = [0; PACKET];
    // Version and header length, time to live, protocol. The kernel adds length and checksum.
    packet[0] = 0x45;
    packet[8] = 64;
    packet[9] = 17;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&to.ip().octets());
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    packet[22..24].copy_from_slice(&to.port().to_be_bytes());
    // A UDP checksum of zero means none.
    packet[24..26].copy_from_slice(&((PACKET - IP_HEADER) as u16).to_be_bytes());
    packet
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn flows_differ_in_address_or_port() {
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
        let seen: HashSet<_> = (0..200_000).map(|flow| packet_of(flow, to)).collect();
        assert_eq!(seen.len(), 200_000);
    }
}
