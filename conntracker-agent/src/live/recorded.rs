//! What is recorded of a live run besides its events.

use anyhow::Result;

use super::{Observer, assemble};
use crate::{model::TimeOfDay, report::Report};

impl Observer {
    /// States what later readers of the recording need, as far as that is due. To be called about once a second.
    pub(super) fn record_statements(&mut self) -> Result<()> {
        let at_ns = self.clock.since_boot();
        let Self { recorder: Some(recorder), backend, interfaces, .. } = self else {
            return Ok(());
        };
        if let Some(owners) = backend.owners() {
            recorder.owners(owners.take_news(), at_ns);
        }
        backend.take_rulesets().into_iter().for_each(|ruleset| recorder.ruleset(ruleset));
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
        if wants_dump { self.dump_all() } else { Ok(()) }
    }

    /// Records what a report says besides flows.
    pub(super) fn record_report(&mut self, report: &Report, at_ns: u64) {
        let Self { recorder: Some(recorder), config, time_of_day, backend, .. } = self else {
            return;
        };
        if let Some(owners) = backend.owners() {
            recorder.owners(owners.take_news(), at_ns);
        }
        backend.take_rulesets().into_iter().for_each(|ruleset| recorder.ruleset(ruleset));
        recorder.header(report.to_statement(config.folds_at_once()), at_ns);
        recorder.counts(&report.footer.to_statement(at_ns, TimeOfDay::pair(*time_of_day)));
    }
}
