//! `conntracker rules hits`: observes packets, then joins their paths with the ruleset.

use std::{io::Write, ops::ControlFlow, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio::sync::mpsc;

use super::{Format, hits};
use crate::{
    capture::tracing::{Listers, RuleOptions},
    commands::trace::{EXIT_LOST, Schedule, observation},
    firewall::Ruleset,
    live::{Output, Status},
    model::{NetnsId, filter::Filter},
    os::{descriptors, event_loop, messages, netns::Netns, output::Destination, signals::Signals},
    report::Report,
};

/// What to observe.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Namespace; `None` is our own.
    pub netns: Option<String>,
    /// How long; until a signal if not given.
    pub duration: Option<Duration>,
    /// Format.
    pub format: Format,
}

/// Observes, and prints on standard output which rules packets met.
///
/// # Errors
/// Rules cannot be traced here, or the ruleset cannot be read.
pub fn watch(watch: Watch) -> Result<ExitCode> {
    messages::to_stderr();
    descriptors::raise_limit();
    // Before anything is attached: a signal from here on ends the observation in order.
    let signals = Signals::install(false)?;
    event_loop::block_on(observe(watch, signals))
}

async fn observe(Watch { netns, duration, format }: Watch, signals: Signals) -> Result<ExitCode> {
    let mut schedule = Schedule::new(signals, duration, None);
    let opened = Arc::new(match &netns {
        Some(name) => Netns::named(name)?,
        None => Netns::current()?,
    });
    let rules = RuleOptions { coverage: true, folds: true, ..RuleOptions::default() };
    let mut observer = schedule.start(observation(netns, Filter::default(), true, rules)).await?;
    for note in observer.notes() {
        log::info!("{note}");
    }
    // The counters before the first traced packet.
    let before = tokio::select! {
        before = listed(&opened) => before?,
        () = schedule.ended() => Ruleset::default(),
    };
    let printer = Printer { netns: opened, format, before, incomplete: false };
    let ctrl_c = if duration.is_some() { "" } else { "; Ctrl-C ends and prints the rules" };
    log::info!("observing{ctrl_c}");
    let printer = schedule.observe(observer, printer).await?;
    Ok(if printer.incomplete { ExitCode::from(EXIT_LOST) } else { ExitCode::SUCCESS })
}

/// The rules of a namespace. If this future is dropped, the programs that list them are killed.
async fn listed(netns: &Arc<Netns>) -> Result<Ruleset> {
    let (sender, mut listed) = mpsc::unbounded_channel();
    let mut listers = Listers::new(sender, false);
    listers.list(NetnsId(0), netns)?;
    listed.recv().await.context("the ruleset was not listed")?.result
}

/// Prints the one report.
struct Printer {
    netns: Arc<Netns>,
    format: Format,
    /// The rules when the observation began.
    before: Ruleset,
    /// Whether the result is incomplete.
    incomplete: bool,
}

impl Output for Printer {
    fn report(&mut self, report: Report, last: bool) -> Result<ControlFlow<()>> {
        if !last {
            return Ok(ControlFlow::Continue(()));
        }
        let ruleset = Ruleset::load(&self.netns)?;
        super::warn(&ruleset);
        report.footer.warn();
        let rulesets = (&self.before, &ruleset);
        let render =
            |out: &mut dyn Write| hits::render(&report, NetnsId(0), rulesets, self.format, out);
        Destination::Stdout
            .write(render)
            .map_err(|error| Destination::Stdout.fall_back(error, render))?;
        if let Some(why) = hits::incomplete(&report) {
            log::warn!("{why}");
            self.incomplete = true;
        }
        // Rules that could not be read make the result incomplete too; the notes name them.
        self.incomplete |= !ruleset.unread.is_empty();
        Ok(ControlFlow::Break(()))
    }

    fn status(&mut self, _: Status) {}
}
