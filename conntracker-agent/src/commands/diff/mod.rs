//! `conntracker diff`: what became of the same flows, before and after.

mod compare;
mod fate;
mod render;
mod rule;
#[cfg(test)]
mod tests;

use std::{io::Write, process::ExitCode};

use anyhow::{Context, Result, bail};

pub use self::render::Format;
use self::{
    compare::{Differences, differences},
    render::Side,
};
use super::report::{Source, When, end_of};
use crate::{
    os::{messages, output::Destination},
    report::{Report, time},
};

/// Exit status if something differs.
const EXIT_DIFFERENT: u8 = 1;

/// What is compared.
pub enum Sides {
    /// Two recordings.
    Two(Box<[Source; 2]>),
    /// One recording, until a time, and from then until another.
    At(Box<Source>, When, When),
    /// One recording, before and since an epoch of the ruleset began.
    Epoch(Box<Source>, u32),
}

/// Differences that are worth an exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailOn {
    /// Packets pass that did not, or do not that did.
    Fate,
    /// Rules that packets met.
    Path,
    /// Translation of addresses.
    Nat,
    /// Connmarks.
    Mark,
    /// Rules that packets met alone before, or after.
    Rules,
    /// Flows that appeared or vanished.
    Flows,
}

/// What `conntracker diff` is to do.
pub struct Diff {
    /// What is compared.
    pub sides: Sides,
    /// Where the differences go.
    pub destination: Destination,
    /// What they look like.
    pub format: Format,
    /// Differences that are worth an exit status.
    pub fail_on: Vec<FailOn>,
}

/// Writes the differences.
///
/// # Errors
/// A file cannot be read, or is no recording; the differences cannot be written.
pub fn run(diff: &Diff) -> Result<ExitCode> {
    messages::to_stderr();
    diff.destination.check()?;
    let (before, after) = match &diff.sides {
        Sides::Two(both) => {
            let [before, after] = &**both;
            let report = |source: &Source| source.report(&source.inputs()?, 0..=u64::MAX);
            (report(before)?, report(after)?)
        }
        Sides::At(source, first, second) => {
            let inputs = source.inputs()?;
            let end_ns = end_of(&inputs);
            let (first, second) = (first.of(end_ns), second.of(end_ns));
            if first >= second {
                bail!("the first `--at` must be before the second");
            }
            (source.report(&inputs, 0..=first)?, source.report(&inputs, first + 1..=second)?)
        }
        Sides::Epoch(source, epoch) => {
            let inputs = source.inputs()?;
            let epochs = Source::epochs(&inputs)?;
            let began = *epochs.get(epoch).with_context(|| {
                let known: Vec<String> = epochs.keys().map(u32::to_string).collect();
                format!("the recording has no epoch {epoch}; it has: {}", known.join(", "))
            })?;
            let before = epochs.range(..epoch).next_back().map_or(0, |(_, ns)| *ns);
            let end = epochs.range(epoch + 1..).next().map_or(u64::MAX, |(_, ns)| ns - 1);
            (
                source.report(&inputs, before..=began.saturating_sub(1))?,
                source.report(&inputs, began..=end)?,
            )
        }
    };
    let found = differences(&before, &after);
    let sides = [side(&before), side(&after)];
    diff.destination
        .write(|out: &mut dyn Write| render::render(diff.format, &sides, &found, out))?;
    let fails = diff.fail_on.iter().any(|what| found.has(*what));
    Ok(if fails { ExitCode::from(EXIT_DIFFERENT) } else { ExitCode::SUCCESS })
}

fn side(report: &Report) -> Side {
    let header = &report.header;
    Side {
        host: header.host.clone(),
        start: time(header.start_ns).to_string(),
        end: time(header.end_ns).to_string(),
        flows: report.flows.len(),
        notes: header.notes.clone(),
    }
}

impl Differences {
    fn has(&self, what: FailOn) -> bool {
        match what {
            FailOn::Fate => !self.fates.is_empty(),
            FailOn::Path => !self.paths.is_empty(),
            FailOn::Nat => !self.nat.is_empty(),
            FailOn::Mark => !self.marks.is_empty(),
            FailOn::Rules => !self.rules.is_empty(),
            FailOn::Flows => !self.appeared.flows.is_empty() || !self.vanished.flows.is_empty(),
        }
    }
}
