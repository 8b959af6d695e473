//! Time since boot and the time of day.

/// The offset between the time of day and the time since boot, measured once, because the time of day can be set
/// later. In nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeOfDay {
    /// The time of day at boot, as the clock had it when the offset was measured.
    boot_ns: i128,
}

impl TimeOfDay {
    /// The offset when one clock says `since_boot_ns` and the other `epoch_ns`.
    #[must_use]
    pub fn at(since_boot_ns: u64, epoch_ns: u64) -> Self {
        Self { boot_ns: i128::from(epoch_ns) - i128::from(since_boot_ns) }
    }

    /// Whether the offsets differ by more than so many nanoseconds.
    #[must_use]
    pub fn differs(self, other: Self, by_ns: u64) -> bool {
        self.boot_ns.abs_diff(other.boot_ns) > u128::from(by_ns)
    }

    /// A time since boot and the time of day then, of which [`Self::at`] makes the same offset.
    #[must_use]
    pub fn pair(self) -> (u64, u64) {
        let since = |ns: i128| u64::try_from(ns).unwrap_or(0);
        (since(-self.boot_ns), since(self.boot_ns))
    }

    /// The time of day of a time since boot, for output.
    #[must_use]
    pub fn of(self, since_boot_ns: u64) -> u64 {
        u64::try_from(self.boot_ns + i128::from(since_boot_ns)).unwrap_or_default()
    }

    /// The time since boot of a time of day; `None` if that was before boot, because the clock was set since.
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
        // The clock was set back to 1970: earlier times of day lie in the future or before boot.
        let after = TimeOfDay::at(7_000, 3_000);
        assert_eq!((after.of(7_500), after.of(1_000)), (3_500, 0));
        assert_eq!(after.since_boot(1_700_000_000_000), Some(1_700_000_004_000));
        assert_eq!(before.since_boot(3_000), None);
    }
}
