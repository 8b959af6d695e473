//! What answers the bursts: one thread for each host.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, SockRef, Socket, Type};

use super::passing;
use crate::lab::{Host, Lab};

/// UDP ports of the server and of the router that send back what comes.
const ECHO: [u16; 2] = [7, 53];

/// UDP port that takes everything and says nothing.
const SINK: u16 = 9;

/// How often a thread looks whether it is to stop.
const TICK: u16 = 50;

/// Servers on the server and the router; dropping them stops them. The client answers nothing.
#[derive(Debug)]
pub struct Services {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Services {
    /// Starts them.
    pub fn start(lab: &Lab) -> Result<Self> {
        let mut services = Self { stop: Arc::default(), threads: Vec::new() };
        for (host, tcp) in [(&lab.server, [80, 443]), (&lab.router, [8080, 8081])] {
            // Nothing may come late: what a ruleset dropped would come in the time of the next.
            host.sysctl("net.ipv4.tcp_synack_retries", "0")?;
            let sockets = sockets(host, tcp)?;
            let stop = Arc::clone(&services.stop);
            services.threads.push(thread::spawn(move || serve(&sockets, &stop)));
        }
        Ok(services)
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => eprintln!("services of a burst: {error}"),
                Err(_) => eprintln!("services of a burst panicked"),
            }
        }
    }
}

#[derive(Debug)]
enum Service {
    Echo(UdpSocket),
    Sink(UdpSocket),
    Tcp(TcpListener),
}

impl AsFd for Service {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Echo(socket) | Self::Sink(socket) => socket.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl Service {
    /// Takes one packet or connection; an error says that there is none.
    fn answer(&self) -> io::Result<()> {
        let mut buffer = [0; 2048];
        match self {
            Self::Echo(socket) => {
                let (length, peer) = socket.recv_from(&mut buffer)?;
                // A rule may forbid the answer.
                let _ = socket.send_to(&buffer[..length], peer);
            }
            Self::Sink(socket) => drop(socket.recv_from(&mut buffer)?),
            // Closed with a reset: no state stays, and no packet comes later.
            Self::Tcp(listener) => {
                SockRef::from(&listener.accept()?.0).set_linger(Some(Duration::ZERO))?;
            }
        }
        Ok(())
    }
}

/// The sockets of a host's services, at its first addresses.
fn sockets(host: &Host, tcp: [u16; 2]) -> Result<Vec<Service>> {
    let bound = |at: SocketAddr, kind: Type| -> Result<Socket> {
        let socket = Socket::new(Domain::for_address(at), kind, None)?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(kind == Type::STREAM)?;
        socket.bind(&at.into()).with_context(|| format!("service at {at}"))?;
        Ok(socket)
    };
    host.enter(|| {
        let mut services = Vec::new();
        for address in [IpAddr::V4(host.v4()), IpAddr::V6(host.v6())] {
            let udp = |port| -> Result<UdpSocket> {
                Ok(bound(SocketAddr::new(address, port), Type::DGRAM)?.into())
            };
            for port in ECHO {
                services.push(Service::Echo(udp(port)?));
            }
            services.push(Service::Sink(udp(SINK)?));
            for port in tcp {
                let socket = bound(SocketAddr::new(address, port), Type::STREAM)?;
                socket.listen(128)?;
                services.push(Service::Tcp(socket.into()));
            }
        }
        Ok(services)
    })
}

fn serve(services: &[Service], stop: &AtomicBool) -> io::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let mut polled: Vec<_> = services
            .iter()
            .map(|service| PollFd::new(service.as_fd(), PollFlags::POLLIN))
            .collect();
        poll(&mut polled, PollTimeout::from(TICK))?;
        let ready = polled.iter().map(|fd| fd.any().unwrap_or(false));
        for (service, _) in services.iter().zip(ready).filter(|(_, ready)| *ready) {
            loop {
                match service.answer() {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // An ICMP error of an earlier packet, or a connection that is gone already.
                    Err(error) if passing(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}
