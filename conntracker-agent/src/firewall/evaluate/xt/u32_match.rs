//! `u32`: words of the packet, computed and compared (net/netfilter/xt_u32.c).

use super::change::{masked, shifted};
use crate::firewall::{
    evaluate::{
        decision::Decision,
        header::Header,
        packet::{Layer3, Packet, V6_HEADER},
        unknown::{Attr, Attribute},
        word::Word,
    },
    fields::Fields,
};

/// Numbers of one test of `u32`, and tests of one match (XT_U32_MAXSIZE).
const MOST: usize = 11;

/// Bytes of a test and offsets in it: `struct xt_u32_test`.
const TEST: usize = 8 * MOST + 8 * MOST + 4;
const VALUES: usize = 8 * MOST;
const COUNTS: usize = 16 * MOST;

/// `struct xt_u32`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct U32 {
    /// All of them must hold.
    pub tests: Vec<U32Test>,
    /// One of them must not.
    pub inverted: bool,
}

/// A test of [`U32`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct U32Test {
    /// Offset of the first word.
    pub offset: u32,
    /// What is done with it, in order.
    pub steps: Vec<(U32Operation, u32)>,
    /// Ranges of which one must have the result.
    pub values: Vec<(u32, u32)>,
}

/// `enum xt_u32_ops`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum U32Operation {
    /// `&`.
    And,
    /// `<<`.
    ShiftLeft,
    /// `>>`.
    ShiftRight,
    /// `@`: the value is added to the offset, and the word there is taken.
    At,
}

impl U32 {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        let count = usize::from(info.u8(TEST * MOST)?);
        let test = |index| {
            let test = Fields(info.slice(TEST * index, TEST * (index + 1))?);
            let (numbers, values) = (test.u8(COUNTS)?, test.u8(COUNTS + 1)?);
            let (numbers, values) = (usize::from(numbers), usize::from(values));
            if numbers == 0 || numbers > MOST || values > MOST {
                return None;
            }
            let step = |index: usize| {
                let operation = match test.u8(8 * index + 4)? {
                    0 => U32Operation::And,
                    1 => U32Operation::ShiftLeft,
                    2 => U32Operation::ShiftRight,
                    3 => U32Operation::At,
                    _ => return None,
                };
                Some((operation, test.u32(8 * index)?))
            };
            let value =
                |index| Some((test.u32(VALUES + 8 * index)?, test.u32(VALUES + 8 * index + 4)?));
            Some(U32Test {
                offset: test.u32(0)?,
                steps: (1..numbers).map(step).collect::<Option<_>>()?,
                values: (0..values).map(value).collect::<Option<_>>()?,
            })
        };
        if count > MOST {
            return None;
        }
        let tests = (0..count).map(test).collect::<Option<_>>()?;
        Some(Self { tests, inverted: info.u8(TEST * MOST + 1)? != 0 })
    }

    pub(super) fn decide(&self, packet: &Packet) -> Decision {
        let all = self.tests.iter().map(|test| test.decide(packet));
        all.fold(Decision::Yes, Decision::and).inverted_if(self.inverted)
    }
}

impl U32Test {
    /// A word beyond the packet ends the test without a match.
    fn decide(&self, packet: &Packet) -> Decision {
        let mut base = 0u32;
        let mut word = Word::new(0, Attribute::IpHeader.into());
        let bits = |number: u32| i16::try_from(number.min(u32::BITS)).unwrap_or_default();
        for (operation, number) in [(U32Operation::At, self.offset)].iter().chain(&self.steps) {
            match operation {
                U32Operation::And => word = masked(word, *number),
                U32Operation::ShiftLeft => word = shifted(word, bits(*number)),
                U32Operation::ShiftRight => word = shifted(word, -bits(*number)),
                U32Operation::At => {
                    let at = word.get().map(|value| {
                        base = base.checked_add(value)?;
                        base.checked_add(*number)
                    });
                    word = match at.and_then(|at| at.map_or(Ok(None), |at| read(packet, at))) {
                        Ok(Some(word)) => word,
                        Ok(None) => return Decision::No,
                        Err(unknown) => return Decision::Undecided(unknown.into()),
                    };
                }
            }
        }
        let each = self.values.iter().map(|(first, last)| is_between(word, *first, *last));
        each.fold(Decision::No, Decision::or)
    }
}

/// Whether a word of which some bits may be unknown is in a range.
fn is_between(word: Word, first: u32, last: u32) -> Decision {
    // With all unknown bits cleared, and with all of them set.
    let (least, most) = (word.value(), word.value() | !word.known());
    if first == last {
        word.has(first, u32::MAX)
    } else if first <= least && most <= last {
        Decision::Yes
    } else if most < first || last < least {
        Decision::No
    } else {
        Decision::Undecided(word.why().into())
    }
}

/// Four bytes of the packet, counted from the IP header on; `None` beyond its end.
fn read(packet: &Packet, at: u32) -> Attr<Option<Word>> {
    if packet.length()? < at.saturating_add(4) {
        return Ok(None);
    }
    let at = at as usize;
    let word = |header: &Header, at: usize, why: Attribute| {
        let bytes = [0, 1, 2, 3].map(|index| header.byte(at + index));
        let (value, known) = (bytes.map(|(value, _)| value), bytes.map(|(_, known)| known));
        let number = u32::from_be_bytes;
        Some(Word::partly(number(value), number(known), why.into()))
    };
    let end = match packet.layer3() {
        Layer3::Ip6 => V6_HEADER,
        // Without options, if the length is not known: nothing is known of options either.
        Layer3::Ip => {
            packet.network().array(0).map_or(V4_HEADER, |[first]| usize::from(first & 0xf) * 4)
        }
    };
    if at + 4 <= end {
        return Ok(word(packet.network(), at, Attribute::IpHeader));
    }
    let known = packet.layer3() == Layer3::Ip && packet.network().array::<1>(0).is_some();
    // Between IPv6's header and the one above there may be others; a word may begin in one and end in another header.
    match at.checked_sub(end) {
        Some(at) if known => Ok(word(packet.transport(), at, Attribute::Payload)),
        _ => Err(Attribute::IpOptions.into()),
    }
}

/// Bytes of IPv4's header without options.
const V4_HEADER: usize = 20;
