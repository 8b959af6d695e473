//! SCTP by hand: the kernel of a test machine need not have SCTP sockets for conntrack to follow
//! the protocol. Only the four messages of the handshake.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{SockaddrStorage, recvfrom};
use socket2::Socket;

use super::{PATIENCE, Server, TICK, bare, raw_socket, same_family, without_header};
use crate::lab::Host;

const SCTP: u8 = 132;

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;

/// Initiate tags, one per side. Each side puts the other's tag into its packets.
const CLIENT_TAG: u32 = 0x1111_1111;
const SERVER_TAG: u32 = 0x2222_2222;

/// State cookie parameter of an INIT ACK: type 7, length 8, four bytes of state.
const COOKIE: [u8; 8] = [0, 7, 0, 8, b'c', b'o', b'o', b'k'];

/// Answers INIT and COOKIE ECHO that come for this address and port.
pub fn sctp_server(host: &Host, at: SocketAddr) -> Result<Server> {
    let socket = host.enter(|| raw_socket(at.ip(), SCTP))?;
    socket.set_read_timeout(Some(TICK))?;
    Ok(Server::start(at, move |stop| {
        let mut buffer = [0; 2048];
        while !stop.load(Ordering::Relaxed) {
            let Some((peer, packet)) = receive(&socket, &mut buffer, at.is_ipv4()) else {
                continue;
            };
            let Some(header) = Header::of(packet) else { continue };
            if header.to != at.port() {
                continue;
            }
            let answer = match header.chunk {
                INIT => {
                    let body = [init(SERVER_TAG).as_slice(), &COOKIE].concat();
                    message(INIT_ACK, at.port(), header.from, CLIENT_TAG, &body)
                }
                COOKIE_ECHO => message(COOKIE_ACK, at.port(), header.from, CLIENT_TAG, &[]),
                _ => continue,
            };
            // An answer that cannot be sent is one the client misses: that is its test.
            let _ = socket.send_to(&answer, &bare(peer));
        }
    }))
}

/// Sends an INIT and waits for nothing.
pub fn sctp_init(host: &Host, from: SocketAddr, to: SocketAddr) -> Result<()> {
    same_family(from, to)?;
    host.enter(|| send_init(&raw_socket(from.ip(), SCTP)?, from, to))
}

/// The whole handshake with an [`sctp_server`], after which the association is ESTABLISHED.
pub fn sctp_exchange(host: &Host, from: SocketAddr, to: SocketAddr) -> Result<()> {
    same_family(from, to)?;
    host.enter(|| {
        let socket = raw_socket(from.ip(), SCTP)?;
        socket.set_read_timeout(Some(TICK))?;
        send_init(&socket, from, to)?;
        await_chunk(&socket, from, INIT_ACK)?;
        let echo = message(COOKIE_ECHO, from.port(), to.port(), SERVER_TAG, &COOKIE[4..]);
        socket.send_to(&echo, &bare(to.ip()))?;
        await_chunk(&socket, from, COOKIE_ACK)
    })
}

fn send_init(socket: &Socket, from: SocketAddr, to: SocketAddr) -> Result<()> {
    let packet = message(INIT, from.port(), to.port(), 0, &init(CLIENT_TAG));
    socket.send_to(&packet, &bare(to.ip())).with_context(|| format!("SCTP INIT {from} to {to}"))?;
    Ok(())
}

fn await_chunk(socket: &Socket, at: SocketAddr, chunk: u8) -> Result<()> {
    let mut buffer = [0; 2048];
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some((_, packet)) = receive(socket, &mut buffer, at.is_ipv4())
            && let Some(header) = Header::of(packet)
            && header.to == at.port()
            && header.chunk == chunk
        {
            return Ok(());
        }
    }
    bail!("no SCTP chunk of type {chunk} came to {at}")
}

/// One packet without its IP header, and the address of the sender.
fn receive<'a>(socket: &Socket, buffer: &'a mut [u8], v4: bool) -> Option<(IpAddr, &'a [u8])> {
    // A timeout is no packet either; the callers look at their own clocks.
    let (length, peer) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), buffer).ok()?;
    let peer = peer?;
    let peer = match peer.as_sockaddr_in() {
        Some(peer) => peer.ip().into(),
        None => peer.as_sockaddr_in6()?.ip().into(),
    };
    Some((peer, without_header(buffer.get(..length)?, v4)?))
}

/// What we read of a packet: ports and the type of the first chunk.
struct Header {
    from: u16,
    to: u16,
    chunk: u8,
}

impl Header {
    fn of(packet: &[u8]) -> Option<Self> {
        let port = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
        Some(Self { from: port(0)?, to: port(2)?, chunk: *packet.get(12)? })
    }
}

/// The fixed part of INIT and INIT ACK: tag, window, one stream each way, first TSN.
fn init(tag: u32) -> Vec<u8> {
    let mut body = Vec::with_capacity(16);
    body.extend(tag.to_be_bytes());
    body.extend(65_536_u32.to_be_bytes());
    body.extend([0, 1, 0, 1]);
    body.extend(tag.to_be_bytes());
    body
}

/// A packet of one chunk. The chunk's length must be a multiple of four: nothing pads it.
fn message(chunk: u8, from: u16, to: u16, tag: u32, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(16 + body.len());
    packet.extend(from.to_be_bytes());
    packet.extend(to.to_be_bytes());
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend([chunk, 0]);
    packet.extend((body.len() as u16 + 4).to_be_bytes());
    packet.extend(body);
    let checksum = crc32c(&packet);
    // Little endian, unlike all else in the packet (RFC 9260, appendix A).
    packet[8..12].copy_from_slice(&checksum.to_le_bytes());
    packet
}

/// CRC-32C (Castagnoli), bit by bit: conntrack drops SCTP packets whose checksum is wrong.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn crc32c_of_the_check_string() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
