//! Fields of packets that conditions are about. A field is a function of the packet that gives the same value wherever
//! a chain reads it, as long as no rule in between writes it; then it is another field, with a higher version.

use std::collections::HashMap;

use super::values::Values;
use crate::{
    model::table::Family,
    netlink::nftables::{
        expression::Slice,
        key::{base, ct, meta},
    },
};

/// Bytes of the header of IPv4 without options: every packet has so many.
const V4_HEADER: u32 = 20;

/// The bits that `ct state` may be (`NF_CT_STATE_BIT`): invalid, established, related, new, untracked.
const STATES: [u128; 5] = [1, 2, 4, 8, 64];

/// What a field is loaded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// Bytes of a header, in network byte order: base, offset, length.
    Header(u32, u32, u32),
    /// Metadata (`enum nft_meta_keys`).
    Meta(u32),
    /// The conntrack entry (`enum nft_ct_keys`), of one direction where that matters.
    Ct(u32, Option<u8>),
    /// 1 of a fragment that is not the first one, else 0.
    LaterFragment,
}

impl Source {
    /// The address of one side in IPv4 or IPv6.
    #[must_use]
    pub const fn address(destination: bool, v6: bool) -> Self {
        let (first, length) = if v6 { (8, 16) } else { (12, 4) };
        Self::Header(base::NETWORK_HEADER, first + length * destination as u32, length)
    }

    /// The port of one side.
    #[must_use]
    pub const fn port(destination: bool) -> Self {
        Self::Header(base::TRANSPORT_HEADER, 2 * destination as u32, 2)
    }

    /// A byte of the header above IP.
    #[must_use]
    pub const fn transport(offset: u32) -> Self {
        Self::Header(base::TRANSPORT_HEADER, offset, 1)
    }

    /// Bytes of a header.
    #[must_use]
    pub fn header(slice: Slice) -> Self {
        Self::Header(slice.base, slice.offset, slice.len)
    }

    /// Its length in bytes, and whether registers have it in host byte order; `None` of what changes by itself, what
    /// is not of the packet, and what is longer than 16 bytes.
    #[must_use]
    pub fn layout(self) -> Option<(usize, bool)> {
        Some(match self {
            Self::Header(base::INNER_HEADER, ..) | Self::Header(_, _, 0 | 17..) => return None,
            Self::Header(_, _, length) => (length as usize, false),
            Self::LaterFragment => (1, false),
            Self::Meta(key) => match key {
                meta::LEN | meta::PRIORITY | meta::MARK | meta::IIF | meta::OIF => (4, true),
                meta::IIFGROUP | meta::OIFGROUP => (4, true),
                meta::IIFTYPE | meta::OIFTYPE => (2, true),
                meta::PROTOCOL => (2, false),
                meta::IIFNAME | meta::OIFNAME => (16, false),
                meta::NFPROTO | meta::L4PROTO | meta::PKTTYPE => (1, false),
                _ => return None,
            },
            // Other packets of the flow change marks, labels, status and counters at any time.
            Self::Ct(key, _) => match key {
                ct::STATE => (4, true),
                ct::ZONE => (2, true),
                ct::DIRECTION | ct::L3PROTOCOL | ct::PROTOCOL => (1, false),
                ct::PROTO_SRC | ct::PROTO_DST => (2, false),
                ct::SRC_IP | ct::DST_IP => (4, false),
                ct::SRC_IP6 | ct::DST_IP6 => (16, false),
                _ => return None,
            },
        })
    }

    /// What must be written so that it changes.
    fn written_by(self) -> Option<Written> {
        match self {
            Self::Header(base::LL_HEADER, ..) => Some(Written::LinkHeader),
            Self::Header(base::NETWORK_HEADER, ..) => Some(Written::NetworkHeader),
            Self::Header(..) => Some(Written::TransportHeader),
            Self::Meta(meta::MARK) => Some(Written::Mark),
            Self::Meta(meta::PRIORITY) => Some(Written::Priority),
            Self::Meta(meta::PKTTYPE) => Some(Written::PacketType),
            Self::Ct(..) => Some(Written::Conntrack),
            Self::Meta(_) | Self::LaterFragment => None,
        }
    }
}

/// What rules write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    LinkHeader,
    NetworkHeader,
    TransportHeader,
    Mark,
    Priority,
    PacketType,
    Conntrack,
}

/// Kinds of [`Written`].
const KINDS: usize = Written::Conntrack as usize + 1;

/// What a rule or a chain may write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writes(u8);

impl Writes {
    /// Anything.
    pub const ALL: Self = Self(u8::MAX);

    /// This as well.
    pub fn add(&mut self, written: Written) {
        self.0 |= 1 << written as u8;
    }

    /// Those as well.
    pub fn join(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// What is done to a value after it was loaded and before it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transform {
    /// Its bytes in the opposite order.
    Swap,
    /// `(value & mask) ^ xor`.
    Mask(u128, u128),
}

/// A field, or what is computed of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Field {
    /// What it is loaded from.
    pub source: Source,
    /// What is done to it, in order.
    pub transforms: Vec<Transform>,
    version: u32,
}

impl Field {
    /// The same of another source, which is written by the same.
    #[must_use]
    pub fn of(&self, source: Source) -> Self {
        Self { source, ..self.clone() }
    }

    /// Whether a rule of the chain may have written it before it is read.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.version > 0
    }

    /// Bits of the value.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.source.layout().map_or(128, |(bytes, _)| bytes as u32 * 8)
    }
}

/// The highest value of so many bits.
#[must_use]
pub fn highest(bits: u32) -> u128 {
    1_u128.checked_shl(bits).map_or(u128::MAX, |end| end - 1)
}

/// A field by its number in [`Fields`].
pub type FieldNumber = u32;

/// The fields that the rules of a table read.
#[derive(Debug)]
pub struct Fields {
    family: Family,
    fields: Vec<(Field, Values)>,
    numbers: HashMap<Field, FieldNumber>,
    versions: [u32; KINDS],
}

impl Fields {
    /// None yet.
    #[must_use]
    pub fn new(family: Family) -> Self {
        let (fields, numbers) = (Vec::new(), HashMap::new());
        Self { family, fields, numbers, versions: [0; KINDS] }
    }

    /// The family of the table.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// A chain begins: nothing is written yet.
    pub fn begin_chain(&mut self) {
        self.versions = [0; KINDS];
    }

    /// Something is written: what is read from now on are other fields.
    pub fn write(&mut self, writes: Writes) {
        for (kind, version) in self.versions.iter_mut().enumerate() {
            *version += u32::from(writes.0 & 1 << kind != 0);
        }
    }

    /// What is loaded now from a source.
    #[must_use]
    pub fn load(&self, source: Source) -> Field {
        let version = source.written_by().map_or(0, |kind| self.versions[kind as usize]);
        Field { source, transforms: Vec::new(), version }
    }

    /// The number of a field.
    pub fn number(&mut self, field: Field) -> FieldNumber {
        if let Some(number) = self.numbers.get(&field) {
            return *number;
        }
        let number = self.fields.len() as FieldNumber;
        self.fields.push((field.clone(), self.all_of(&field)));
        self.numbers.insert(field, number);
        number
    }

    /// A field by its number.
    #[must_use]
    pub fn field(&self, number: FieldNumber) -> &Field {
        &self.fields[number as usize].0
    }

    /// All values that a field may have.
    #[must_use]
    pub fn all(&self, number: FieldNumber) -> &Values {
        &self.fields[number as usize].1
    }

    fn all_of(&self, field: &Field) -> Values {
        if field.transforms.is_empty()
            && let Some(values) = self.few(field.source)
        {
            return values;
        }
        let all = Values::range(0, highest(field.bits()));
        match field.source {
            Source::Header(base::NETWORK_HEADER, offset, length)
                if offset.saturating_add(length) <= V4_HEADER && self.is_of_ip() =>
            {
                all
            }
            Source::Meta(meta::MARK) => all,
            _ => all.or_absent(),
        }
    }

    /// All values of a field that has few.
    #[must_use]
    pub fn few(&self, source: Source) -> Option<Values> {
        Some(match (source, self.family) {
            (Source::Meta(meta::NFPROTO), Family::Ip) => Values::one(2),
            (Source::Meta(meta::NFPROTO), Family::Ip6) => Values::one(10),
            (Source::Meta(meta::NFPROTO), Family::Inet) => Values::of(vec![(2, 2), (10, 10)]),
            (Source::Meta(meta::PROTOCOL), Family::Inet) => {
                Values::of(vec![(0x0800, 0x0800), (0x86dd, 0x86dd)])
            }
            (Source::Ct(ct::STATE, _), _) => Values::of(STATES.map(|bit| (bit, bit)).to_vec()),
            (Source::LaterFragment, _) => Values::range(0, 1),
            _ => return None,
        })
    }

    /// Whether all packets are of IP.
    fn is_of_ip(&self) -> bool {
        matches!(self.family, Family::Ip | Family::Ip6 | Family::Inet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_behind_a_write_is_another_field() {
        let mut fields = Fields::new(Family::Inet);
        let [mark, port] = [Source::Meta(meta::MARK), Source::port(true)];
        let before = [mark, port].map(|source| fields.load(source));
        let mut writes = Writes::default();
        writes.add(Written::Mark);
        fields.write(writes);
        assert_ne!(fields.load(mark), before[0]);
        assert_eq!(fields.load(port), before[1]);
        fields.begin_chain();
        assert_eq!(fields.load(mark), before[0]);
    }

    #[test]
    fn only_what_every_packet_has_cannot_be_missing() {
        let mut fields = Fields::new(Family::Inet);
        let mut lacks = |source| {
            let field = fields.load(source);
            let number = fields.number(field);
            fields.all(number).has_absent()
        };
        assert!(!lacks(Source::address(false, false)) && !lacks(Source::Meta(meta::NFPROTO)));
        assert!(lacks(Source::address(true, true)) && lacks(Source::port(true)));
    }
}
