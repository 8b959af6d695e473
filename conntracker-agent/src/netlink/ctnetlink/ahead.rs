//! Long dumps, received by a thread of their own. The kernel fills a datagram within the call that receives the one
//! before it, so one processor can encode entries while another decodes them.

use super::decode::Entry;
use super::dump::Cursor;
use crate::netlink::exchange::{Answer, Found};
use crate::netlink::socket::{Error, RECEIVE_BYTES, Socket};
use crate::os::ahead::ahead;

/// Datagrams under way from one thread to the other.
const DEPTH: usize = 8;

/// A datagram, and where its messages are.
struct Datagram {
    buffer: Vec<u8>,
    messages: Vec<Found>,
}

impl Cursor {
    /// Hands the remaining entries to `each`, as [`Self::next`] would, while a thread receives the datagrams that
    /// follow. The last datagram must have been read in full. An error of `each` ends the call, and the answer can be
    /// read on; so it can where the kernel refuses a thread (`false`).
    ///
    /// It takes eight buffers of [`RECEIVE_BYTES`].
    pub fn for_each_ahead<E: From<Error>>(
        &mut self,
        socket: &Socket,
        mut each: impl FnMut(&Entry<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let (answer, request, stats) = self.parts();
        let datagrams = (0..DEPTH)
            .map(|_| Datagram { buffer: vec![0; RECEIVE_BYTES], messages: Vec::new() })
            .collect();
        let read = |datagram: &mut Datagram| {
            for message in datagram.messages.drain(..) {
                match stats.decode(request, &message.message(&datagram.buffer)) {
                    Ok(Some(entry)) => each(&entry)?,
                    Ok(None) => {}
                    Err(error) => log::debug!("conntrack entry skipped: {error}"),
                }
            }
            Ok(())
        };
        match ahead(datagrams, |datagram| receive(answer, socket, datagram), read) {
            Ok(received) => received.map(|()| true),
            Err(_) => Ok(false),
        }
    }
}

/// Receives a datagram; false if the answer ends with it.
fn receive(answer: &mut Answer, socket: &Socket, datagram: &mut Datagram) -> Result<bool, Error> {
    loop {
        match answer.advance(socket, &mut datagram.buffer)? {
            Some(message) => datagram.messages.push(message),
            None => return Ok(false),
        }
        if answer.datagram_is_read() {
            return Ok(true);
        }
    }
}
