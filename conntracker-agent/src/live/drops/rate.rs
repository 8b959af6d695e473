//! So many lines a second.

use std::{num::NonZeroU32, time::Duration};

use tokio::time::Instant;

/// A limit of lines. Pure.
#[derive(Debug)]
pub(super) struct Rate {
    limit: Option<NonZeroU32>,
    /// When the second began, and the lines since then.
    second: Option<Instant>,
    lines: u32,
}

impl Rate {
    /// `None`: no limit.
    pub fn new(limit: Option<NonZeroU32>) -> Self {
        Self { limit, second: None, lines: 0 }
    }

    /// Whether there may be one more line now; it is counted.
    pub fn allows(&mut self, now: Instant) -> bool {
        let Some(limit) = self.limit else { return true };
        let over = |second| now.saturating_duration_since(second) >= Duration::from_secs(1);
        if self.second.is_none_or(over) {
            self.second = Some(now);
            self.lines = 0;
        }
        let allowed = self.lines < limit.get();
        self.lines += u32::from(allowed);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_as_many_lines_as_it_may_have() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut rate = Rate::new(NonZeroU32::new(3));
        let allowed = |rate: &mut Rate, ms| (0..10).filter(|_| rate.allows(at(ms))).count();
        assert_eq!(allowed(&mut rate, 0), 3);
        assert_eq!(allowed(&mut rate, 999), 0);
        assert_eq!(allowed(&mut rate, 1000), 3);
        assert_eq!(allowed(&mut rate, 5000), 3);
        assert_eq!(allowed(&mut Rate::new(None), 0), 10);
    }
}
