//! What is recorded of a live run besides its events.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::{Observer, assemble};
use crate::{model::TimeOfDay, report::Report};

/// How often the kernel's counts of folded flows are taken, unless that takes more than one part in so many of the time.
const FLOW_COUNTS_EVERY: Duration = Duration::from_secs(10);
const IDLE: u32 = 50;

impl Observer {
    /// States what later readers of the recording need, as far as that is due. To be called about once a second.
    pub(super) fn record_statements(&mut self) -> Result<()> {
        if self.recorder.is_none() {
            return Ok(());
        }
        // A recording says when packets were dropped, not only that they were.
        self.take_drops(true)?;
        self.record_flow_counts()?;
        let at_ns = self.clock.since_boot();
        let Self { recorder: Some(recorder), interfaces, .. } = self else { return Ok(()) };
        let wants_dump = recorder.wants_dump();
        let interfaces = interfaces.count();
        if recorder.wants_counts() || interfaces != self.interfaces_recorded {
            self.interfaces_recorded = interfaces;
            let (report, failed) = assemble::without_flows(self, at_ns, None);
            if let Some(error) = failed {
                log::warn!("{error:#}");
            }
            self.record_report(&report, at_ns);
        }
        self.record_news(at_ns);
        if wants_dump { self.dump_all() } else { Ok(()) }
    }

    /// Records owners of sockets that were found, and rulesets whose epochs began, since the last call.
    fn record_news(&mut self, at_ns: u64) {
        let Self { recorder: Some(recorder), backend, .. } = self else { return };
        if let Some(owners) = backend.owners() {
            recorder.owners(owners.take_news(), at_ns);
        }
        backend.take_rulesets().into_iter().for_each(|ruleset| recorder.ruleset(ruleset));
    }

    /// Takes the kernel's counts of folded flows, and so records when there were new ones. The longer that takes, the
    /// more rarely it is done.
    fn record_flow_counts(&mut self) -> Result<()> {
        if self.folded_from.is_none() || self.counts_due > Instant::now() {
            return Ok(());
        }
        let start = Instant::now();
        let (backend, mut intake) = self.intake();
        backend.take_flow_counts(&mut intake)?;
        self.counts_due = start + FLOW_COUNTS_EVERY.max(start.elapsed() * IDLE);
        Ok(())
    }

    /// Records what a report says besides flows.
    pub(super) fn record_report(&mut self, report: &Report<()>, at_ns: u64) {
        let clocks = self.clocks();
        let Self { recorder: Some(recorder), config, .. } = self else { return };
        recorder.header(report.to_statement(config.folds_at_once()), at_ns);
        self.record_news(at_ns);
        let Self { recorder: Some(recorder), .. } = self else { return };
        recorder.counts(&report.footer.to_statement(at_ns, TimeOfDay::pair(clocks)));
    }
}
