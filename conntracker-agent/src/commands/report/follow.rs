//! Reports of a recording that is being written: first of what is there, then again and again of what was added.

use std::{
    io::ErrorKind,
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    Background, EXIT_LOST, EpochRulesets, Input, Offline, Run, print,
    replay::{Replay, Wanted},
};
use crate::{
    recording::{End, Item, Reader},
    report::sorter::Sorted,
};

/// How often the file is looked at. Its writer flushes each second.
const LOOK: Duration = Duration::from_millis(200);

/// What was read so far.
struct Followed<'a> {
    offline: &'a Offline,
    every: Duration,
    wanted: &'a Wanted<'a>,
    run: Option<Replay<'a>>,
    /// When something was printed last.
    printed: Option<Instant>,
    lost: bool,
}

/// Follows parts, and those that are made later, until the writer states the end of the last one.
pub(super) fn follow(offline: &Offline, every: Duration, from: u64) -> Result<ExitCode> {
    let source = &offline.source;
    let wanted = Wanted { end: End::MayGrow, ..source.wanted(from..=u64::MAX, false) };
    let mut followed =
        Followed { offline, every, wanted: &wanted, run: None, printed: None, lost: false };
    let mut read: Vec<Input> = Vec::new();
    while let Some(input) = next_part(offline, &read)? {
        read.push(input.clone());
        followed.part(&input, &read)?;
    }
    followed.report()?;
    let lost = offline.strict && followed.lost;
    Ok(if lost { ExitCode::from(EXIT_LOST) } else { ExitCode::SUCCESS })
}

/// The first part that was not read.
fn next_part(offline: &Offline, read: &[Input]) -> Result<Option<Input>> {
    Ok(offline.source.inputs()?.into_iter().find(|input| !read.contains(input)))
}

impl Followed<'_> {
    /// Follows a part to its end, or until a later one is there.
    fn part(&mut self, input: &Input, read: &[Input]) -> Result<()> {
        let name = input.name();
        let what = || format!("cannot read {name}");
        let file = match input {
            Input::Stdin => bail!("--follow is for files: standard input is read as it comes"),
            Input::File(path) => std::fs::File::open(path),
        };
        // The oldest parts may be removed (`trace --keep`). The number of the next one tells it.
        let file = match file {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            file => file.with_context(what)?,
        };
        let mut reader = Reader::new(file).with_context(what)?;
        loop {
            // The end of a part is written before the next one is made.
            let is_last = next_part(self.offline, read)?.is_none();
            while let Some(item) = reader.next(End::MayGrow).with_context(what)? {
                self.take(&name, item)?;
            }
            if !is_last {
                return Ok(());
            }
            if reader.closed() {
                // The next part follows at once, if there is one.
                sleep(LOOK);
                return Ok(());
            }
            if self.printed.is_none_or(|printed| printed.elapsed() >= self.every) {
                self.report()?;
            }
            sleep(LOOK);
        }
    }

    fn take(&mut self, name: &str, item: Item) -> Result<()> {
        if let Item::Part(head) = &item
            && !self.run.as_mut().is_some_and(|run| run.part(head))
        {
            self.report()?;
            self.run = Some(Replay::new(self.wanted, head));
        }
        self.run.get_or_insert_with(|| Replay::unknown(self.wanted)).take(name, item)
    }

    /// Prints what was added, if anything was.
    fn report(&mut self) -> Result<()> {
        let Some(report) = self.run.as_mut().map_or(Ok(None), Replay::report)? else {
            return Ok(());
        };
        let (rest, flows) = report.split();
        let report = rest.with_flows(Sorted::Memory(flows));
        self.lost |= print(
            self.offline,
            Run { report, background: Background::default(), epochs: EpochRulesets::default() },
            None,
        )?;
        self.printed = Some(Instant::now());
        Ok(())
    }
}
