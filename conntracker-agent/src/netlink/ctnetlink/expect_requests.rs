//! Requests about expectations.

use super::encode;
use super::expect::{ExpectKey, ExpectRequest, Expectation, NewExpectation};
use super::uapi::{
    CTA_EXPECT_CLASS, CTA_EXPECT_FLAGS, CTA_EXPECT_FN, CTA_EXPECT_HELP_NAME, CTA_EXPECT_ID,
    CTA_EXPECT_MASK, CTA_EXPECT_MASTER, CTA_EXPECT_NAT, CTA_EXPECT_NAT_DIR, CTA_EXPECT_NAT_TUPLE,
    CTA_EXPECT_TIMEOUT, CTA_EXPECT_TUPLE, CTA_EXPECT_ZONE, IPCTNL_MSG_EXP_DELETE,
    IPCTNL_MSG_EXP_GET, IPCTNL_MSG_EXP_NEW, NFNL_SUBSYS_CTNETLINK_EXP,
};
use crate::model::Zone;
use crate::netlink::exchange::Answer;
use crate::netlink::request::{ACK, CREATE, DUMP, EXCL, Request};
use crate::netlink::socket::{Error, Socket};
use crate::netlink::wire::{DecodeError, Message};

/// Asks for a list of expectations, whose messages [`decode`] reads.
pub fn list(socket: &mut Socket, request: &ExpectRequest) -> Result<Answer, Error> {
    let family = match request.master {
        Some((master, _)) => encode::family(master.src),
        None => request.family.unwrap_or_default(),
    };
    // For a master without a helper the kernel begins no dump, and the acknowledgement is the end of the answer.
    let mut message = message(IPCTNL_MSG_EXP_GET, DUMP | ACK, family);
    if let Some((master, zone)) = request.master {
        message = in_zone(encode::tuple(message, CTA_EXPECT_MASTER, &master, None), zone);
    }
    socket.begin("expectation dump", message)
}

/// Asks for an expectation; ENOENT if there is none, or if it has another identifier.
pub fn get(socket: &mut Socket, key: &ExpectKey) -> Result<Answer, Error> {
    socket.begin("expectation get", of_key(IPCTNL_MSG_EXP_GET, key))
}

/// Decodes a message of an answer.
pub fn decode<'a>(message: &Message<'a>) -> Result<Expectation<'a>, DecodeError> {
    if message.kind == message_type(IPCTNL_MSG_EXP_NEW) {
        Expectation::decode(message.payload)
    } else {
        Err(DecodeError::UnexpectedMessage(message.kind))
    }
}

/// Makes an expectation. If it exists, its timeout is changed, or with `exclusive` the kernel answers EEXIST.
pub fn create(
    socket: &mut Socket,
    buffer: &mut [u8],
    expectation: &NewExpectation,
    exclusive: bool,
) -> Result<(), Error> {
    let flags = if exclusive { CREATE | EXCL } else { CREATE };
    let request = message(IPCTNL_MSG_EXP_NEW, ACK | flags, encode::family(expectation.tuple.src));
    let request = encode_new(request, expectation);
    socket.ask("expectation create", request, buffer, |_| {}).map(|_| ())
}

/// Removes an expectation; ENOENT if there is none, or if it has another identifier.
pub fn delete(socket: &mut Socket, buffer: &mut [u8], key: &ExpectKey) -> Result<(), Error> {
    let request = of_key(IPCTNL_MSG_EXP_DELETE, key);
    socket.ask("expectation delete", request, buffer, |_| {}).map(|_| ())
}

/// Removes all expectations, or those of flows with this helper.
pub fn flush(socket: &mut Socket, buffer: &mut [u8], helper: Option<&str>) -> Result<(), Error> {
    let request = message(IPCTNL_MSG_EXP_DELETE, ACK, 0);
    let request = match helper {
        Some(helper) => request.text(CTA_EXPECT_HELP_NAME, helper),
        None => request,
    };
    socket.ask("expectation flush", request, buffer, |_| {}).map(|_| ())
}

/// A new expectation.
pub(super) fn encode_new(request: Request, expectation: &NewExpectation) -> Request {
    let NewExpectation { master, zone, tuple, mask, timeout, flags, class, helper, function, nat } =
        expectation;
    let mut request = encode::tuple(request, CTA_EXPECT_MASTER, master, None);
    request = encode::tuple(request, CTA_EXPECT_TUPLE, tuple, None);
    request = in_zone(encode::tuple(request, CTA_EXPECT_MASK, mask, None), *zone)
        .optional(CTA_EXPECT_TIMEOUT, timeout.map(u32::to_be_bytes))
        .attribute(CTA_EXPECT_FLAGS, &flags.to_be_bytes())
        .optional(CTA_EXPECT_CLASS, class.map(u32::to_be_bytes));
    for (kind, text) in [(CTA_EXPECT_HELP_NAME, helper), (CTA_EXPECT_FN, function)] {
        if let Some(text) = text {
            request = request.text(kind, text);
        }
    }
    match nat {
        Some(nat) => request.nested(CTA_EXPECT_NAT, |r| {
            let r = r.attribute(CTA_EXPECT_NAT_DIR, &nat.dir.to_be_bytes());
            encode::tuple(r, CTA_EXPECT_NAT_TUPLE, &nat.tuple, None)
        }),
        None => request,
    }
}

/// Type of a message about expectations.
pub(super) const fn message_type(message: u8) -> u16 {
    u16::from_be_bytes([NFNL_SUBSYS_CTNETLINK_EXP, message])
}

fn message(message: u8, flags: u16, family: u8) -> Request {
    Request::netfilter(NFNL_SUBSYS_CTNETLINK_EXP, message, flags, family)
}

fn of_key(kind: u8, key: &ExpectKey) -> Request {
    let request = message(kind, ACK, encode::family(key.tuple.src));
    let request = encode::tuple(request, CTA_EXPECT_TUPLE, &key.tuple, None);
    in_zone(request, key.zone).optional(CTA_EXPECT_ID, key.id.map(u32::to_be_bytes))
}

fn in_zone(request: Request, zone: Zone) -> Request {
    request.optional(
        CTA_EXPECT_ZONE,
        Some(zone).filter(|&zone| zone != Zone::DEFAULT).map(Zone::to_be_bytes),
    )
}
