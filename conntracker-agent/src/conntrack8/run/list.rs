//! Commands that print and change nothing but counters (-z).

use std::process::ExitCode;

use super::printer::{calendar, now, renderer};
use super::{Failure, Outcome, Session, connected, found};
use crate::conntrack::{Entry, EntryKey, ExpectKey, ExpectRequest, List};
use crate::conntrack8::filter::Filter;
use crate::conntrack8::values::Output;
use crate::conntrack8::{FAILURE, Rejection};
use crate::report::conntrack::stats;

impl Session {
    /// Lists entries.
    pub(super) fn list(
        &mut self,
        list: List,
        filter: &Filter,
        zero: bool,
        output: Output,
    ) -> Outcome {
        let Self { names, conntrack, printer, .. } = self;
        let conntrack = connected(conntrack)?;
        let calendar = calendar();
        let renderer = renderer(output, names, &calendar);
        let mut shown = 0;
        let mut show = |entry: &Entry<'_>| {
            renderer.entry(printer.begun(|out| renderer.begin(out)), entry);
            shown += 1;
            printer.line()
        };
        if zero && list == List::Table && !filter.is_any() {
            // A dump that resets counters would reset those of all entries that the kernel sends, also of those that
            // are not printed.
            conntrack.for_each_matching(&filter.request, |requests, entry| {
                if !filter.matches(entry) {
                    return Ok(());
                }
                let shown = requests.get_and_zero(&entry.into(), &mut show)?;
                shown.unwrap_or(Ok(()))
            })?;
        } else {
            let list = if zero && list == List::Table { List::TableZeroing } else { list };
            conntrack
                .dump_list(list, &filter.request)?
                .for_each(|entry| if filter.matches(entry) { show(entry) } else { Ok(()) })?;
        }
        printer.ended(|out| renderer.end(out));
        self.summarize(shown, "flow entries have been shown")?;
        Ok(ExitCode::SUCCESS)
    }

    /// Shows one entry.
    pub(super) fn get(&mut self, key: &EntryKey, filter: &Filter, output: Output) -> Outcome {
        let Self { names, conntrack, printer, .. } = self;
        let calendar = calendar();
        let renderer = renderer(output, names, &calendar);
        let shown = connected(conntrack)?.get_with(key, |entry| {
            let meant = filter.request.matches(entry) && filter.matches(entry);
            if meant {
                renderer.entry(printer.begun(|out| renderer.begin(out)), entry);
                printer.ended(|out| renderer.end(out));
            }
            u64::from(meant)
        })?;
        let Some(shown) = shown else {
            let why = "Operation failed: such conntrack doesn't exist";
            return Err(Rejection::failure(why).into());
        };
        self.summarize(shown, "flow entries have been shown")?;
        Ok(found(shown))
    }

    /// Tells the number of entries.
    pub(super) fn count(&mut self) -> Outcome {
        let count = connected(&mut self.conntrack)?.count()?;
        self.printer.number(count.into());
        Ok(ExitCode::SUCCESS)
    }

    /// Tells what CPUs have counted.
    pub(super) fn stats(&mut self) -> Outcome {
        for cpu in connected(&mut self.conntrack)?.cpu_stats()? {
            stats::cpu(self.printer.lines(), &cpu);
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Lists expectations.
    pub(super) fn list_expectations(&mut self, family: Option<u8>, output: Output) -> Outcome {
        let Self { names, conntrack, printer, .. } = self;
        let calendar = calendar();
        let renderer = renderer(output, names, &calendar);
        let request = ExpectRequest { family, master: None };
        let mut shown = 0;
        let rejected = connected(conntrack)?.expectations_with(&request, |expectation| {
            let at = output.timestamp.then(now);
            let lines = printer.begun(|out| renderer.begin_expectations(out));
            renderer.expectation(lines, at, &expectation);
            shown += 1;
        })?;
        printer.ended(|out| renderer.end_expectations(out));
        if rejected > 0 {
            log::warn!("{rejected} expectations could not be decoded");
        }
        self.summarize(shown, "expectations have been shown")?;
        Ok(ExitCode::SUCCESS)
    }

    /// Shows one expectation.
    pub(super) fn get_expectation(&mut self, key: &ExpectKey) -> Outcome {
        let Self { names, conntrack, printer, .. } = self;
        let calendar = calendar();
        let renderer = renderer(Output::default(), names, &calendar);
        let shown = connected(conntrack)?.get_expectation_with(key, |expectation| {
            renderer.expectation(printer.lines(), None, expectation);
        })?;
        if shown.is_some() { Ok(ExitCode::SUCCESS) } else { Err(no_expectation()) }
    }

    /// Tells the number of expectations.
    pub(super) fn count_expectations(&mut self) -> Outcome {
        let mut count = 0;
        let request = ExpectRequest::default();
        connected(&mut self.conntrack)?.expectations_with(&request, |_| count += 1)?;
        self.printer.number(count);
        Ok(ExitCode::SUCCESS)
    }

    /// Tells what CPUs have counted of expectations.
    pub(super) fn expectation_stats(&mut self) -> Outcome {
        for cpu in connected(&mut self.conntrack)?.expect_cpu_stats()? {
            stats::expect_cpu(self.printer.lines(), &cpu);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// There is none of this name.
pub(super) fn no_expectation() -> Failure {
    Rejection { message: "Operation failed: No such file or directory".to_owned(), status: FAILURE }
        .into()
}
