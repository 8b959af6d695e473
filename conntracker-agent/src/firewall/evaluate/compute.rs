//! Expressions that compute with registers, or compare them: `cmp`, `range`, `bitwise`, `byteorder`.

use super::{
    decision::Decision,
    effect::Effect,
    registers::{Bits, Registers},
    unknown::UnknownSet,
};
use crate::netlink::nftables::{
    expression::{Expression, Register},
    key::{bitwise, cmp},
};

/// Evaluates an expression that computes or compares; `None` of any other.
pub(super) fn evaluate(expression: &Expression, registers: &mut Registers) -> Option<Effect> {
    Some(match expression {
        Expression::Cmp { op, from, value } => {
            let bits = registers.load(*from, value.len());
            effect(compare(*op, &bits, value), bits.why)
        }
        Expression::Range { op, from, low, high } => {
            let bits = registers.load(*from, low.len());
            let above = compare(cmp::GTE, &bits, low);
            let below = compare(cmp::LTE, &bits, high);
            effect(above.and(below).inverted_if(*op == cmp::NEQ), bits.why)
        }
        Expression::Mask { from, to, mask, xor } => {
            let of = registers.load(*from, mask.len());
            let masked = |at: usize, bits: u8| {
                let mask = mask.get(at).copied().unwrap_or_default();
                (bits, mask, xor.get(at).copied().unwrap_or_default())
            };
            let computed = of.value.iter().zip(of.known).enumerate().map(|(at, (value, known))| {
                let (value, mask, xor) = masked(at, *value);
                ((value & mask) ^ xor, known | !mask)
            });
            store(computed.collect(), of.why, *to, registers)
        }
        Expression::Shift { op, from, to, len, bits } => {
            let of = registers.load(*from, *len as usize);
            let left = *op == bitwise::LSHIFT;
            let value = shifted(of.value, *bits, left);
            // Zeros that are shifted in are known.
            let unknown: Vec<u8> = of.known.iter().map(|known| !known).collect();
            let known = shifted(&unknown, *bits, left).into_iter().map(|unknown| !unknown);
            store(value.into_iter().zip(known).collect(), of.why, *to, registers)
        }
        Expression::Bitwise { op, from, other, value, to, len } => {
            let len = *len as usize;
            let one = registers.load(*from, len);
            let known = vec![0xff; value.len()];
            let two = match other {
                Some(other) => registers.load(*other, len),
                None => Bits { value, known: &known, why: UnknownSet::NONE },
            };
            let bytes = one.value.iter().zip(one.known).zip(two.value.iter().zip(two.known));
            let computed = bytes.map(|((a, a_known), (b, b_known))| match *op {
                bitwise::AND => {
                    // A zero on one side decides.
                    let zero = (!a & a_known) | (!b & b_known);
                    (a & b, (a_known & b_known) | zero)
                }
                bitwise::OR => (a | b, (a_known & b_known) | a | b),
                _ => (a ^ b, a_known & b_known),
            });
            store(computed.collect(), one.why.union(two.why), *to, registers)
        }
        Expression::Byteorder { from, to, len, size, .. } => {
            let of = registers.load(*from, *len as usize);
            let size = (*size as usize).max(1);
            let turned = |bytes: &[u8]| -> Vec<u8> {
                if cfg!(target_endian = "big") {
                    return bytes.to_vec();
                }
                bytes.chunks(size).flat_map(|unit| unit.iter().rev().copied()).collect()
            };
            let computed = turned(of.value).into_iter().zip(turned(of.known)).collect();
            store(computed, of.why, *to, registers)
        }
        _ => return None,
    })
}

/// Whether a register compares so with a value: as numbers in network byte order (`memcmp`).
fn compare(op: u32, bits: &Bits<'_>, value: &[u8]) -> Decision {
    let undecided = Decision::Undecided(bits.why);
    if bits.value.len() < value.len() {
        // Beyond the registers: no kernel has such a rule.
        return undecided;
    }
    let (lowest, highest) = (bits.lowest(), bits.highest());
    let (lowest, highest) = (lowest, highest.as_slice());
    // Whether all possible values compare so, and whether none does.
    let (all, none) = match op {
        cmp::EQ => (lowest == value && bits.is_known(), !bits.may_be(value)),
        cmp::NEQ => (!bits.may_be(value), lowest == value && bits.is_known()),
        cmp::LT => (highest < value, lowest >= value),
        cmp::LTE => (highest <= value, lowest > value),
        cmp::GT => (lowest > value, highest <= value),
        cmp::GTE => (lowest >= value, highest < value),
        _ => (false, false),
    };
    match (all, none) {
        (true, _) => Decision::Yes,
        (_, true) => Decision::No,
        _ => undecided,
    }
}

/// What a comparison does with its rule. Reasons of words beside the compared bytes do not count.
fn effect(decision: Decision, why: UnknownSet) -> Effect {
    match decision {
        Decision::Yes => Effect::Next,
        Decision::No => Effect::Break,
        Decision::Undecided(_) => Effect::NextOrBreak(why),
    }
}

/// Writes bytes with their known bits.
fn store(
    computed: Vec<(u8, u8)>,
    why: UnknownSet,
    to: Register,
    registers: &mut Registers,
) -> Effect {
    let (value, known): (Vec<u8>, Vec<u8>) = computed.into_iter().unzip();
    registers.store_bits(to, &value, &known, why);
    Effect::Next
}

/// Words in host byte order, the first one the highest, shifted as one number (`nft_bitwise_eval_lshift`).
fn shifted(bytes: &[u8], bits: u32, left: bool) -> Vec<u8> {
    let mut words: Vec<u32> = bytes
        .chunks(4)
        .map(|chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            u32::from_ne_bytes(word)
        })
        .collect();
    let carried = 32_u32.saturating_sub(bits);
    let mut carry = 0;
    let step = |word: &mut u32| {
        let before = *word;
        if left {
            *word = before.checked_shl(bits).unwrap_or_default() | carry;
            carry = before.checked_shr(carried).unwrap_or_default();
        } else {
            *word = before.checked_shr(bits).unwrap_or_default() | carry;
            carry = before.checked_shl(carried).unwrap_or_default();
        }
    };
    if left {
        words.iter_mut().rev().for_each(step);
    } else {
        words.iter_mut().for_each(step);
    }
    words.into_iter().flat_map(u32::to_ne_bytes).take(bytes.len()).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::unknown::Unknown, *};

    fn register(number: u32) -> Register {
        Register::numbered(number).unwrap()
    }

    /// What an expression leaves in register 1 of a value with these known bits, in host byte order.
    fn computed(expression: &Expression, value: u32, known: u32) -> (u32, u32) {
        let mut registers = Registers::new();
        let (value, known) = (value.to_ne_bytes(), known.to_ne_bytes());
        registers.store_bits(register(1), &value, &known, Unknown::Limit.into());
        assert_eq!(evaluate(expression, &mut registers), Some(Effect::Next));
        let bits = registers.load(register(1), 4);
        let number = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().unwrap());
        (number(bits.value), number(bits.known))
    }

    fn bitwise(op: u32, value: u32) -> Expression {
        let (from, to, len) = (register(1), register(1), 4);
        Expression::Bitwise { op, from, other: None, value: value.to_ne_bytes().to_vec(), to, len }
    }

    #[test]
    fn masks_shifts_and_constants_make_bits_known() {
        let (from, to) = (register(1), register(1));
        let bytes = |value: u32| value.to_ne_bytes().to_vec();
        let mask = Expression::Mask { from, to, mask: bytes(0xff), xor: bytes(0x100) };
        assert_eq!(computed(&mask, 0x5, 0xf), (0x105, 0xffff_ff0f));
        assert_eq!(computed(&bitwise(bitwise::AND, 0xf0), 0x13, 0x0000_00ff), (0x10, u32::MAX));
        assert_eq!(computed(&bitwise(bitwise::OR, 0xf0), 0x03, 0x0f), (0xf3, 0xff));
        assert_eq!(computed(&bitwise(bitwise::XOR, 0x01), 0x03, 0x0f), (0x02, 0x0f));
        let shift = |op| Expression::Shift { op, from, to, len: 4, bits: 4 };
        assert_eq!(computed(&shift(bitwise::LSHIFT), 0x3, 0xf), (0x30, 0xff));
        assert_eq!(computed(&shift(bitwise::RSHIFT), 0x30, 0xf0), (0x3, 0xf000_000f));
    }

    #[test]
    fn comparisons_are_decided_where_all_possible_values_agree() {
        let at = |value: [u8; 2], known: [u8; 2], op, other: [u8; 2]| {
            let bits = Bits { value: &value, known: &known, why: Unknown::Limit.into() };
            compare(op, &bits, &other)
        };
        let undecided = Decision::Undecided(Unknown::Limit.into());
        // Between 0x1000 and 0x10ff.
        let (value, known) = ([0x10, 0], [0xff, 0]);
        assert_eq!(at(value, known, cmp::EQ, [0x10, 5]), undecided);
        assert_eq!(at(value, known, cmp::EQ, [0x11, 5]), Decision::No);
        assert_eq!(at(value, known, cmp::NEQ, [0x11, 5]), Decision::Yes);
        assert_eq!(at(value, known, cmp::LT, [0x11, 0]), Decision::Yes);
        assert_eq!(at(value, known, cmp::LT, [0x10, 0]), Decision::No);
        assert_eq!(at(value, known, cmp::LTE, [0x10, 0x80]), undecided);
        assert_eq!(at(value, known, cmp::GT, [0x0f, 0xff]), Decision::Yes);
        assert_eq!(at(value, known, cmp::GTE, [0x11, 0]), Decision::No);
    }
}
