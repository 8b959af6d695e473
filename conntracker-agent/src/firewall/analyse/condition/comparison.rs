//! Loads and comparisons of nf_tables' expressions, as values that fields may have.

use super::{Reader, number_of};
use crate::{
    firewall::{
        analyse::{
            field::{Field, Fields, Source, Transform, highest},
            values::Values,
        },
        evaluate::unknown::{Attribute, Unknown},
    },
    netlink::nftables::{
        expression::{Expression, Register},
        key::{base, bitwise, cmp, exthdr, meta},
    },
};

/// Values that are turned round one by one.
const FEW: u128 = 4096;

impl Reader<'_> {
    /// An expression that loads, computes or compares.
    pub(super) fn load_or_compare(&mut self, expression: &Expression) {
        use Expression as E;
        match expression {
            E::Payload { slice, to } => {
                self.load(Source::header(*slice), *to, slice.len as usize, Attribute::Payload);
            }
            E::Meta { key, to } => {
                let why = match *key {
                    meta::SKUID | meta::SKGID => Attribute::Owner,
                    _ => Attribute::Meta,
                };
                self.load(Source::Meta(*key), *to, 16, why);
            }
            E::Ct { key, direction, to } => {
                self.load(Source::Ct(*key, *direction), *to, 16, Attribute::CtEntry);
            }
            E::Immediate { to, value } => self.symbols.forget(*to, value.len()),
            E::Cmp { op, from, value } => self.compare(*op, *from, value),
            E::Range { op, from, low, high } => self.range(*op, *from, low, high),
            E::Mask { from, to, mask, xor } => {
                self.mask(*from, *to, number_of(mask), number_of(xor), mask.len());
            }
            E::Bitwise { op: bitwise::AND, from, other: None, value, to, len } => {
                self.mask(*from, *to, number_of(value), 0, *len as usize);
            }
            E::Byteorder { from, to, len, size, .. } => {
                let bytes = *len as usize;
                let whole = |field: &&Field| {
                    len == size && field.source.layout().is_some_and(|(own, _)| own == bytes)
                };
                match self.symbols.get(*from).filter(whole).cloned() {
                    Some(mut field) => {
                        if field.transforms.last() == Some(&Transform::Swap) {
                            field.transforms.pop();
                        } else {
                            field.transforms.push(Transform::Swap);
                        }
                        self.symbols.set(*to, field);
                    }
                    None => self.symbols.forget(*to, bytes),
                }
            }
            E::Shift { to, len, .. } | E::Bitwise { to, len, .. } => {
                self.symbols.forget(*to, *len as usize);
            }
            E::Fib { to, .. } | E::Rt { to, .. } => self.unknown(*to, Attribute::Routes),
            E::Socket { to, .. } | E::Osf { to, .. } => self.unknown(*to, Attribute::Socket),
            E::Exthdr { op: exthdr::TCPOPT, to, .. } => self.unknown(*to, Attribute::TcpOptions),
            E::Exthdr { to, .. } => self.unknown(*to, Attribute::IpOptions),
            E::Numgen { to, .. } | E::Hash { to, .. } => self.unknown(*to, Unknown::Numgen),
            E::Xfrm { to, .. } | E::Tunnel { to, .. } => self.unknown(*to, Attribute::Meta),
            _ => self.hangs_on(Unknown::Expression),
        }
    }

    /// Something is loaded that is no field, or the rule ends.
    fn unknown(&mut self, to: Register, why: impl Into<Unknown>) {
        self.symbols.forget(to, 16);
        self.hangs_on(why.into());
    }

    /// A field is loaded. The rule ends for packets that lack it.
    fn load(&mut self, source: Source, to: Register, bytes: usize, why: Attribute) {
        let Some((_, in_host_order)) = source.layout() else {
            self.symbols.forget(to, bytes);
            return self.hangs_on(why);
        };
        let mut field = self.fields.load(source);
        for part in parts(source) {
            let field = self.fields.load(part);
            let values = Values::range(0, highest(field.bits()));
            let number = self.fields.number(field.clone());
            if self.fields.all(number).has_absent() {
                self.admit(field, &values);
            }
        }
        if in_host_order && cfg!(target_endian = "little") {
            field.transforms.push(Transform::Swap);
        }
        self.symbols.set(to, field);
    }

    fn mask(&mut self, from: Register, to: Register, mask: u128, xor: u128, bytes: usize) {
        let same = |field: &&Field| field.source.layout().is_some_and(|(own, _)| own == bytes);
        let Some(mut field) = self.symbols.get(from).filter(same).cloned() else {
            return self.symbols.forget(to, bytes);
        };
        if field.transforms.last() == Some(&Transform::Swap) {
            let bits = field.bits();
            let mask = Transform::Mask(swapped(mask, bits), swapped(xor, bits));
            field.transforms.insert(field.transforms.len() - 1, mask);
        } else {
            field.transforms.push(Transform::Mask(mask, xor));
        }
        self.symbols.set(to, field);
    }

    fn compare(&mut self, op: u32, from: Register, value: &[u8]) {
        let found = self.symbols.get(from).cloned();
        let layout = found.as_ref().and_then(|field| field.source.layout());
        let (Some(field), Some((bytes, _))) = (found, layout) else {
            return self.hangs_on(Unknown::Expression);
        };
        let Some(beyond) = bytes.checked_sub(value.len()) else {
            return self.hangs_on(Unknown::Expression);
        };
        // Of a value that is shorter, only so many bytes are compared.
        let beyond = beyond as u32 * 8;
        let first = number_of(value).checked_shl(beyond).unwrap_or_default();
        let last = first | highest(beyond);
        let highest = highest(field.bits());
        let below = |end: u128| {
            end.checked_sub(1).map_or(Values::of(vec![]), |last| Values::range(0, last))
        };
        let above = |last: u128| match last.checked_add(1) {
            Some(first) => Values::of(vec![(first, highest)]),
            None => Values::of(vec![]),
        };
        let values = match op {
            cmp::EQ => Values::range(first, last),
            cmp::NEQ => Values::range(0, highest).without(&Values::range(first, last)),
            cmp::LT => below(first),
            cmp::LTE => Values::range(0, last),
            cmp::GT => above(last),
            cmp::GTE => Values::range(first, highest),
            _ => return self.hangs_on(Unknown::Expression),
        };
        self.admit_parts(field, &values);
    }

    fn range(&mut self, op: u32, from: Register, low: &[u8], high: &[u8]) {
        let same = |field: &&Field| field.source.layout().is_some_and(|(own, _)| own == low.len());
        let Some(field) = self.symbols.get(from).filter(same).cloned() else {
            return self.hangs_on(Unknown::Expression);
        };
        let within = Values::of(vec![(number_of(low), number_of(high))]);
        match op {
            cmp::EQ => self.admit_parts(field, &within),
            _ => self.refuse(field, &within),
        }
    }

    /// As [`Self::admit`]; one value of several fields that were loaded together is one of each.
    fn admit_parts(&mut self, field: Field, values: &Values) {
        let parts = parts(field.source);
        match (values.single(), field.transforms.is_empty()) {
            (Some(value), true) if parts.len() > 1 => {
                let mut left = field.bits();
                for part in parts {
                    let part = field.of(part);
                    left -= part.bits();
                    let of_part = value >> left & highest(part.bits());
                    self.admit(part, &Values::one(of_part));
                }
            }
            _ => self.admit(field, values),
        }
    }
}

/// The fields that a load has which nft made of several.
fn parts(source: Source) -> Vec<Source> {
    match source {
        Source::Header(base::TRANSPORT_HEADER, 0, 4) => {
            vec![Source::port(false), Source::port(true)]
        }
        Source::Header(base::NETWORK_HEADER, 12, 8) => {
            vec![Source::address(false, false), Source::address(true, false)]
        }
        _ => vec![source],
    }
}

fn swapped(value: u128, bits: u32) -> u128 {
    value.swap_bytes() >> (128 - bits)
}

/// The values that a field must have so that what is computed of it has these, as far as that can be said.
pub(super) fn pulled_back(
    mut field: Field,
    mut values: Values,
    v6: bool,
    fields: &Fields,
) -> (Field, Values) {
    while let Some(last) = field.transforms.last() {
        let bits = field.bits();
        let pulled = match *last {
            Transform::Swap => turned(&values, bits),
            Transform::Mask(mask, xor) if field.transforms.len() == 1 => {
                let few = fields.few(field.source);
                let small = (bits <= 8).then(|| Values::range(0, highest(bits)));
                match few.or(small) {
                    Some(all) => {
                        let each = all.ranges().iter().flat_map(|(first, last)| *first..=*last);
                        let fit = each.filter(|value| values.has((value & mask) ^ xor));
                        Some(Values::of(fit.map(|value| (value, value)).collect()))
                    }
                    None => unmasked(&values, mask, xor, bits),
                }
            }
            Transform::Mask(mask, xor) => unmasked(&values, mask, xor, bits),
        };
        let Some(pulled) = pulled else { break };
        values = pulled;
        field.transforms.pop();
    }
    if field.transforms.is_empty() { widened(field, values, v6) } else { (field, values) }
}

/// The values whose bytes in opposite order are these, if they or all others are few.
fn turned(values: &Values, bits: u32) -> Option<Values> {
    let each = |values: &Values| {
        let sizes = values.ranges().iter().map(|(first, last)| (last - first).saturating_add(1));
        let count = sizes.fold(0_u128, u128::saturating_add);
        let single = |(first, last): &(u128, u128)| *first..=*last;
        (count <= FEW).then(|| {
            let all = values.ranges().iter().flat_map(single);
            Values::of(all.map(|value| (swapped(value, bits), swapped(value, bits))).collect())
        })
    };
    let all = Values::range(0, highest(bits));
    if all == *values {
        return Some(all);
    }
    each(values).or_else(|| Some(all.without(&each(&all.without(values))?)))
}

/// The values that under a mask of a prefix are among these.
fn unmasked(values: &Values, mask: u128, xor: u128, bits: u32) -> Option<Values> {
    let beyond = highest(bits) & !mask;
    if xor != 0 || beyond & beyond.wrapping_add(1) != 0 {
        return None;
    }
    let preimage = |(first, last): &(u128, u128)| {
        let begin =
            if first & beyond == 0 { Some(*first) } else { (first | beyond).checked_add(1) };
        Some((begin?, (last & mask) | beyond))
    };
    Some(Values::of(values.ranges().iter().filter_map(preimage).collect()))
}

/// The first bytes of an address as the whole address. Packets of IPv4 may lack what an address of IPv6 would be.
fn widened(field: Field, values: Values, v6: bool) -> (Field, Values) {
    let addresses = [(false, false), (true, false), (false, true), (true, true)];
    let whole =
        addresses.into_iter().filter(|(_, of_v6)| v6 || !of_v6).find_map(|(side, of_v6)| {
            let source = Source::address(side, of_v6);
            let begins = match (field.source, source) {
                (Source::Header(base, offset, length), Source::Header(own, first, all)) => {
                    (base, offset) == (own, first) && length < all
                }
                _ => false,
            };
            begins.then_some(source)
        });
    let Some(source) = whole else { return (field, values) };
    let wide = field.of(source);
    let beyond = wide.bits() - field.bits();
    let widen = |(first, last): &(u128, u128)| (first << beyond, last << beyond | highest(beyond));
    let values = Values::of(values.ranges().iter().map(widen).collect());
    (wide, values)
}
