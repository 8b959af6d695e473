//! One request and its whole answer, in constant memory.

use std::ops::Range;

use nix::errno::Errno;

use super::request::Request;
use super::socket::{Error, Socket};
use super::wire::{Attributes, DecodeError, HEADER, Message, Messages, align};

/// NLMSG_ERROR: the end of an answer; error number 0 acknowledges.
const NLMSG_ERROR: u16 = 2;
/// NLMSG_DONE: the end of a dump.
const NLMSG_DONE: u16 = 3;
/// First message type of a protocol. Lower types (NLMSG_NOOP, say) have no payload.
const NLMSG_MIN_TYPE: u16 = 0x10;
/// NLM_F_DUMP_INTR: the table changed so that the dump may lack entries.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// NLM_F_CAPPED: an error message quotes only the header of the request.
const NLM_F_CAPPED: u16 = 0x100;
/// NLM_F_ACK_TLVS: attributes follow what is quoted.
const NLM_F_ACK_TLVS: u16 = 0x200;
/// NLMSGERR_ATTR_MSG, a string.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Facts about the answer, besides its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Noticed {
    /// Messages of another request, for another port or not from the kernel, which are skipped.
    pub foreign: u64,
    /// Messages that carry NLM_F_DUMP_INTR.
    pub interrupted: u64,
}

/// An answer and how far it was read. Its bytes are in the caller's buffer, which must be the same one in each call.
#[derive(Debug)]
pub struct Answer {
    request: &'static str,
    seq: u32,
    /// Where the next message begins in the buffer, and where the datagram ends.
    next: usize,
    end: usize,
    ended: bool,
    noticed: Noticed,
}

/// Where a message of an answer lies in the buffer.
#[derive(Clone, Debug)]
pub struct Found {
    header: Message<'static>,
    payload: Range<usize>,
}

impl Found {
    /// Of a message that begins at `start`.
    #[must_use]
    pub fn of(message: &Message<'_>, start: usize) -> Self {
        let payload = start + HEADER..start + HEADER + message.payload.len();
        Self { header: Message { payload: &[], ..*message }, payload }
    }

    /// Where the next message begins.
    #[must_use]
    pub fn end(&self) -> usize {
        align(self.payload.end)
    }

    /// The message, in the buffer that it was found in.
    #[must_use]
    pub fn message<'b>(&self, buffer: &'b [u8]) -> Message<'b> {
        Message { payload: buffer.get(self.payload.clone()).unwrap_or_default(), ..self.header }
    }

    /// The bytes of the message and of its header, without padding, in the buffer that it was found in.
    #[cfg(feature = "cli")]
    pub(super) fn bytes<'b>(&self, buffer: &'b [u8]) -> &'b [u8] {
        let whole = self.payload.start.saturating_sub(HEADER)..self.payload.end;
        buffer.get(whole).unwrap_or_default()
    }
}

impl Answer {
    /// Finds the next message of the answer, receiving a datagram into `buffer` where needed; `None`
    /// when the answer has ended. `buffer` should have [`super::socket::RECEIVE_BYTES`].
    ///
    /// EAGAIN of a nonblocking socket changes nothing. A malformed datagram ends the answer, though messages of it
    /// may still arrive.
    pub fn advance(&mut self, socket: &Socket, buffer: &mut [u8]) -> Result<Option<Found>, Error> {
        while !self.ended {
            let unread = buffer.get(self.next..self.end).unwrap_or_default();
            let Some(message) = Messages::new(unread).next() else {
                (self.next, self.end) = (0, 0);
                let strangers = socket.strangers();
                self.end = socket.receive(buffer)?.len();
                self.noticed.foreign += socket.strangers() - strangers;
                continue;
            };
            let message = message.map_err(|source| {
                // The end of the answer may be in the part of the datagram that cannot be parsed.
                self.ended = true;
                Error::Malformed { request: self.request, source }
            })?;
            let found = Found::of(&message, self.next);
            self.next = found.end().min(self.end);
            if message.seq != self.seq || message.portid != socket.portid() {
                self.noticed.foreign += 1;
                continue;
            }
            self.noticed.interrupted += u64::from(message.flags & NLM_F_DUMP_INTR != 0);
            match message.kind {
                NLMSG_ERROR | NLMSG_DONE => {
                    self.ended = true;
                    verdict(self.request, &message)?;
                }
                0..NLMSG_MIN_TYPE => {}
                _ => return Ok(Some(found)),
            }
        }
        Ok(None)
    }

    /// What was noticed so far.
    #[must_use]
    pub fn noticed(&self) -> Noticed {
        self.noticed
    }

    /// Whether the end was read.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Whether the datagram last received has been read in full.
    #[must_use]
    pub fn datagram_is_read(&self) -> bool {
        self.next >= self.end
    }
}

impl Socket {
    /// Sends `request`, whose answer [`Answer::advance`] reads. The request must be a dump or have NLM_F_ACK, because
    /// otherwise the kernel sends no end. `name` names the request in errors.
    ///
    /// A dump that is not read to its end makes the kernel refuse the next one on the same socket
    /// with EBUSY.
    pub fn begin(&mut self, name: &'static str, request: Request) -> Result<Answer, Error> {
        let seq = self.send(name, request)?;
        let noticed = Noticed::default();
        Ok(Answer { request: name, seq, next: 0, end: 0, ended: false, noticed })
    }

    /// Sends `request` and hands each message of its answer to `each`, until the answer ends; see
    /// [`Self::begin`] and [`Answer::advance`].
    ///
    /// After an error, messages of the answer may still arrive. Later requests skip them by their sequence number,
    /// but the kernel refuses another dump: open a new socket for one.
    pub fn ask(
        &mut self,
        name: &'static str,
        request: Request,
        buffer: &mut [u8],
        mut each: impl FnMut(Message<'_>),
    ) -> Result<Noticed, Error> {
        let mut answer = self.begin(name, request)?;
        while let Some(found) = answer.advance(self, buffer)? {
            each(found.message(buffer));
        }
        Ok(answer.noticed())
    }
}

#[cfg(feature = "cli")]
impl Socket {
    /// Sends a dump request and appends the messages of its answer, whole and aligned, to `messages`; `None` once these
    /// would be more than `most` bytes. The socket must have asked for no dump before: one that is not read to its end
    /// blocks the next one.
    pub(super) fn append(
        &mut self,
        name: &'static str,
        request: Request,
        messages: &mut Vec<u8>,
        most: usize,
    ) -> Result<Option<Noticed>, Error> {
        let mut buffer = vec![0; super::socket::RECEIVE_BYTES];
        let mut answer = self.begin(name, request)?;
        while let Some(found) = answer.advance(self, &mut buffer)? {
            let message = found.bytes(&buffer);
            if messages.len() + message.len() > most {
                return Ok(None);
            }
            messages.extend_from_slice(message);
            messages.resize(align(messages.len()), 0);
        }
        Ok(Some(answer.noticed()))
    }
}

/// Reads the end of an answer: `struct nlmsgerr`, or the number alone at the end of a dump.
fn verdict(request: &'static str, message: &Message<'_>) -> Result<(), Error> {
    let Some((number, rest)) = message.payload.split_first_chunk::<4>() else {
        let source = DecodeError::TruncatedHeader { what: "nlmsgerr", have: message.payload.len() };
        return Err(Error::Malformed { request, source });
    };
    let number = i32::from_ne_bytes(*number);
    if number == 0 {
        return Ok(());
    }
    let errno = Errno::from_raw(number.saturating_neg());
    Err(Error::Refused { request, errno, message: explanation(message, rest) })
}

/// The kernel's explanation, if one follows the quoted request.
fn explanation(message: &Message<'_>, rest: &[u8]) -> Option<String> {
    if message.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let attributes = if message.kind == NLMSG_DONE {
        rest
    } else if message.flags & NLM_F_CAPPED != 0 {
        rest.get(HEADER..)?
    } else {
        let quoted = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        rest.get(align(quoted)..)?
    };
    let text = Attributes::new(attributes).flatten().find(|a| a.kind == NLMSGERR_ATTR_MSG)?.text();
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_the_number_and_the_kernel_s_words() {
        // Answer to a dump request whose CTA_MARK has two bytes (Linux 6.18).
        let datagram = include_bytes!("ctnetlink/fixtures/error.bin");
        let message = Messages::new(datagram).next().unwrap().unwrap();
        let error = verdict("conntrack dump", &message).unwrap_err();
        assert_eq!(
            error.to_string(),
            "conntrack dump: ERANGE: Math result not representable (Attribute failed policy validation)"
        );
    }

    #[test]
    fn an_end_without_a_number_is_malformed_and_number_zero_is_success() {
        let end = |kind, payload| Message { kind, flags: 0x200, seq: 1, portid: 1, payload };
        assert!(verdict("x", &end(NLMSG_DONE, &[0; 4])).is_ok());
        assert!(matches!(verdict("x", &end(NLMSG_ERROR, &[0; 3])), Err(Error::Malformed { .. })));
        let min = i32::MIN.to_ne_bytes();
        assert!(matches!(
            verdict("x", &end(NLMSG_ERROR, &min)),
            Err(Error::Refused { message: None, .. })
        ));
    }
}
