//! Long dumps, received in a thread of their own. The kernel makes a datagram in the call that receives the
//! one before it; so while one processor makes entries, another one can read them.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread;

use super::decode::Entry;
use super::dump::Cursor;
use crate::kernel::netlink::exchange::{Answer, Found};
use crate::kernel::netlink::socket::{Error, RECEIVE_BYTES, Socket};

/// Datagrams under way from one thread to the other.
const DEPTH: usize = 8;

/// A datagram, and where its messages are.
struct Datagram {
    buffer: Vec<u8>,
    messages: Vec<Found>,
}

impl Cursor {
    /// Hands the rest of the entries to `each`, as [`Self::next`] would, while a thread receives what
    /// follows. The datagram last received must have been read in full. An error of `each` ends it; the
    /// answer can be read on then, and so it can if no thread can be had (`false`).
    ///
    /// It takes eight buffers of [`RECEIVE_BYTES`].
    pub fn for_each_ahead<E: From<Error>>(
        &mut self,
        socket: &Socket,
        mut each: impl FnMut(&Entry<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let (answer, request, stats) = self.parts();
        let (full, to_read) = sync_channel(DEPTH);
        let (empty, to_fill) = channel();
        for _ in 0..DEPTH {
            let datagram = Datagram { buffer: vec![0; RECEIVE_BYTES], messages: Vec::new() };
            // The other end is below.
            let _ = empty.send(datagram);
        }
        thread::scope(move |scope| {
            let receive = move || receive(answer, socket, &to_fill, &full);
            let Ok(receiving) = thread::Builder::new().spawn_scoped(scope, receive) else {
                return Ok(false);
            };
            // However this ends, both channels are closed then, and so the thread ends too.
            for mut datagram in to_read {
                for message in datagram.messages.drain(..) {
                    match stats.decode(request, &message.message(&datagram.buffer)) {
                        Ok(Some(entry)) => each(&entry)?,
                        Ok(None) => {}
                        Err(error) => log::debug!("conntrack entry skipped: {error}"),
                    }
                }
                let _ = empty.send(datagram);
            }
            match receiving.join() {
                Ok(received) => Ok(received.map(|()| true)?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// Receives until the answer ends or nobody reads it any more.
fn receive(
    answer: &mut Answer,
    socket: &Socket,
    to_fill: &Receiver<Datagram>,
    full: &SyncSender<Datagram>,
) -> Result<(), Error> {
    for mut datagram in to_fill {
        let received = loop {
            match answer.advance(socket, &mut datagram.buffer) {
                Ok(Some(message)) => datagram.messages.push(message),
                end => break end.map(|_| true),
            }
            if answer.datagram_is_read() {
                break Ok(false);
            }
        };
        // What came before an error counts.
        let read = full.send(datagram);
        if received? || read.is_err() {
            break;
        }
    }
    Ok(())
}
