//! The agent uses one clock, the time since boot, because kernel records have it and nobody can set it. Output
//! converts it to the time of day.

use std::{
    io,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::time::{ClockId, clock_getres, clock_gettime};

use crate::model::TimeOfDay;

/// How often both clocks are read at most to relate them, and how long one reading may take.
const READINGS: usize = 8;
const FAST_NS: u64 = 2_000;

/// The clocks of this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    tick_ns: u64,
}

impl Clock {
    /// Reads the length of a tick of the kernel's clock.
    pub fn new() -> io::Result<Self> {
        // The resolution of the coarse clocks is one tick.
        let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)?;
        Ok(Self { tick_ns: tick.tv_nsec().cast_unsigned() })
    }

    /// Ticks of the kernel's clock (jiffies) as nanoseconds.
    pub fn of_ticks(self, ticks: u32) -> u64 {
        u64::from(ticks).saturating_mul(self.tick_ns)
    }

    /// Nanoseconds since boot (`CLOCK_BOOTTIME`), as in kernel records.
    #[expect(clippy::unused_self, reason = "reads as what it is at the call")]
    pub fn since_boot(self) -> u64 {
        since_boot_ns()
    }

    /// How the two clocks are related now.
    #[expect(clippy::unused_self, reason = "reads as what it is at the call")]
    pub fn time_of_day(self) -> TimeOfDay {
        // If something else runs between the readings, they do not belong together: the fastest pair does best.
        let mut best = (u64::MAX, TimeOfDay::default());
        for _ in 0..READINGS {
            let before = since_boot_ns();
            let epoch = epoch_ns();
            let took = since_boot_ns().saturating_sub(before);
            if took < best.0 {
                best = (took, TimeOfDay::at(before + took / 2, epoch));
            }
            if took < FAST_NS {
                break;
            }
        }
        best.1
    }

    /// The time of day: nanoseconds since the epoch. It can be set: not for comparisons.
    #[expect(clippy::unused_self, reason = "reads as what it is at the call")]
    pub fn now(self) -> u64 {
        epoch_ns()
    }
}

/// Nanoseconds since boot.
pub(crate) fn since_boot_ns() -> u64 {
    // The call fails only where the kernel lacks the clock, and `Clock::new` would have failed there too.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| {
        time.tv_sec().cast_unsigned() * 1_000_000_000 + time.tv_nsec().cast_unsigned()
    })
}

fn epoch_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}
