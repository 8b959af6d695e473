//! Time since boot and the time of day.

/// How the time of day is related to the time since boot, at one moment: somebody may set the clock at any other.
/// All in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeOfDay {
    /// The time of day at boot, by the clock of that moment.
    boot_ns: i128,
}

impl TimeOfDay {
    /// At the moment that is `since_boot_ns` by the one clock and `epoch_ns` by the other.
    #[must_use]
    pub fn at(since_boot_ns: u64, epoch_ns: u64) -> Self {
        Self { boot_ns: i128::from(epoch_ns) - i128::from(since_boot_ns) }
    }

    /// The time of day of a moment, for people.
    #[must_use]
    pub fn of(self, since_boot_ns: u64) -> u64 {
        u64::try_from(self.boot_ns + i128::from(since_boot_ns)).unwrap_or_default()
    }

    /// The moment of a time of day; `None` if it was before boot: the clock was set since.
    #[must_use]
    pub fn since_boot(self, epoch_ns: u64) -> Option<u64> {
        u64::try_from(i128::from(epoch_ns) - self.boot_ns).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_the_same_by_both_clocks_whenever_they_are_related() {
        let before = TimeOfDay::at(5_000, 1_700_000_000_000);
        assert_eq!(
            (before.of(6_000), before.since_boot(1_700_000_001_000)),
            (1_700_000_001_000, Some(6_000))
        );
        // Set back to 1970: times of day from before are later than now, or before boot.
        let after = TimeOfDay::at(7_000, 3_000);
        assert_eq!((after.of(7_500), after.of(1_000)), (3_500, 0));
        assert_eq!(after.since_boot(1_700_000_000_000), Some(1_700_000_004_000));
        assert_eq!(before.since_boot(3_000), None);
    }
}
