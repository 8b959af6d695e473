//! Elements of a set, in the form in which keys are looked up.

use std::collections::HashMap;

use super::{
    code::{ChainNumber, Code},
    registers::Bits,
};
use crate::netlink::nftables::{
    data::Data,
    expression::Expression,
    key,
    set::{Element, Set},
};

/// Elements that are followed for a key of which bits are unknown.
const FOLLOWED: usize = 16;

/// A set or a map.
#[derive(Debug)]
pub(in crate::firewall) struct Elements {
    /// Bytes of a key.
    pub key_len: usize,
    /// Packets add, change or remove elements.
    pub dynamic: bool,
    /// Elements may be removed when their time is over.
    pub expires: bool,
    keys: Keys,
    /// The element for all other keys.
    catchall: Option<usize>,
    entries: Vec<Entry>,
}

/// What a key is mapped to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::firewall) enum Mapped {
    /// Nothing, or an object.
    Nothing,
    /// A value.
    Value(Vec<u8>),
    /// A verdict.
    Verdict(Code),
}

/// What a key leads to.
#[derive(Debug)]
pub(in crate::firewall) struct Entry {
    /// What a map maps to.
    pub data: Mapped,
    /// What is evaluated for it.
    pub expressions: Vec<Expression>,
}

impl Entry {
    /// Whether it is found whatever was counted before.
    pub(in crate::firewall) fn only_counts(&self) -> bool {
        !self.expressions.iter().any(|expression| {
            matches!(
                expression,
                Expression::Limit { .. } | Expression::Quota { .. } | Expression::Connlimit { .. }
            )
        })
    }
}

#[derive(Debug)]
enum Keys {
    /// Single keys.
    Exact(HashMap<Vec<u8>, usize>),
    /// Where intervals begin, each with its entry, and where they end, in order: the last one up to a key decides.
    Intervals(Vec<(Vec<u8>, Option<usize>)>),
    /// Ranges, of each field of a concatenation.
    Ranges { fields: Vec<usize>, ranges: Vec<(Vec<u8>, Vec<u8>, usize)> },
}

/// The keys of a set, as they tell packets apart.
pub(super) enum Bounds<'a> {
    /// Keys that are equal, or not.
    Each(Vec<&'a [u8]>),
    /// Where intervals of keys begin and end.
    Order(Vec<&'a [u8]>),
    /// The first and the last value, of each field by itself.
    Fields(Vec<(&'a [u8], &'a [u8])>),
}

/// What a lookup finds.
pub(super) enum Found<'a> {
    /// One element.
    One(&'a Entry),
    /// None.
    None,
    /// One of these, or none: bits of the key are unknown.
    Some(Vec<&'a Entry>),
    /// Any: more than are followed.
    Any,
}

impl Elements {
    /// The keys of all elements.
    pub(super) fn bounds(&self) -> Bounds<'_> {
        match &self.keys {
            Keys::Exact(keys) => Bounds::Each(keys.keys().map(Vec::as_slice).collect()),
            Keys::Intervals(bounds) => {
                Bounds::Order(bounds.iter().map(|(key, _)| key.as_slice()).collect())
            }
            Keys::Ranges { ranges, .. } => Bounds::Fields(
                ranges.iter().map(|(low, high, _)| (low.as_slice(), high.as_slice())).collect(),
            ),
        }
    }

    /// What keys are mapped to.
    pub(super) fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().filter_map(|entry| match &entry.data {
            Mapped::Value(value) => Some(value.as_slice()),
            _ => None,
        })
    }

    pub(super) fn new(set: &Set, chains: &HashMap<&str, ChainNumber>) -> Self {
        let has = |flag| set.flags & flag != 0;
        let entry = |element: &Element| Entry {
            data: match &element.data {
                Some(Data::Value(value)) => Mapped::Value(value.clone()),
                // A chain that is not in the dump: nothing can be said of it.
                Some(Data::Verdict(verdict)) => {
                    Code::of(verdict, chains).map_or(Mapped::Nothing, Mapped::Verdict)
                }
                None => Mapped::Nothing,
            },
            expressions: element.expressions.clone(),
        };
        let entries = set.elements.iter().map(entry).collect();
        let elements = || set.elements.iter().enumerate();
        let is = |element: &Element, flag| element.flags & flag != 0;
        let keyed = || elements().filter(|(_, e)| !is(e, key::set::ELEM_CATCHALL));
        let ranged = set.elements.iter().any(|element| element.key_end.is_some());
        let keys = if ranged {
            let range = |(index, element): (usize, &Element)| {
                let end = element.key_end.clone().unwrap_or_else(|| element.key.clone());
                (element.key.clone(), end, index)
            };
            Keys::Ranges { fields: fields(set), ranges: keyed().map(range).collect() }
        } else if has(key::set::INTERVAL) && !has(key::set::CONCAT) {
            let mut bounds: Vec<_> = keyed()
                .map(|(index, element)| {
                    let end = is(element, key::set::ELEM_INTERVAL_END);
                    (element.key.clone(), (!end).then_some(index))
                })
                .collect();
            // Where one interval ends and the next begins, the beginning comes last, and decides.
            bounds.sort();
            Keys::Intervals(bounds)
        } else {
            Keys::Exact(keyed().map(|(index, element)| (element.key.clone(), index)).collect())
        };
        Self {
            key_len: set.key_len as usize,
            dynamic: has(key::set::EVAL),
            expires: has(key::set::TIMEOUT),
            keys,
            catchall: elements().find(|(_, e)| is(e, key::set::ELEM_CATCHALL)).map(|(at, _)| at),
            entries,
        }
    }

    /// What keys lead to.
    pub(in crate::firewall) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The keys of each element, from the first to the last one, in each field of a concatenation by itself; `None` if
    /// there is an element for all other keys.
    pub(in crate::firewall) fn ranges(&self) -> Option<Vec<(Vec<u8>, Vec<u8>, &Entry)>> {
        if self.catchall.is_some() {
            return None;
        }
        let entry = |index: usize| self.entries.get(index);
        match &self.keys {
            Keys::Exact(keys) => keys
                .iter()
                .map(|(key, index)| Some((key.clone(), key.clone(), entry(*index)?)))
                .collect(),
            Keys::Ranges { ranges, .. } => ranges
                .iter()
                .map(|(low, high, index)| Some((low.clone(), high.clone(), entry(*index)?)))
                .collect(),
            Keys::Intervals(bounds) => {
                let behind = bounds.iter().skip(1).map(|(bound, _)| Some(bound)).chain([None]);
                let begins = bounds.iter().zip(behind);
                begins
                    .filter_map(|((first, index), behind)| {
                        let last = match behind {
                            Some(behind) if behind == first => return None,
                            Some(behind) => before(behind),
                            None => vec![0xff; first.len()],
                        };
                        Some((first.clone(), last, entry((*index)?)?))
                    })
                    .map(Some)
                    .collect()
            }
        }
    }

    /// Looks a key up.
    pub(super) fn find(&self, key: &Bits<'_>) -> Found<'_> {
        let entry = |index: usize| self.entries.get(index);
        if key.is_known() {
            let index = self.index(key.value).or(self.catchall);
            return index.and_then(entry).map_or(Found::None, Found::One);
        }
        let mut possible = self.possible(key);
        possible.extend(self.catchall);
        possible.sort_unstable();
        possible.dedup();
        match possible.len() {
            0 => Found::None,
            1..=FOLLOWED => Found::Some(possible.into_iter().filter_map(entry).collect()),
            _ => Found::Any,
        }
    }

    /// The element of a key.
    fn index(&self, key: &[u8]) -> Option<usize> {
        match &self.keys {
            Keys::Exact(keys) => keys.get(key).copied(),
            Keys::Intervals(bounds) => {
                let behind = bounds.partition_point(|(bound, _)| bound.as_slice() <= key);
                bounds.get(behind.checked_sub(1)?)?.1
            }
            Keys::Ranges { fields, ranges } => {
                let has = |(low, high, _): &&(Vec<u8>, Vec<u8>, usize)| {
                    is_within(fields, low, high, key, key)
                };
                ranges.iter().find(has).map(|(.., index)| *index)
            }
        }
    }

    /// Elements that a key may lead to. Of intervals, which bits of the key are known is used for its lowest and its
    /// highest value alone.
    fn possible(&self, key: &Bits<'_>) -> Vec<usize> {
        let (lowest, highest) = (key.lowest(), key.highest());
        match &self.keys {
            Keys::Exact(keys) => {
                let possible = keys.iter().filter(|(own, _)| key.may_be(own));
                possible.map(|(_, index)| *index).collect()
            }
            Keys::Intervals(bounds) => {
                let first = bounds.partition_point(|(bound, _)| bound.as_slice() <= lowest);
                let end = bounds.partition_point(|(bound, _)| *bound <= highest);
                let reached = first.saturating_sub(1)..end;
                bounds.get(reached).unwrap_or_default().iter().filter_map(|(_, at)| *at).collect()
            }
            Keys::Ranges { fields, ranges } => {
                let may = |(low, high, _): &&(Vec<u8>, Vec<u8>, usize)| {
                    is_within(fields, low, high, lowest, &highest)
                };
                ranges.iter().filter(may).map(|(.., index)| *index).collect()
            }
        }
    }
}

/// The key before another one.
fn before(key: &[u8]) -> Vec<u8> {
    let mut before = key.to_vec();
    for byte in before.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            break;
        }
    }
    before
}

/// Bytes of each field in a key, with padding to whole words.
fn fields(set: &Set) -> Vec<usize> {
    if set.fields.is_empty() {
        return vec![set.key_len as usize];
    }
    set.fields.iter().map(|len| (*len as usize).next_multiple_of(4)).collect()
}

/// Whether each field of a key, between its lowest and its highest value, has one in a range.
fn is_within(fields: &[usize], low: &[u8], high: &[u8], lowest: &[u8], highest: &[u8]) -> bool {
    let mut start = 0;
    fields.iter().all(|len| {
        let range = start..start + len;
        start += len;
        let of = |bytes: &'_ [u8]| -> Option<Vec<u8>> { Some(bytes.get(range.clone())?.to_vec()) };
        matches!((of(low), of(high), of(lowest), of(highest)),
            (Some(low), Some(high), Some(lowest), Some(highest)) if low <= highest && lowest <= high)
    })
}

#[cfg(test)]
mod tests {
    use super::{super::unknown::Unknown, *};

    fn element(key: &[u8], flags: u32, data: u8) -> Element {
        let data = Some(Data::Value(vec![data]));
        Element { key: key.to_vec(), flags, data, ..Element::default() }
    }

    fn found(elements: &Elements, key: [u8; 2], known: [u8; 2]) -> Vec<u8> {
        let bits = Bits { value: &key, known: &known, why: Unknown::Limit.into() };
        let data = |entry: &Entry| match &entry.data {
            Mapped::Value(value) => value[0],
            _ => 0,
        };
        match elements.find(&bits) {
            Found::One(entry) => vec![data(entry)],
            Found::None => Vec::new(),
            // Ten more, so that the two kinds differ.
            Found::Some(entries) => entries.into_iter().map(|entry| 10 + data(entry)).collect(),
            Found::Any => vec![99],
        }
    }

    #[test]
    fn the_last_bound_up_to_a_key_decides() {
        // 0x0010 to 0x001f, 0x0020 to 0x002f, and from 0xff00 on.
        let elements = [
            element(&[0, 0], 1, 0),
            element(&[0, 0x10], 0, 1),
            element(&[0, 0x20], 1, 0),
            element(&[0, 0x20], 0, 2),
            element(&[0, 0x30], 1, 0),
            element(&[0xff, 0], 0, 3),
        ];
        let flags = key::set::INTERVAL | key::set::MAP;
        let set = Set { key_len: 2, flags, elements: elements.to_vec(), ..Set::default() };
        let elements = Elements::new(&set, &HashMap::new());
        for (key, data) in [([0, 0x0f], None), ([0, 0x1f], Some(1)), ([0, 0x20], Some(2))] {
            assert_eq!(found(&elements, key, [0xff; 2]), data.into_iter().collect::<Vec<_>>());
        }
        assert!(found(&elements, [0, 0x30], [0xff; 2]).is_empty());
        assert_eq!(found(&elements, [0xff, 0xff], [0xff; 2]), [3]);
        assert_eq!(found(&elements, [0, 0x10], [0xff, 0xf0]), [11]);
        assert_eq!(found(&elements, [0, 0], [0xff, 0]), [11, 12]);
        assert!(found(&elements, [1, 0], [0xff, 0]).is_empty());
        let ranges = elements.ranges().unwrap();
        let ranges: Vec<_> = ranges.iter().map(|(first, last, _)| [&first[..], last]).collect();
        let expected: [[&[u8]; 2]; 3] =
            [[&[0, 0x10], &[0, 0x1f]], [&[0, 0x20], &[0, 0x2f]], [&[0xff, 0], &[0xff, 0xff]]];
        assert_eq!(ranges, expected);
    }

    #[test]
    fn ranges_of_concatenations_hold_field_by_field() {
        let mut range = element(&[1, 0, 0, 0, 10, 0, 0, 0], 0, 1);
        range.key_end = Some(vec![2, 0, 0, 0, 20, 0, 0, 0]);
        let flags = key::set::INTERVAL | key::set::CONCAT;
        let (fields, elements) = (vec![1, 1], vec![range]);
        let set = Set { key_len: 8, flags, fields, elements, ..Set::default() };
        let elements = Elements::new(&set, &HashMap::new());
        let has = |key: [u8; 8]| elements.index(&key).is_some();
        assert!(has([1, 0, 0, 0, 20, 0, 0, 0]) && has([2, 0, 0, 0, 10, 0, 0, 0]));
        assert!(!has([1, 0, 0, 0, 21, 0, 0, 0]) && !has([3, 0, 0, 0, 10, 0, 0, 0]));
    }

    #[test]
    fn a_catchall_element_stands_for_all_other_keys() {
        let mut elements = vec![element(&[0, 1], 0, 1)];
        elements.push(element(&[], key::set::ELEM_CATCHALL, 7));
        let set = Set { key_len: 2, flags: key::set::MAP, elements, ..Set::default() };
        let elements = Elements::new(&set, &HashMap::new());
        assert_eq!(found(&elements, [0, 1], [0xff; 2]), [1]);
        assert_eq!(found(&elements, [0, 2], [0xff; 2]), [7]);
        assert_eq!(found(&elements, [0, 0], [0xff, 0]), [11, 17]);
    }
}
