//! One request and its whole answer, in constant memory.

use nix::errno::Errno;

use super::request::Request;
use super::socket::{Error, Socket};
use super::wire::{Attributes, DecodeError, HEADER, Message, Messages, align};

/// NLMSG_ERROR: the end of an answer; error number 0 acknowledges.
const NLMSG_ERROR: u16 = 2;
/// NLMSG_DONE: the end of a dump.
const NLMSG_DONE: u16 = 3;
/// First type that belongs to a protocol; those below, NLMSG_NOOP say, carry nothing.
const NLMSG_MIN_TYPE: u16 = 0x10;
/// NLM_F_DUMP_INTR: the table changed so that the dump may lack entries.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// NLM_F_CAPPED: an error message quotes only the header of the request.
const NLM_F_CAPPED: u16 = 0x100;
/// NLM_F_ACK_TLVS: attributes follow what is quoted.
const NLM_F_ACK_TLVS: u16 = 0x200;
/// NLMSGERR_ATTR_MSG, a string.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// What was noticed besides the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noticed {
    /// Messages of another request or for another port, skipped.
    pub foreign: u64,
    /// Messages that carry NLM_F_DUMP_INTR.
    pub interrupted: u64,
}

impl Socket {
    /// Sends `request` and hands each message of its answer to `each`, until the answer ends. The
    /// request must be a dump or have NLM_F_ACK, for otherwise no end is sent. `name` says what is
    /// asked for, in errors; `buffer` should have [`super::socket::RECEIVE_BYTES`].
    ///
    /// After an error messages of the answer may still be on their way: later requests skip them
    /// by their number, but a dump that was not read to its end makes the kernel refuse the next
    /// one with EBUSY. Open a new socket then.
    pub fn ask(
        &mut self,
        name: &'static str,
        request: Request,
        buffer: &mut [u8],
        mut each: impl FnMut(Message<'_>),
    ) -> Result<Noticed, Error> {
        let seq = self.send(name, request)?;
        let mut noticed = Noticed::default();
        loop {
            for message in Messages::new(self.receive(buffer)?) {
                // The end of the answer may be among what can no longer be told apart.
                let message =
                    message.map_err(|source| Error::Malformed { request: name, source })?;
                if message.seq != seq || message.portid != self.portid() {
                    noticed.foreign += 1;
                    continue;
                }
                noticed.interrupted += u64::from(message.flags & NLM_F_DUMP_INTR != 0);
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => return verdict(name, &message).map(|()| noticed),
                    0..NLMSG_MIN_TYPE => {}
                    _ => each(message),
                }
            }
        }
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
