//! Kernel records carry time since boot, reports the time of day.

use std::{
    io,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::time::{ClockId, clock_getres, clock_gettime};

/// Turns `CLOCK_BOOTTIME` into nanoseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    boot_ns: u64,
    tick_ns: u64,
}

impl Clock {
    /// Relates the two clocks once: a step of the system's clock meanwhile does not tear a report.
    pub fn new() -> io::Result<Self> {
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
        let since_boot =
            boot.tv_sec().cast_unsigned() * 1_000_000_000 + boot.tv_nsec().cast_unsigned();
        // The coarse clocks go from tick to tick.
        let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)?;
        let tick_ns = tick.tv_nsec().cast_unsigned();
        Ok(Self { boot_ns: epoch_ns().saturating_sub(since_boot), tick_ns })
    }

    /// Ticks of the kernel's clock (jiffies) as nanoseconds.
    pub fn of_ticks(self, ticks: u32) -> u64 {
        u64::from(ticks).saturating_mul(self.tick_ns)
    }

    /// Time of a kernel record.
    pub fn of_kernel(self, ktime_ns: u64) -> u64 {
        self.boot_ns.saturating_add(ktime_ns)
    }

    /// Now, on the same scale.
    #[allow(clippy::unused_self, reason = "reads as what it is at the call")]
    pub fn now(self) -> u64 {
        epoch_ns()
    }
}

fn epoch_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}
