//! `conntracker diff`: what became of the same flows, before and after.

mod compare;
mod fate;
pub(super) mod flow_name;
mod render;
pub(super) mod rule;
#[cfg(test)]
mod tests;
pub(super) mod traced;

use std::{io::Write, ops::RangeInclusive, process::ExitCode};

use anyhow::{Context, Result, bail};

pub use self::render::Format;
use self::{
    compare::{Compared, Differences, differences},
    render::Side,
    traced::Epochs,
};
use super::report::{Epoch, Input, Source, When, end_of, epochs};
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
    let [(before, old), (after, new)] = diff.sides.read()?;
    let compared = |report, epochs| Compared { report, epochs };
    let found = differences(compared(&before, &old), compared(&after, &new));
    let sides = [side(&before), side(&after)];
    diff.destination
        .write(|out: &mut dyn Write| render::render(diff.format, &sides, &found, out))?;
    let fails = diff.fail_on.iter().any(|what| found.has(*what));
    Ok(if fails { ExitCode::from(EXIT_DIFFERENT) } else { ExitCode::SUCCESS })
}

impl Sides {
    /// The report of each side, and which epochs of the ruleset it has.
    fn read(&self) -> Result<[(Report, Epochs); 2]> {
        match self {
            Self::Two(both) => {
                let report = |source: &Source| source.report(&source.inputs()?, 0..=u64::MAX);
                let [before, after] = &**both;
                let whole = Epochs::default;
                Ok([(report(before)?, whole()), (report(after)?, whole())])
            }
            Self::At(source, first, second) => {
                let inputs = source.inputs()?;
                let end_ns = end_of(&inputs);
                let (first, second) = (first.of(end_ns), second.of(end_ns));
                if first >= second {
                    bail!("the first `--at` must be before the second");
                }
                let epochs = epochs(&inputs)?;
                let later = epochs.iter().find(|(_, epoch)| epoch.at_ns > first);
                let whole_from = later.map_or(u32::MAX, |(number, _)| *number);
                Ok([
                    (part(source, &inputs, 0..=first)?, Epochs::default()),
                    (part(source, &inputs, first + 1..=second)?, Epochs { of: None, whole_from }),
                ])
            }
            Self::Epoch(source, number) => {
                let inputs = source.inputs()?;
                let epochs = epochs(&inputs)?;
                let began = *epochs.get(number).with_context(|| {
                    let known: Vec<String> = epochs.keys().map(u32::to_string).collect();
                    format!("the recording has no epoch {number}; it has: {}", known.join(", "))
                })?;
                let same = |epoch: &&Epoch| epoch.netns == began.netns;
                let mut earlier = epochs.range(..number).map(|(_, epoch)| epoch).filter(same);
                let mut later = epochs.range(number + 1..).filter(|(_, epoch)| same(epoch));
                let next = later.next();
                let begin =
                    earlier.clone().nth(1).and(earlier.next_back()).map_or(0, |of| of.at_ns);
                let end = next.map_or(u64::MAX, |(_, epoch)| epoch.at_ns - 1);
                let last = next.map_or(u32::MAX, |(number, _)| number - 1);
                let of =
                    |numbers, whole_from| Epochs { of: Some((began.netns, numbers)), whole_from };
                // What met the old rules is told after the new ones were read, too; what met the new ones before
                // that is of the new epoch.
                Ok([
                    (
                        part(source, &inputs, begin..=began.at_ns.saturating_sub(1))?,
                        of(0..=number - 1, 0),
                    ),
                    (part(source, &inputs, began.at_ns..=end)?, of(*number..=last, *number)),
                ])
            }
        }
    }
}

/// The report of a part of the time, which begins with that.
fn part(source: &Source, inputs: &[Input], times: RangeInclusive<u64>) -> Result<Report> {
    let begin_ns = *times.start();
    let mut report = source.report(inputs, times)?;
    report.header.start_ns = report.header.start_ns.max(begin_ns);
    Ok(report)
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
