//! How long the start waits for rulesets. Programs list them, and programs can hang.

use std::{cell::Cell, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Until when to wait; once that is over it stays over.
#[derive(Debug)]
pub struct Hurry {
    until: Instant,
    told: Notify,
    up: Cell<bool>,
}

impl Hurry {
    /// From now on so long.
    #[must_use]
    pub fn within(patience: Duration) -> Self {
        Self { until: Instant::now() + patience, told: Notify::new(), up: Cell::new(false) }
    }

    /// Nobody wants to wait any longer.
    pub fn now(&self) {
        self.up.set(true);
        self.told.notify_one();
    }

    /// Whether the time is up.
    pub(super) fn is_up(&self) -> bool {
        self.up.get() || Instant::now() >= self.until
    }

    /// Waits until the time is up.
    pub(super) async fn up(&self) {
        if !self.is_up() {
            tokio::select! {
                () = sleep_until(self.until) => {}
                () = self.told.notified() => {}
            }
        }
        self.up.set(true);
    }
}
