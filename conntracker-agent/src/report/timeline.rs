//! When flows began and packets were dropped, while a recording is read: counts by time.

use std::collections::BTreeMap;

use crate::model::NetnsId;

/// The narrowest column: nanoseconds.
const NARROWEST: u64 = 100_000_000;

/// Columns from the first to the last, at most. If there were more, columns become twice as wide.
const MOST: u64 = 512;

/// Epochs that are kept.
const MOST_EPOCHS: usize = 4_096;

/// Counts by time: nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// How long a column is. The columns of two timelines of equal width are the same times.
    width_ns: u64,
    /// Columns by their number since the epoch; those in which nothing was seen are missing.
    columns: BTreeMap<u64, Column>,
    epochs: BTreeMap<(NetnsId, u32), u64>,
}

/// What was seen in a part of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// Flows that began.
    pub new_flows: u64,
    /// Packets that netfilter dropped.
    pub dropped: u64,
    /// Packets that got lost elsewhere in the kernel.
    pub lost: u64,
}

impl Column {
    fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn add(&mut self, other: Self) {
        self.new_flows += other.new_flows;
        self.dropped += other.dropped;
        self.lost += other.lost;
    }
}

impl Default for Timeline {
    fn default() -> Self {
        Self { width_ns: NARROWEST, columns: BTreeMap::new(), epochs: BTreeMap::new() }
    }
}

impl Timeline {
    /// Adds what happened from `first` to `last`. The kernel counts equal drops together, and tells when the first and
    /// the last one happened: those between are spread evenly.
    pub fn add(&mut self, first: u64, last: u64, counts: Column) {
        if counts.is_empty() {
            return;
        }
        let first = first.min(last);
        self.make_room(first, last);
        let columns = first / self.width_ns..=last / self.width_ns;
        let parts = columns.end() - columns.start() + 1;
        for (n, column) in columns.enumerate() {
            let n = n as u64;
            let part = |of: u64| {
                let until = |n: u64| (u128::from(of) * u128::from(n) / u128::from(parts)) as u64;
                until(n + 1) - until(n)
            };
            let Column { new_flows, dropped, lost } = counts;
            let part =
                Column { new_flows: part(new_flows), dropped: part(dropped), lost: part(lost) };
            if !part.is_empty() {
                self.columns.entry(column).or_default().add(part);
            }
        }
    }

    /// An epoch of the ruleset was there at a time: it began then, or before.
    pub fn epoch(&mut self, netns: NetnsId, epoch: u32, at: u64) {
        if let Some(began) = self.epochs.get_mut(&(netns, epoch)) {
            *began = at.min(*began);
        } else if self.epochs.len() < MOST_EPOCHS {
            self.epochs.insert((netns, epoch), at);
        }
    }

    /// Adds all of another one's, whose namespaces have other numbers.
    pub(crate) fn merge(&mut self, other: &Self, netns: impl Fn(NetnsId) -> NetnsId) {
        while self.width_ns < other.width_ns {
            self.widen();
        }
        for (column, counts) in &other.columns {
            let at = column.saturating_mul(other.width_ns);
            self.add(at, at, *counts);
        }
        for (&(of, epoch), &at) in &other.epochs {
            self.epoch(netns(of), epoch, at);
        }
    }

    /// How long a column is.
    #[must_use]
    pub fn width_ns(&self) -> u64 {
        self.width_ns
    }

    /// When the first column begins, and the columns to the last one; `None` if nothing was seen.
    #[must_use]
    pub fn columns(&self) -> Option<(u64, Vec<Column>)> {
        let (first, last) = (*self.columns.keys().next()?, *self.columns.keys().next_back()?);
        let columns = (first..=last).map(|n| self.columns.get(&n).copied().unwrap_or_default());
        Some((first * self.width_ns, columns.collect()))
    }

    /// Namespace and number of each epoch of the rulesets, and when it was first there.
    pub fn epochs(&self) -> impl Iterator<Item = (NetnsId, u32, u64)> {
        self.epochs.iter().map(|(&(netns, epoch), &at)| (netns, epoch, at))
    }

    fn make_room(&mut self, first: u64, last: u64) {
        let of = |ns: u64, width: u64| ns / width;
        let (mut from, mut to) = (first, last);
        if let (Some(known), Some((end, _))) =
            (self.columns.keys().next(), self.columns.last_key_value())
        {
            from = from.min(known * self.width_ns);
            to = to.max(end * self.width_ns);
        }
        while of(to, self.width_ns) - of(from, self.width_ns) >= MOST {
            self.widen();
        }
    }

    fn widen(&mut self) {
        self.width_ns *= 2;
        for (column, counts) in std::mem::take(&mut self.columns) {
            self.columns.entry(column / 2).or_default().add(counts);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(dropped: u64) -> Column {
        Column { new_flows: 1, dropped, lost: 0 }
    }

    fn sum(timeline: &Timeline) -> Column {
        let mut sum = Column::default();
        timeline.columns().into_iter().flat_map(|(_, all)| all).for_each(|one| sum.add(one));
        sum
    }

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let mut timeline = Timeline::default();
        timeline.add(NARROWEST * 10, NARROWEST * 10, counts(2));
        timeline.add(NARROWEST * 12, NARROWEST * 12 + 5, counts(1));
        let empty = Column::default();
        assert_eq!(timeline.columns(), Some((NARROWEST * 10, vec![counts(2), empty, counts(1)])));
        timeline.add(NARROWEST * 1_000, NARROWEST * 1_000, counts(3));
        assert_eq!(timeline.width_ns(), NARROWEST * 2);
        assert_eq!(sum(&timeline), Column { new_flows: 3, dropped: 6, lost: 0 });
    }

    #[test]
    fn drops_that_were_counted_together_are_spread_between_the_first_and_the_last() {
        let mut timeline = Timeline::default();
        timeline.add(0, NARROWEST * 3, Column { dropped: 10, ..Column::default() });
        let dropped =
            timeline.columns().unwrap().1.iter().map(|one| one.dropped).collect::<Vec<_>>();
        assert_eq!(dropped, [2, 3, 2, 3]);
    }

    #[test]
    fn an_epoch_began_when_it_was_first_there() {
        let mut timeline = Timeline::default();
        for (epoch, at) in [(2, 30), (1, 10), (2, 20), (2, 40)] {
            timeline.epoch(NetnsId(0), epoch, at);
        }
        let mut all = Timeline::default();
        all.merge(&timeline, |_| NetnsId(7));
        let epochs: Vec<_> = all.epochs().collect();
        assert_eq!(epochs, [(NetnsId(7), 1, 10), (NetnsId(7), 2, 20)]);
    }

    proptest! {
        /// Times of a damaged file may be any.
        #[test]
        fn nothing_is_lost_and_columns_are_few(
            all in prop::collection::vec((any::<u64>(), any::<u64>(), 0..1_000_u64), 1..30),
            at in 0..30_usize,
        ) {
            let (mut one, mut two) = (Timeline::default(), Timeline::default());
            for (n, &(first, last, dropped)) in all.iter().enumerate() {
                let to = if n < at { &mut one } else { &mut two };
                to.add(first, last, counts(dropped));
            }
            one.merge(&two, |netns| netns);
            let total = Column {
                new_flows: all.len() as u64,
                dropped: all.iter().map(|(.., dropped)| dropped).sum(),
                lost: 0,
            };
            prop_assert_eq!(sum(&one), total);
            prop_assert!(one.columns().unwrap().1.len() as u64 <= MOST);
        }
    }
}
