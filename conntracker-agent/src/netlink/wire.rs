//! Netlink framing over bytes that stay where they were received: messages (`struct nlmsghdr` of
//! include/uapi/linux/netlink.h) and their attributes (`struct nlattr`).
//!
//! Headers are in host byte order; the protocol decides about payloads (netfilter: network byte order). Every
//! sequence of bytes is read to an end without a panic: an impossible length is an error, after which the iterator
//! ends, because the start of the next item is unknown.

/// Bytes of `struct nlmsghdr`.
pub const HEADER: usize = 16;
/// Bytes of `struct nlattr`.
pub const ATTRIBUTE_HEADER: usize = 4;
/// Bytes of `struct nfgenmsg`, which starts the payload of every netfilter message.
pub const NFGENMSG: usize = 4;
/// Bits of an attribute's type that are not NLA_F_NESTED or NLA_F_NET_BYTEORDER.
const TYPE_MASK: u16 = 0x3fff;

/// Why bytes cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The remaining bytes are too few for a header.
    #[error("{what} header truncated to {have} bytes")]
    TruncatedHeader {
        /// What the header belongs to.
        what: &'static str,
        /// Bytes there are.
        have: usize,
    },
    /// The length field is smaller than the header itself.
    #[error("{what} length {len} is less than its header")]
    LengthTooSmall {
        /// What the length belongs to.
        what: &'static str,
        /// Value of the length field.
        len: usize,
    },
    /// The length field points behind the end of the bytes.
    #[error("{what} length {len} exceeds the {have} bytes left")]
    LengthTooLarge {
        /// What the length belongs to.
        what: &'static str,
        /// Value of the length field.
        len: usize,
        /// Bytes there are.
        have: usize,
    },
    /// An attribute's payload is not of the size of its type.
    #[error("attribute {attribute} has {have} bytes, want {want}")]
    Size {
        /// Name of the attribute in the kernel's headers.
        attribute: &'static str,
        /// Bytes there are.
        have: usize,
        /// Bytes of its type.
        want: usize,
    },
    /// The message lacks a required attribute.
    #[error("attribute {0} is missing")]
    Missing(&'static str),
    /// Neither AF_INET nor AF_INET6.
    #[error("unknown layer 3 family {0}")]
    UnknownFamily(u8),
    /// Addresses of a message are not all of the family in its header.
    #[error("addresses are not of family {0}")]
    MixedFamilies(u8),
    /// Not a message that was expected here.
    #[error("unexpected message type {0:#06x}")]
    UnexpectedMessage(u16),
}

/// One netlink message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`, NLM_F_ bits.
    pub flags: u16,
    /// `nlmsg_seq`: that of the request this answers; 0 in notifications.
    pub seq: u32,
    /// `nlmsg_pid`: port the answer is for; in notifications the port of the process that caused
    /// it, 0 for the kernel.
    pub portid: u32,
    /// What follows the header, padding excluded.
    pub payload: &'a [u8],
}

/// The messages of a datagram.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// Messages of `datagram`.
    #[must_use]
    pub fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        const WHAT: &str = "message";
        let bytes = std::mem::take(&mut self.rest);
        if bytes.is_empty() {
            return None;
        }
        let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else {
            return Some(Err(DecodeError::TruncatedHeader { what: WHAT, have: bytes.len() }));
        };
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3] = *header;
        let len = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let payload = match body(WHAT, bytes, len, HEADER) {
            Ok(payload) => payload,
            Err(error) => return Some(Err(error)),
        };
        self.rest = bytes.get(align(len)..).unwrap_or_default();
        Some(Ok(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            seq: u32::from_ne_bytes([s0, s1, s2, s3]),
            portid: u32::from_ne_bytes([p0, p1, p2, p3]),
            payload,
        }))
    }
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attribute<'a> {
    /// `nla_type` without its two flag bits: old kernels do not set them.
    pub kind: u16,
    /// What follows the header, padding excluded.
    pub payload: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The payload as an array. `name` is the attribute's, for the error.
    pub fn array<const N: usize>(&self, name: &'static str) -> Result<[u8; N], DecodeError> {
        let error = DecodeError::Size { attribute: name, have: self.payload.len(), want: N };
        self.payload.try_into().map_err(|_| error)
    }

    /// A byte.
    pub fn u8(&self, name: &'static str) -> Result<u8, DecodeError> {
        self.array(name).map(u8::from_be_bytes)
    }

    /// A number in network byte order.
    pub fn be16(&self, name: &'static str) -> Result<u16, DecodeError> {
        self.array(name).map(u16::from_be_bytes)
    }

    /// A number in network byte order.
    pub fn be32(&self, name: &'static str) -> Result<u32, DecodeError> {
        self.array(name).map(u32::from_be_bytes)
    }

    /// A number in network byte order.
    pub fn be64(&self, name: &'static str) -> Result<u64, DecodeError> {
        self.array(name).map(u64::from_be_bytes)
    }

    /// A string, which the kernel ends with NUL: the bytes before the first one.
    #[must_use]
    pub fn text(&self) -> &'a [u8] {
        self.payload.split(|&b| b == 0).next().unwrap_or_default()
    }

    /// The attributes inside.
    #[must_use]
    pub fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.payload)
    }
}

/// The attributes of a message or of a nesting attribute.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Attributes in `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        const WHAT: &str = "attribute";
        let bytes = std::mem::take(&mut self.rest);
        if bytes.is_empty() {
            return None;
        }
        let Some((&[l0, l1, k0, k1], _)) = bytes.split_first_chunk::<ATTRIBUTE_HEADER>() else {
            return Some(Err(DecodeError::TruncatedHeader { what: WHAT, have: bytes.len() }));
        };
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let payload = match body(WHAT, bytes, len, ATTRIBUTE_HEADER) {
            Ok(payload) => payload,
            Err(error) => return Some(Err(error)),
        };
        self.rest = bytes.get(align(len)..).unwrap_or_default();
        Some(Ok(Attribute { kind: u16::from_ne_bytes([k0, k1]) & TYPE_MASK, payload }))
    }
}

/// Family and attributes of a netfilter message.
pub fn netfilter(payload: &[u8]) -> Result<(u8, Attributes<'_>), DecodeError> {
    let truncated = DecodeError::TruncatedHeader { what: "nfgenmsg", have: payload.len() };
    let (&[family, _version, _id0, _id1], rest) =
        payload.split_first_chunk::<NFGENMSG>().ok_or(truncated)?;
    Ok((family, Attributes::new(rest)))
}

/// `nfgenmsg.res_id` of a netfilter message: the CPU that statistics are of.
pub fn resource(payload: &[u8]) -> Result<u16, DecodeError> {
    let truncated = DecodeError::TruncatedHeader { what: "nfgenmsg", have: payload.len() };
    let &[_, _, id0, id1] = payload.first_chunk::<NFGENMSG>().ok_or(truncated)?;
    Ok(u16::from_be_bytes([id0, id1]))
}

/// The next multiple of four (NLMSG_ALIGN, NLA_ALIGN): where the next item begins.
#[must_use]
pub const fn align(len: usize) -> usize {
    len.saturating_add(3) & !3
}

/// The bytes between the header of an item and its end.
fn body<'a>(
    what: &'static str,
    bytes: &'a [u8],
    len: usize,
    header: usize,
) -> Result<&'a [u8], DecodeError> {
    if len < header {
        return Err(DecodeError::LengthTooSmall { what, len });
    }
    let error = DecodeError::LengthTooLarge { what, len, have: bytes.len() };
    bytes.get(header..len).ok_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(len: u32) -> Vec<u8> {
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend([1, 1, 2, 0, 7, 0, 0, 0, 9, 0, 0, 0]);
        bytes
    }

    #[test]
    fn lengths_that_cannot_be_are_named_and_end_the_iteration() {
        let cases = [
            (vec![0; 15], DecodeError::TruncatedHeader { what: "message", have: 15 }),
            (header(15), DecodeError::LengthTooSmall { what: "message", len: 15 }),
            (header(0), DecodeError::LengthTooSmall { what: "message", len: 0 }),
            (header(17), DecodeError::LengthTooLarge { what: "message", len: 17, have: 16 }),
            (
                header(u32::MAX),
                DecodeError::LengthTooLarge { what: "message", len: 0xffff_ffff, have: 16 },
            ),
        ];
        for (bytes, error) in cases {
            let mut messages = Messages::new(&bytes);
            assert_eq!(messages.next(), Some(Err(error)));
            assert_eq!(messages.next(), None);
        }
    }

    #[test]
    fn the_last_message_may_lack_its_padding() {
        let mut bytes = header(18);
        bytes.extend([5, 6]);
        let message = Messages::new(&bytes).next().unwrap().unwrap();
        assert_eq!(message.payload, [5, 6]);
        bytes.extend([0, 0]);
        bytes.extend(header(16));
        assert_eq!(Messages::new(&bytes).flatten().count(), 2);
    }

    #[test]
    fn attributes_drop_flag_bits_and_check_sizes() {
        let mut bytes = 6u16.to_ne_bytes().to_vec();
        bytes.extend(0xc003u16.to_ne_bytes());
        bytes.extend([1, 2, 0, 0]);
        bytes.extend([3, 0]);
        let mut attributes = Attributes::new(&bytes);
        let first = attributes.next().unwrap().unwrap();
        assert_eq!((first.kind, first.be16("X")), (3, Ok(0x0102)));
        assert_eq!(first.be32("X").unwrap_err().to_string(), "attribute X has 2 bytes, want 4");
        assert_eq!(
            attributes.next(),
            Some(Err(DecodeError::TruncatedHeader { what: "attribute", have: 2 }))
        );
        assert_eq!(attributes.next(), None);
    }

    #[test]
    fn text_ends_at_the_first_nul() {
        let text = |payload| Attribute { kind: 1, payload }.text();
        assert_eq!(text(b"ftp\0"), b"ftp");
        assert_eq!(text(b"ftp"), b"ftp");
        assert_eq!(text(b""), b"");
    }
}
