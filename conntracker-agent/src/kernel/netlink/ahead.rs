//! Datagrams received ahead of their reader.
//!
//! The kernel makes a dump within recv(2), a datagram at a time. With a thread that does nothing but
//! receive, it makes the next ones while what came is looked at: two CPUs then have half the work each.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::exchange::Answer;
use super::socket::{Error, RECEIVE_BYTES, Socket};

/// Datagrams that wait at most: 256 KiB of memory.
const DATAGRAMS: usize = 4;

/// Where datagrams come from.
pub trait Datagrams {
    /// Port id of the socket that they are sent to.
    fn portid(&self) -> u32;

    /// Puts the next one into `buffer`; its length.
    fn receive_into(&self, buffer: &mut [u8]) -> Result<usize, Error>;
}

impl Datagrams for Socket {
    fn portid(&self) -> u32 {
        self.portid()
    }

    fn receive_into(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.receive(buffer).map(<[u8]>::len)
    }
}

/// Datagrams that a thread has received.
struct Ahead {
    portid: u32,
    full: Receiver<Result<Vec<u8>, Error>>,
    empty: SyncSender<Vec<u8>>,
}

impl Datagrams for Ahead {
    fn portid(&self) -> u32 {
        self.portid
    }

    fn receive_into(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        let gone = |_| Error::System {
            call: "receiving ahead",
            source: std::io::ErrorKind::UnexpectedEof.into(),
        };
        let datagram = self.full.recv().map_err(gone)??;
        let (have, want) = (datagram.len(), buffer.len());
        let place = buffer.get_mut(..have).ok_or(Error::Truncated { have, want })?;
        place.copy_from_slice(&datagram);
        // The thread may have ended already.
        let _ = self.empty.send(datagram);
        Ok(have)
    }
}

/// Lets `read` read the answer to request `seq` from a source that a thread receives for. If `read` does not read to its
/// end, some of it is lost: the socket is good for nothing else then.
pub fn ahead<T>(socket: &Socket, seq: u32, read: impl FnOnce(&dyn Datagrams) -> T) -> T {
    let alone = thread::available_parallelism().is_ok_and(|cpus| cpus.get() == 1);
    if alone {
        return read(socket);
    }
    let (full_sender, full) = sync_channel(DATAGRAMS);
    let (empty, empty_receiver) = sync_channel(DATAGRAMS + 1);
    let source = Ahead { portid: socket.portid(), full, empty };
    let portid = socket.portid();
    thread::scope(|scope| {
        let receiver = thread::Builder::new().name("receive".to_owned());
        let receive = move || receive(socket, seq, portid, &full_sender, &empty_receiver);
        match receiver.spawn_scoped(scope, receive) {
            Ok(_) => {
                let done = read(&source);
                // Nobody waits for the thread's datagrams any more: it ends with the next one.
                drop(source);
                done
            }
            Err(error) => {
                log::debug!("receiving without a thread: {error}");
                read(socket)
            }
        }
    })
}

/// Receives until the answer ends, or nobody reads it any more.
fn receive(
    socket: &Socket,
    seq: u32,
    portid: u32,
    full: &SyncSender<Result<Vec<u8>, Error>>,
    empty: &Receiver<Vec<u8>>,
) {
    loop {
        let mut buffer = empty.try_recv().unwrap_or_default();
        buffer.resize(RECEIVE_BYTES, 0);
        let received = socket.receive_into(&mut buffer).map(|len| {
            buffer.truncate(len);
            buffer
        });
        let last = match &received {
            Ok(datagram) => Answer::ends_in(datagram, seq, portid),
            Err(_) => true,
        };
        if full.send(received).is_err() || last {
            return;
        }
    }
}
