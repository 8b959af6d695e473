//! The packets of the cases.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::tracer::PATIENCE;
use conntracker_tests::traffic::{ping_blindly, tcp_connect, udp_sink};
use socket2::{Domain, Socket, Type};

use crate::cases::{At, Case, Nat, Protocol};

/// Sends the packets of a case; returns what each client must have lost, where that is not the same as what
/// the rule counts.
pub fn send(lab: &Lab, case: &Case) -> Vec<(IpAddr, u64)> {
    let Lab { client, router, server } = lab;
    let (from, to) = match case.at {
        At::Output | At::RawOutput => (router, case.at(server, case.port)),
        At::Input => (client, case.at(router, case.port)),
        _ if case.nat == Nat::Destination => (client, case.at(router, case.port)),
        _ => (client, case.at(server, case.port)),
    };
    if case.protocol == Protocol::Tcp {
        // A connection that nothing answers: how often it is tried is the kernel's business.
        let from = case.at(from, 41_000);
        assert!(
            tcp_connect(
                if case.at.chain().ends_with("output") { router } else { client },
                from,
                to,
                Duration::from_millis(50)
            )
            .is_err()
        );
        return Vec::new();
    }
    if case.protocol == Protocol::Echo {
        let source = case.at(from, 0).ip();
        ping_blindly(from, source, to.ip(), case.port, case.packets as u16).unwrap();
        return vec![(source, case.packets as u64)];
    }
    let mut clients = vec![case.at(from, 0).ip()];
    if case.nat == Nat::Masquerade {
        // Another address of the client.
        clients.push(if case.v4 { "10.78.0.1" } else { "fd78::1" }.parse().unwrap());
    }
    let echo =
        (case.at == At::RawReply).then(|| Echo::new(server, case.at(server, case.server_port())));
    let flows = case.packets.min(5);
    let mut lost = Vec::new();
    let mut sent = 0;
    for (n, client) in clients.into_iter().enumerate() {
        // The second client sends twice as much.
        let each = case.packets / flows * (n + 1);
        for flow in 0..flows {
            let from_address = SocketAddr::new(client, 40_000 + flow as u16);
            // No faster than the server answers: its socket has room for some hundred.
            for burst in bursts(each, if echo.is_some() { 150 } else { usize::MAX }) {
                send_some(from, from_address, to, burst);
                sent += burst as u64;
                if let Some(echo) = &echo {
                    echo.wait_for(sent);
                }
            }
        }
        lost.push((client, (each * flows) as u64));
    }
    lost
}

/// Answers datagrams, and counts its answers.
struct Echo {
    answers: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn new(host: &Host, at: SocketAddr) -> Self {
        let socket = udp_sink(host, at).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (answers, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stopped) = (Arc::clone(&answers), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((len, peer)) = socket.recv_from(&mut buffer) {
                    socket.send_to(&buffer[..len], peer).unwrap();
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { answers, stop, thread: Some(thread) }
    }

    fn wait_for(&self, answers: u64) {
        let start = Instant::now();
        while self.answers.load(Ordering::Relaxed) < answers {
            assert!(start.elapsed() < PATIENCE, "the server does not answer");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// A socket at an address that only a route makes local.
fn free_socket(at: SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, None)?;
    if at.is_ipv6() {
        socket.set_freebind_v6(true)?;
    }
    // Another test may have begun a process meanwhile, which has this port's last socket until it is another program.
    let start = Instant::now();
    while let Err(error) = socket.bind(&at.into()) {
        if error.kind() != ErrorKind::AddrInUse || start.elapsed() > Duration::from_secs(2) {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(socket.into())
}

/// Sends datagrams. The kernel tells who sends them that a rule has dropped them: that is no failure here.
fn send_some(host: &Host, from: SocketAddr, to: SocketAddr, packets: usize) {
    host.enter(|| {
        let socket = free_socket(from)?;
        for _ in 0..packets {
            match socket.send_to(b"hello", to) {
                Err(error) if error.kind() != ErrorKind::PermissionDenied => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(())
    })
    .unwrap();
}

fn bursts(packets: usize, most: usize) -> impl Iterator<Item = usize> {
    let mut left = packets;
    std::iter::from_fn(move || {
        let now = left.min(most);
        left -= now;
        (now > 0).then_some(now)
    })
}
