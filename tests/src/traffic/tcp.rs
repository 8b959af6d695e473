//! TCP: a connection, an exchange, an echo server.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};

use super::server::passing;
use super::{PATIENCE, Server, TICK, same_family};
use crate::lab::Host;

/// Sends back what each connection says, until the peer closes its side.
pub fn tcp_echo_server(host: &Host, at: SocketAddr) -> Result<Server> {
    let listener = host.enter(|| {
        let socket = bound(at)?;
        socket.listen(1024)?;
        // Holds for accept too.
        socket.set_read_timeout(Some(TICK))?;
        Ok(socket)
    })?;
    let address = listener.local_addr()?.as_socket().context("the listener has no address")?;
    Ok(Server::start(address, move |stop| {
        let mut connections = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((socket, _)) => {
                    let stop = Arc::clone(stop);
                    connections.push(thread::spawn(move || echo(socket.into(), &stop)));
                }
                Err(error) if passing(&error) => {}
                Err(_) => break,
            }
        }
        for connection in connections {
            // A connection that panicked shows as a missing echo.
            let _ = connection.join();
        }
    }))
}

fn echo(mut stream: TcpStream, stop: &AtomicBool) {
    if stream.set_read_timeout(Some(TICK)).is_err() {
        return;
    }
    let mut buffer = vec![0; 65536];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) if stream.write_all(&buffer[..length]).is_err() => break,
            Ok(_) => {}
            Err(error) if passing(&error) => {}
            Err(_) => break,
        }
    }
}

/// Opens a connection and leaves it open: the flow stays ESTABLISHED until the stream is dropped.
pub fn tcp_connect(
    host: &Host,
    from: SocketAddr,
    to: SocketAddr,
    timeout: Duration,
) -> Result<TcpStream> {
    same_family(from, to)?;
    host.enter(|| {
        let socket = bound(from)?;
        socket
            .connect_timeout(&to.into(), timeout)
            .with_context(|| format!("TCP {from} to {to}"))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    })
}

/// A whole connection: handshake, payload, echo, and both sides closed.
pub fn tcp_exchange(host: &Host, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Result<()> {
    let mut stream = tcp_connect(host, from, to, PATIENCE)?;
    stream.write_all(payload)?;
    stream.shutdown(Shutdown::Write)?;
    let mut echo = Vec::new();
    stream.read_to_end(&mut echo).with_context(|| format!("no TCP echo, {from} to {to}"))?;
    ensure!(echo == payload, "the echo of {to} is not what was sent");
    Ok(())
}

fn bound(at: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into()).with_context(|| format!("TCP at {at}"))?;
    Ok(socket)
}
