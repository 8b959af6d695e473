//! `conntracker report`: reports of recordings. Needs no privileges.

mod background;
mod combine;
mod epochs;
mod follow;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod golden_events;
mod inputs;
mod progress;
mod replay;
mod rulesets;
mod select;
mod when;

use std::{
    io::Write,
    ops::RangeInclusive,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow};

pub(super) use self::{
    epochs::EpochRulesets,
    inputs::Input,
    rulesets::{Epoch, epochs, is_recording, last_ruleset, last_rulesets, with_objects},
};
use self::{
    progress::Progress,
    replay::{Replay, Wanted},
};
pub use self::{
    replay::{Folding, Room},
    select::Sort,
    when::When,
};
use super::trace::EXIT_LOST;
use crate::{
    model::filter::Filter,
    os::{messages, output::Destination, random::random},
    recording::{End, Error, Item, Reader},
    report::{
        Format, Report,
        anonymous::Anonymizer,
        by::GroupOptions,
        html::{self, Background},
        sorter::Sorted,
    },
};

/// What `conntracker report` is to do.
pub struct Offline {
    /// What is read, and which flows of it.
    pub source: Source,
    /// The time that is asked for.
    pub from: Option<When>,
    /// See `from`.
    pub to: Option<When>,
    /// Only flows whose source was translated to this port, at a time.
    pub nat_port: Option<(u16, When)>,
    /// Order of the flows, and how many of them.
    pub sort: Option<Sort>,
    /// See `sort`.
    pub top: Option<usize>,
    /// After the report of what is there, reports of what is added, this often.
    pub follow: Option<Duration>,
    /// Where the report goes.
    pub destination: Destination,
    /// What it looks like.
    pub format: Format,
    /// Names are hashed, and of addresses only common prefixes are kept.
    pub anonymize: bool,
    /// Loss is worth an exit status.
    pub strict: bool,
}

/// What is reported of a run.
struct Run {
    report: Report<Sorted>,
    /// Empty if nobody asks for it.
    background: Background,
    /// Likewise, and of one run alone.
    epochs: EpochRulesets,
}

/// Recordings, and which flows of them.
pub struct Source {
    /// Files, names of recordings, directories.
    pub files: Vec<PathBuf>,
    /// Which flows.
    pub filter: Filter,
    /// The filter as options of the command line.
    pub filter_text: Vec<String>,
    /// Reads such options, of the live run.
    pub recorded_filter: fn(&[String]) -> Result<Filter, String>,
    /// Whether flows are folded.
    pub folding: Folding,
    /// Room for flows.
    pub room: Room,
    /// The recordings are being written: the last part of each is read, and it has no end yet. Parts stand alone, so it
    /// has all that is there now.
    pub live: bool,
}

impl Source {
    /// The files.
    pub(super) fn inputs(&self) -> Result<Vec<Input>> {
        let mut inputs = Vec::new();
        for name in &self.files {
            let mut files = inputs::files(name)?;
            if self.live {
                files.drain(..files.len().saturating_sub(1));
            }
            inputs.append(&mut files);
        }
        Ok(inputs)
    }

    /// The report of a part of the time: nanoseconds since the epoch.
    pub(super) fn report(&self, inputs: &[Input], times: RangeInclusive<u64>) -> Result<Report> {
        self.run(inputs, times, false)?.report.in_memory()
    }

    /// The same of one run, with the rulesets that it had.
    pub(super) fn with_epochs(
        &self,
        inputs: &[Input],
        times: RangeInclusive<u64>,
    ) -> Result<(Report<Sorted>, EpochRulesets)> {
        let wanted = Wanted { epochs: true, ..self.wanted(times, false) };
        let mut runs = read(inputs, &wanted)?;
        match (runs.pop(), runs.len()) {
            (Some(Run { report, epochs, .. }), 0) => Ok((report, epochs)),
            (None, _) => Err(anyhow!("nothing is recorded")),
            (_, more) => Err(anyhow!(
                "there are {} runs, each with rulesets of its own: name the files of one of them",
                more + 1
            )),
        }
    }

    /// The same, with what a page shows besides, if that is asked for.
    fn run(&self, inputs: &[Input], times: RangeInclusive<u64>, background: bool) -> Result<Run> {
        let wanted = self.wanted(times, background);
        combine::combine(read(inputs, &wanted)?, self.room.in_memory())
    }

    fn wanted(&self, times: RangeInclusive<u64>, background: bool) -> Wanted<'_> {
        Wanted {
            times,
            filter: &self.filter,
            filter_text: &self.filter_text,
            recorded_filter: &self.recorded_filter,
            folding: self.folding,
            room: self.room,
            background,
            epochs: false,
            end: if self.live { End::MayGrow } else { End::Last },
        }
    }
}

/// Writes the report.
///
/// # Errors
/// A file cannot be read, or is no recording; the report cannot be written.
pub fn run(offline: &Offline) -> Result<ExitCode> {
    messages::to_stderr();
    offline.destination.check()?;
    let source = &offline.source;
    let inputs = source.inputs()?;
    let end_ns = end_of(&inputs);
    let nat_at = offline.nat_port.map(|(_, at)| at.of(end_ns));
    let from = offline.from.map_or(0, |from| from.of(end_ns));
    let to = nat_at.or(offline.to.map(|to| to.of(end_ns))).unwrap_or(u64::MAX);
    if from > to {
        return Err(anyhow!("`--from` is later than `--to`"));
    }
    if let Some(every) = offline.follow {
        return follow::follow(offline, every, from);
    }
    let with_background = offline.format == Format::Html;
    let run = source.run(&inputs, from..=to, with_background)?;
    let lost = print(offline, run, nat_at)?;
    Ok(if offline.strict && lost { ExitCode::from(EXIT_LOST) } else { ExitCode::SUCCESS })
}

/// Writes a report, and says whether it lacks something.
fn print(offline: &Offline, run: Run, nat_at: Option<u64>) -> Result<bool> {
    let Run { mut report, mut background, epochs: _ } = run;
    let in_memory = offline.source.room.in_memory();
    if offline.anonymize {
        let mut anonymizer = Anonymizer::new(random().context("no random bytes can be had")?);
        report = anonymizer.report(report, in_memory)?;
        // They have addresses and comments.
        background.rulesets.clear();
    }
    if let (Some((port, _)), Some(at)) = (offline.nat_port, nat_at) {
        report = select::with_nat_port(report, in_memory, port, at)?;
    }
    if let Format::Groups(GroupOptions { key, .. }, _) = offline.format
        && report.header.folded
        && !key.folded_key_decides()
    {
        report.header.notes.push(format!(
            "flows are folded, and those of one line may be of several groups by {key}: record with --no-fold or --by"
        ));
    }
    if let Some(sort) = offline.sort {
        report = select::sorted(report, in_memory, sort)?;
    }
    if let Some(top) = offline.top {
        report = select::first(report, top)?;
    }
    let format = offline.format.coloured(offline.destination.shows_colours());
    offline.destination.write(|out: &mut dyn Write| match format {
        Format::Html => html::render(&report, &background, out),
        format => report.render(format, out),
    })?;
    report.footer.warn();
    Ok(report.footer.lost_anything() || !report.untold.is_empty())
}

/// When the recordings end, as far as that is known before they are read: when the last file was written last.
pub(super) fn end_of(inputs: &[Input]) -> u64 {
    let written = |input: &Input| match input {
        Input::Stdin => None,
        Input::File(path) => path.metadata().ok()?.modified().ok(),
    };
    let end = inputs.iter().filter_map(written).max().unwrap_or_else(SystemTime::now);
    end.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// The report of each run that the files have.
fn read(inputs: &[Input], wanted: &Wanted<'_>) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    let mut run: Option<Replay<'_>> = None;
    let progress = Progress::new(inputs);
    for input in inputs {
        let name = input.name();
        let what = || format!("cannot read {name}");
        let mut reader = Reader::new(progress.counting(input.open()?)).with_context(what)?;
        let mut items = 0_u64;
        loop {
            let item = match reader.next(wanted.end) {
                Ok(Some(item)) => item,
                Ok(None) => break,
                // The last part of a run that was killed while it made it.
                Err(Error::NotARecording(bytes)) if bytes.is_empty() && run.is_some() => {
                    if let Some(run) = &mut run {
                        run.not_closed(&name);
                    }
                    break;
                }
                Err(error) => return Err(error).with_context(what),
            };
            items += 1;
            if let Item::Part(head) = &item
                && !run.as_mut().is_some_and(|run| run.part(head))
            {
                runs.extend(run.take().map(Replay::finish));
                run = Some(Replay::new(wanted, head));
            }
            // The head of the first part may be damaged.
            run.get_or_insert_with(|| Replay::unknown(wanted)).take(&name, item)?;
        }
        if items > 0
            && wanted.end == End::Last
            && !reader.closed()
            && let Some(run) = &mut run
        {
            run.not_closed(&name);
        }
    }
    runs.extend(run.map(Replay::finish));
    messages::clear_status();
    runs.into_iter().collect()
}
