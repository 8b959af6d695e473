//! Bytes of addresses and ports in the registers of a rule.

use crate::netlink::nftables::expression::{REGISTER_BYTES, Register, Slice};
use crate::netlink::nftables::key::base;

/// What classes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    V4,
    V6,
    Port,
}

impl Field {
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Port];

    pub fn bits(self) -> u32 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
            Self::Port => 16,
        }
    }

    fn bytes(self) -> usize {
        self.bits() as usize / 8
    }
}

/// A byte of a field: which one of it, and how many of the field's first bits are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    field: Field,
    index: usize,
    kept: u32,
}

/// A part of a register's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Bytes that are of no field.
    Other,
    /// The first bytes of a field, from an offset of the register's on.
    Begin { field: Field, at: usize, len: usize, kept: u32 },
    /// Other bytes of it.
    Within(Field),
}

/// What registers hold.
#[derive(Clone)]
pub(super) struct Holding([Option<Held>; REGISTER_BYTES]);

impl Holding {
    pub fn new() -> Self {
        Self([None; REGISTER_BYTES])
    }

    /// Something else is stored there.
    pub fn clear(&mut self, to: Register, len: usize) {
        for byte in self.0.iter_mut().skip(to.offset()).take(len.next_multiple_of(4)) {
            *byte = None;
        }
    }

    /// Bytes of the packet are loaded, in rules that packets of IPv4 or IPv6 alone meet. Returns the fields that they
    /// may be of where that cannot be told.
    pub fn load(&mut self, slice: Slice, to: Register, v6: Option<bool>) -> Vec<Field> {
        self.clear(to, slice.len as usize);
        let (offset, len) = (slice.offset as usize, slice.len as usize);
        // Where fields begin.
        let (field, begins): (_, [usize; 2]) = match (slice.base, v6) {
            (base::TRANSPORT_HEADER, _) => (Field::Port, [0, 2]),
            (base::NETWORK_HEADER, Some(false)) => (Field::V4, [12, 16]),
            (base::NETWORK_HEADER, Some(true)) => (Field::V6, [8, 24]),
            (base::NETWORK_HEADER, None) => {
                let overlaps = |begin, end| offset < end && offset + len > begin;
                let mut fields = Vec::new();
                fields.extend(overlaps(12, 20).then_some(Field::V4));
                fields.extend(overlaps(8, 40).then_some(Field::V6));
                return fields;
            }
            (base::LL_HEADER, _) => return Vec::new(),
            _ => return Field::ALL.to_vec(),
        };
        for index in 0..len {
            let at = offset + index;
            let begin =
                begins.iter().find(|begin| (**begin..**begin + field.bytes()).contains(&at));
            if let (Some(begin), Some(byte)) = (begin, self.0.get_mut(to.offset() + index)) {
                *byte = Some(Held { field, index: at - begin, kept: field.bits() });
            }
        }
        Vec::new()
    }

    /// What so many bytes are.
    pub fn parts(&self, from: Register, len: usize) -> Vec<Part> {
        let bytes = self.0.get(from.offset()..).unwrap_or_default();
        let bytes = &bytes[..len.min(bytes.len())];
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            let Some(held) = byte else {
                parts.push(Part::Other);
                at += 1;
                continue;
            };
            let follows = |(index, next): (usize, &Option<Held>)| {
                *next == Some(Held { index: held.index + index, ..*held })
            };
            let run =
                bytes[at..].iter().enumerate().take_while(|next| follows((next.0, next.1))).count();
            let run = run.max(1);
            parts.push(if held.index == 0 {
                Part::Begin { field: held.field, at, len: run, kept: held.kept }
            } else {
                Part::Within(held.field)
            });
            at += run;
        }
        parts.dedup_by(|a, b| *a == Part::Other && *b == Part::Other);
        parts
    }

    /// Fields of which something is in these bytes.
    pub fn fields(&self, from: Register, len: usize) -> Vec<Field> {
        let held = self.0.iter().skip(from.offset()).take(len).flatten();
        held.map(|held| held.field).collect()
    }

    /// `(from & mask)`, where the mask keeps the first bits of a field; false: it keeps others.
    pub fn mask(&mut self, from: Register, to: Register, mask: &[u8]) -> bool {
        let parts = self.parts(from, mask.len());
        let source = self.clone();
        self.clear(to, mask.len());
        for part in parts {
            let (field, at, len, kept) = match part {
                Part::Begin { field, at, len, kept } => (field, at, len, kept),
                Part::Other => continue,
                Part::Within(_) => return false,
            };
            let bytes = &mask[at..at + len];
            let ones: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
            let leading: u32 = leading_ones(bytes);
            if ones != leading {
                return false;
            }
            for index in 0..len {
                let held = source.0.get(from.offset() + at + index).copied().flatten();
                if let (Some(byte), Some(held)) = (self.0.get_mut(to.offset() + at + index), held) {
                    let kept = if leading == len as u32 * 8 { kept } else { kept.min(leading) };
                    *byte = Some(Held { field, kept, ..held });
                }
            }
        }
        true
    }
}

fn leading_ones(bytes: &[u8]) -> u32 {
    let whole = bytes.iter().take_while(|byte| **byte == 0xff).count();
    whole as u32 * 8 + bytes.get(whole).map_or(0, |byte| byte.leading_ones())
}

/// The number that the first bytes of a field are, with zeros behind them.
pub(super) fn number(field: Field, bytes: &[u8]) -> u128 {
    let mut whole = [0; 16];
    let first = 16 - field.bytes();
    for (to, from) in whole.iter_mut().skip(first).zip(bytes) {
        *to = *from;
    }
    u128::from_be_bytes(whole)
}
