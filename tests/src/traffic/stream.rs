//! One long UDP flow, as fast as one CPU can send it: what the benchmark measures.

use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, recvmmsg, sendmmsg, setsockopt};
use nix::unistd::Pid;

use super::{Server, same_family, udp_sink, udp_socket};
use crate::lab::Host;

/// Packets per system call, so that the kernel's path dominates.
pub(super) const BATCH: usize = 64;

/// Receive buffer of the drain: a tenth of a second at the highest rate.
const DRAIN_BUFFER: usize = 64 << 20;

/// What a stream has done.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Packets the kernel took from us.
    pub sent: u64,
    /// Time from the first to the last.
    pub elapsed: Duration,
}

/// Sends datagrams for this long from a thread bound to one CPU. The path to the far end runs in
/// that same thread: a veth pair hands packets over, it does not queue them.
pub fn udp_stream(
    host: &Host,
    from: SocketAddr,
    to: SocketAddr,
    duration: Duration,
    cpu: usize,
) -> Result<Stream> {
    same_family(from, to)?;
    host.enter(|| {
        pin(cpu)?;
        let socket = udp_socket(from)?;
        socket.connect(to)?;
        let payload = [0; 16];
        let messages = [[IoSlice::new(&payload)]; BATCH];
        let mut headers = MultiHeaders::preallocate(BATCH, None);
        let mut sent = 0;
        let start = Instant::now();
        loop {
            sent += send_batch(&socket, &mut headers, &messages)? as u64;
            let elapsed = start.elapsed();
            if elapsed >= duration {
                return Ok(Stream { sent, elapsed });
            }
        }
    })
}

/// Reads and forgets datagrams so fast that none is dropped at a full socket: the tracepoint for
/// dropped packets would see those, which a router's own packets do not run into. It spins instead
/// of sleeping: waking a reader would cost the sender more than anything that is measured.
pub fn udp_drain(host: &Host, at: SocketAddr, cpu: usize) -> Result<Server> {
    let socket = udp_sink(host, at)?;
    setsockopt(&socket, RcvBufForce, &DRAIN_BUFFER).context("enlarging the receive buffer")?;
    Ok(Server::start(socket.local_addr()?, move |stop| {
        // Without the right CPU the numbers are noisier, nothing else.
        let _ = pin(cpu);
        let mut payloads = [[0u8; 16]; BATCH];
        let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
        while !stop.load(Ordering::Relaxed) {
            let mut slices = payloads.each_mut().map(|payload| [IoSliceMut::new(payload)]);
            let received = recvmmsg(
                socket.as_raw_fd(),
                &mut headers,
                &mut slices,
                MsgFlags::MSG_DONTWAIT,
                None,
            );
            if received.map_or(0, Iterator::count) == 0 {
                thread::yield_now();
            }
        }
    }))
}

/// Binds the calling thread to a CPU.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("binding to CPU {cpu}"))
}

/// Keeps the calling thread, and what it starts from now on, away from a CPU if there is another.
pub fn keep_off(cpu: usize) -> Result<()> {
    let this = Pid::from_raw(0);
    let mut set = sched_getaffinity(this)?;
    set.unset(cpu)?;
    if (0..CpuSet::count()).any(|other| set.is_set(other).unwrap_or(false)) {
        sched_setaffinity(this, &set).with_context(|| format!("leaving CPU {cpu}"))?;
    }
    Ok(())
}

/// Sends a batch from a connected socket and returns how many of its packets the kernel took: at
/// least one. Waits while the kernel is out of buffers, so that no error is hidden.
pub(super) fn send_batch(
    socket: &impl AsRawFd,
    headers: &mut MultiHeaders<()>,
    messages: &[[IoSlice<'_>; 1]],
) -> Result<usize> {
    // No address: as connected.
    let addresses = [None::<()>; BATCH];
    let control: [ControlMessage<'_>; 0] = [];
    loop {
        let fd = socket.as_raw_fd();
        match sendmmsg(fd, headers, messages, addresses, control, MsgFlags::empty()) {
            Ok(taken) => return Ok(taken.count()),
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => thread::yield_now(),
            Err(error) => return Err(error).context("sendmmsg"),
        }
    }
}
