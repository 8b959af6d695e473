//! Builds netlink requests.

use bytes::{BufMut, Bytes, BytesMut};

use super::wire::{ATTRIBUTE_HEADER, HEADER, align};

/// NLA_F_NESTED: ctnetlink insists on it for attributes that hold others.
const NESTED: u16 = 1 << 15;
/// NLM_F_REQUEST.
pub const REQUEST: u16 = 0x001;
/// NLM_F_ACK: end the answer with an error message, its number 0 on success.
pub const ACK: u16 = 0x004;
/// NLM_F_CREATE: make what is not there.
pub const CREATE: u16 = 0x400;
/// NLM_F_EXCL: fail if it is there.
pub const EXCL: u16 = 0x200;
/// NLM_F_ROOT | NLM_F_MATCH: everything that matches.
pub const DUMP: u16 = 0x300;

/// A request that is being built; [`crate::netlink::Socket`] numbers and sends it.
#[derive(Clone, Debug)]
pub struct Request {
    bytes: BytesMut,
    too_long: bool,
}

impl Request {
    /// A message of type `kind` with NLM_F_REQUEST and `flags`.
    #[must_use]
    pub fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = BytesMut::with_capacity(HEADER);
        // Length, sequence number and port id follow in `finish`.
        bytes.put_u32_ne(0);
        bytes.put_u16_ne(kind);
        bytes.put_u16_ne(flags | REQUEST);
        bytes.resize(HEADER, 0);
        Self { bytes, too_long: false }
    }

    /// A message of netfilter subsystem `subsystem` (NFNL_SUBSYS_): its type and its nfgenmsg.
    #[must_use]
    pub fn netfilter(subsystem: u8, message: u8, flags: u16, family: u8) -> Self {
        Self::new(u16::from_be_bytes([subsystem, message]), flags).raw(&[family, 0, 0, 0])
    }

    /// As [`Self::netfilter`], with `nfgenmsg.version` 1, which makes a flush respect the family.
    #[must_use]
    pub fn netfilter_v1(subsystem: u8, message: u8, flags: u16, family: u8) -> Self {
        Self::new(u16::from_be_bytes([subsystem, message]), flags).raw(&[family, 1, 0, 0])
    }

    /// Appends a protocol header as it is.
    #[must_use]
    pub fn raw(mut self, header: &[u8]) -> Self {
        self.bytes.put_slice(header);
        self.bytes.resize(align(self.bytes.len()), 0);
        self
    }

    /// Appends an attribute.
    #[must_use]
    pub fn attribute(self, kind: u16, payload: &[u8]) -> Self {
        let start = self.bytes.len();
        self.raw(&[0; ATTRIBUTE_HEADER]).raw_unaligned(payload).close(start, kind)
    }

    /// Appends an attribute if it has a value.
    #[must_use]
    pub fn optional<const N: usize>(self, kind: u16, payload: Option<[u8; N]>) -> Self {
        match payload {
            Some(payload) => self.attribute(kind, &payload),
            None => self,
        }
    }

    /// Appends a string with its final NUL.
    #[must_use]
    pub fn text(self, kind: u16, text: &str) -> Self {
        let start = self.bytes.len();
        self.raw(&[0; ATTRIBUTE_HEADER])
            .raw_unaligned(text.as_bytes())
            .raw_unaligned(&[0])
            .close(start, kind)
    }

    /// Appends an attribute that holds what `fill` appends.
    #[must_use]
    pub fn nested(self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        fill(self.raw(&[0; ATTRIBUTE_HEADER])).close(start, kind | NESTED)
    }

    /// The finished bytes. `None` if an attribute or the message is too long for its length field.
    #[must_use]
    pub fn finish(mut self, seq: u32, portid: u32) -> Option<Bytes> {
        let len = u32::try_from(self.bytes.len()).ok().filter(|_| !self.too_long)?;
        for (at, value) in [(0, len), (8, seq), (12, portid)] {
            self.bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        Some(self.bytes.freeze())
    }

    fn raw_unaligned(mut self, payload: &[u8]) -> Self {
        self.bytes.put_slice(payload);
        self
    }

    /// Writes the header of the attribute that began at `start`, and its padding.
    fn close(mut self, start: usize, kind: u16) -> Self {
        let Ok(len) = u16::try_from(self.bytes.len() - start) else {
            self.too_long = true;
            return self;
        };
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        self.raw(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::wire::{Messages, netfilter};

    #[test]
    fn what_is_built_can_be_read_back() {
        let bytes = Request::netfilter(1, 2, DUMP, 10)
            .attribute(5, b"abc")
            .nested(6, |r| r.attribute(1, &[1]).attribute(2, &[2, 2]))
            .finish(77, 88)
            .unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let message = Messages::new(&bytes).next().unwrap().unwrap();
        assert_eq!((message.kind, message.flags), (0x0102, DUMP | REQUEST));
        assert_eq!((message.seq, message.portid), (77, 88));
        let (family, attributes) = netfilter(message.payload).unwrap();
        let attributes: Vec<_> = attributes.map(Result::unwrap).collect();
        assert_eq!(family, 10);
        assert_eq!((attributes[0].kind, attributes[0].payload), (5, &b"abc"[..]));
        let inner: Vec<_> = attributes[1].nested().map(Result::unwrap).collect();
        assert_eq!((inner[0].kind, inner[0].payload), (1, &[1][..]));
        assert_eq!((inner[1].kind, inner[1].payload), (2, &[2, 2][..]));
    }

    #[test]
    fn an_attribute_too_long_for_its_length_field_is_refused() {
        let longest = vec![0; 65535 - ATTRIBUTE_HEADER];
        assert!(Request::new(1, 0).attribute(1, &longest).finish(1, 1).is_some());
        let request = Request::new(1, 0).nested(1, |r| r.attribute(1, &longest));
        assert_eq!(request.finish(1, 1), None);
    }
}
