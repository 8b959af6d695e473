//! UDP: a datagram, an exchange, an echo server.

use std::io::ErrorKind::AddrInUse;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::server::passing;
use super::{PATIENCE, Server, TICK, same_family};
use crate::lab::{Host, Lab};

/// Sends each datagram back to where it came from.
pub fn udp_echo_server(host: &Host, at: SocketAddr) -> Result<Server> {
    let socket = udp_sink(host, at)?;
    socket.set_read_timeout(Some(TICK))?;
    Ok(Server::start(socket.local_addr()?, move |stop| {
        let mut buffer = vec![0; 65536];
        while !stop.load(Ordering::Relaxed) {
            match socket.recv_from(&mut buffer) {
                // An answer that cannot be sent is one the client misses: that is its test.
                Ok((length, peer)) => drop(socket.send_to(&buffer[..length], peer)),
                Err(error) if passing(&error) => {}
                Err(_) => break,
            }
        }
    }))
}

/// A bound socket that nobody reads: datagrams arrive without an answer of any kind.
pub fn udp_sink(host: &Host, at: SocketAddr) -> Result<UdpSocket> {
    host.enter(|| udp_socket(at))
}

/// A socket of the calling thread's namespace, bound. A process that another test starts has copies of all
/// sockets until it executes its program: an address whose socket was closed may be in use for that long.
pub fn udp_socket(at: SocketAddr) -> Result<UdpSocket> {
    let start = Instant::now();
    loop {
        match UdpSocket::bind(at) {
            Err(error) if error.kind() == AddrInUse && start.elapsed() < PATIENCE => {
                thread::sleep(TICK);
            }
            bound => return bound.with_context(|| format!("UDP socket at {at}")),
        }
    }
}

/// Sends `count` datagrams and waits for nothing.
pub fn udp_send(
    host: &Host,
    from: SocketAddr,
    to: SocketAddr,
    payload: &[u8],
    count: usize,
) -> Result<()> {
    same_family(from, to)?;
    host.enter(|| {
        let socket = udp_socket(from)?;
        for _ in 0..count {
            socket.send_to(payload, to).with_context(|| format!("UDP {from} to {to}"))?;
        }
        Ok(())
    })
}

/// Sends a datagram and waits for its echo. `to` may be an address that is translated on the way.
pub fn udp_exchange(host: &Host, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Result<()> {
    same_family(from, to)?;
    host.enter(|| {
        let socket = udp_socket(from)?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(payload).with_context(|| format!("UDP {from} to {to}"))?;
        let mut echo = vec![0; payload.len() + 1];
        let length =
            socket.recv(&mut echo).with_context(|| format!("no UDP echo, {from} to {to}"))?;
        ensure!(echo[..length] == *payload, "the echo of {to} is not what was sent");
        Ok(())
    })
}

/// One flow through the router to the server and back, from this port of the client.
pub fn udp_through(lab: &Lab, port: u16) -> Result<()> {
    let _server = udp_echo_server(&lab.server, lab.server.at(7))?;
    udp_exchange(&lab.client, lab.client.at(port), lab.server.at(7), b"hello")
}
