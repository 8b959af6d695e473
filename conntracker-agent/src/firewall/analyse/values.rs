//! Sets of values that a condition admits of a field: ranges in order, and whether the field may be missing.

/// Values of a field of up to 128 bits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Values {
    /// First and last value of each range, in order; ranges neither overlap nor touch.
    ranges: Vec<(u128, u128)>,
    /// Packets without the field are meant too.
    absent: bool,
}

impl Values {
    /// One range.
    #[must_use]
    pub fn range(first: u128, last: u128) -> Self {
        Self::of(vec![(first, last)])
    }

    /// One value.
    #[must_use]
    pub fn one(value: u128) -> Self {
        Self::range(value, value)
    }

    /// Several ranges in any order. Those that end before they begin are none.
    #[must_use]
    pub fn of(mut ranges: Vec<(u128, u128)>) -> Self {
        ranges.retain(|(first, last)| first <= last);
        ranges.sort_unstable();
        let mut joined: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => joined.push((first, last)),
            }
        }
        Self { ranges: joined, absent: false }
    }

    /// The same, and packets without the field.
    #[must_use]
    pub fn or_absent(self) -> Self {
        Self { absent: true, ..self }
    }

    /// The ranges.
    #[must_use]
    pub fn ranges(&self) -> &[(u128, u128)] {
        &self.ranges
    }

    /// Whether packets without the field are meant.
    #[must_use]
    pub fn has_absent(&self) -> bool {
        self.absent
    }

    /// Whether nothing is meant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && !self.absent
    }

    /// Whether a value is among them.
    #[must_use]
    pub fn has(&self, value: u128) -> bool {
        let behind = self.ranges.partition_point(|(first, _)| *first <= value);
        behind.checked_sub(1).is_some_and(|at| self.ranges[at].1 >= value)
    }

    /// The only value, if there is one alone.
    #[must_use]
    pub fn single(&self) -> Option<u128> {
        match self.ranges[..] {
            [(first, last)] if first == last && !self.absent => Some(first),
            _ => None,
        }
    }

    /// Whether all of `other` are among them.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let within = |&(first, last): &(u128, u128)| {
            let behind = self.ranges.partition_point(|(begin, _)| *begin <= first);
            behind.checked_sub(1).is_some_and(|at| self.ranges[at].1 >= last)
        };
        (self.absent || !other.absent) && other.ranges.iter().all(within)
    }

    /// What both have.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (few, many) =
            if self.ranges.len() <= other.ranges.len() { (self, other) } else { (other, self) };
        let mut ranges = Vec::new();
        for &(first, last) in &few.ranges {
            let begin = many.ranges.partition_point(|(_, end)| *end < first);
            let overlapping = many.ranges[begin..].iter().take_while(|(begin, _)| *begin <= last);
            ranges.extend(overlapping.map(|(begin, end)| (first.max(*begin), last.min(*end))));
        }
        Self { ranges, absent: self.absent && other.absent }
    }

    /// Whether they have something in common.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let (few, many) =
            if self.ranges.len() <= other.ranges.len() { (self, other) } else { (other, self) };
        let met = |&(first, last): &(u128, u128)| {
            let begin = many.ranges.partition_point(|(_, end)| *end < first);
            many.ranges.get(begin).is_some_and(|(begin, _)| *begin <= last)
        };
        self.absent && other.absent || few.ranges.iter().any(met)
    }

    /// What these have and `other` has not.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        for &(mut first, last) in &self.ranges {
            let begin = other.ranges.partition_point(|(_, end)| *end < first);
            let mut done = false;
            for &(from, to) in other.ranges[begin..].iter().take_while(|(from, _)| *from <= last) {
                if from > first {
                    ranges.push((first, from - 1));
                }
                if to >= last {
                    done = true;
                    break;
                }
                first = to + 1;
            }
            if !done {
                ranges.push((first, last));
            }
        }
        Self { ranges, absent: self.absent && !other.absent }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of all sets of values from 0 to 7, by bits, and bit 8 for packets without the field.
    fn of_bits(bits: u16) -> Values {
        let ranges = (0..8).filter(|bit| bits & 1 << bit != 0).map(|bit| (bit, bit)).collect();
        Values { absent: bits & 0x100 != 0, ..Values::of(ranges) }
    }

    fn bits(values: &Values) -> u16 {
        (0..8).filter(|bit| values.has(*bit)).map(|bit| 1 << bit).sum::<u16>()
            | u16::from(values.has_absent()) << 8
    }

    proptest! {
        #[test]
        fn they_are_sets(one in 0_u16..0x200, two in 0_u16..0x200) {
            let (a, b) = (of_bits(one), of_bits(two));
            prop_assert_eq!(bits(&a), one);
            prop_assert_eq!(bits(&a.intersection(&b)), one & two);
            prop_assert_eq!(bits(&a.without(&b)), one & !two);
            prop_assert_eq!(a.contains(&b), one & two == two);
            prop_assert_eq!(a.meets(&b), one & two != 0);
            prop_assert_eq!(a.is_empty(), one == 0);
        }
    }

    #[test]
    fn the_last_value_of_all_has_no_successor() {
        let all = Values::range(0, u128::MAX);
        assert!(all.without(&all).is_empty());
        assert_eq!(all.without(&Values::one(u128::MAX)), Values::range(0, u128::MAX - 1));
        assert_eq!(Values::one(7).single(), Some(7));
        assert_eq!(Values::one(7).or_absent().single(), None);
    }
}
