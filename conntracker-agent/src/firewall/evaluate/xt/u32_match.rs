//! `u32`: words of the packet, computed and compared (net/netfilter/xt_u32.c).

use crate::firewall::{
    evaluate::{
        decision::Decision,
        header::Header,
        packet::{Layer3, Packet, V6_HEADER},
        unknown::{Attr, Attribute},
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
        let mut word = word(packet, self.offset);
        for (operation, number) in &self.steps {
            let value = match word {
                Ok(Some(value)) => value,
                Ok(None) => return Decision::No,
                Err(unknown) => return Decision::Undecided(unknown.into()),
            };
            let shift = number % u32::BITS;
            word = match operation {
                U32Operation::And => Ok(Some(value & number)),
                U32Operation::ShiftLeft => Ok(Some(value << shift)),
                U32Operation::ShiftRight => Ok(Some(value >> shift)),
                U32Operation::At => match base.checked_add(value) {
                    None => Ok(None),
                    Some(sum) => {
                        base = sum;
                        match sum.checked_add(*number) {
                            Some(at) => self::word(packet, at),
                            None => Ok(None),
                        }
                    }
                },
            };
        }
        let found = word.map(|word| {
            word.is_some_and(|word| {
                self.values.iter().any(|(first, last)| (*first..=*last).contains(&word))
            })
        });
        found.into()
    }
}

/// Four bytes of the packet, counted from the IP header on; `None` beyond its end.
fn word(packet: &Packet, at: u32) -> Attr<Option<u32>> {
    if packet.length()? < at.saturating_add(4) {
        return Ok(None);
    }
    let at = at as usize;
    let read = |header: &Header, at: usize, why: Attribute| {
        header.array(at).map(u32::from_be_bytes).map(Some).ok_or(why.into())
    };
    let end = match packet.layer3() {
        Layer3::Ip6 => V6_HEADER,
        Layer3::Ip => {
            let [first] = packet.network().array(0).ok_or(Attribute::IpOptions)?;
            usize::from(first & 0xf) * 4
        }
    };
    if at + 4 <= end {
        return read(packet.network(), at, Attribute::IpHeader);
    }
    // Between IPv6's header and the one above there may be others; a word may begin in one and end in another header.
    match (at.checked_sub(end), packet.layer3()) {
        (Some(at), Layer3::Ip) => read(packet.transport(), at, Attribute::Payload),
        _ => Err(Attribute::IpOptions.into()),
    }
}
