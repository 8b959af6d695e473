//! The time that the start waits for rulesets, because the programs that list them may hang.

use std::{cell::Cell, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// A deadline that is set once and stays over.
#[derive(Debug)]
pub struct Hurry {
    patience: Duration,
    until: Cell<Instant>,
    told: Notify,
    up: Cell<bool>,
}

impl Hurry {
    /// A deadline this long after the wait begins.
    #[must_use]
    pub fn within(patience: Duration) -> Self {
        let until = Cell::new(Instant::now() + patience);
        Self { patience, until, told: Notify::new(), up: Cell::new(false) }
    }

    /// Waiting begins.
    pub(crate) fn begin(&self) {
        self.until.set(Instant::now() + self.patience);
    }

    /// Nobody wants to wait any longer.
    pub fn now(&self) {
        self.up.set(true);
        self.told.notify_one();
    }

    /// Whether the time is up.
    pub(crate) fn is_up(&self) -> bool {
        self.up.get() || Instant::now() >= self.until.get()
    }

    /// Waits until the time is up.
    pub(crate) async fn up(&self) {
        if !self.is_up() {
            tokio::select! {
                () = sleep_until(self.until.get()) => {}
                () = self.told.notified() => {}
            }
        }
        self.up.set(true);
    }
}
