//! `conntracker rules hits`: observes for a while, then joins what was seen with the ruleset.

use std::{future::pending, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Mutex,
    time::{Instant, sleep_until},
};

use super::{Format, hits};
use crate::{
    flow::{NetnsId, filter::Filter},
    kernel::{bpf::object::Sizes, netns::Netns},
    messages,
    observe::{
        Config, NetnsChoice, Observer, Output, Request, Status, backend::BackendChoice,
        rules::RuleOptions,
    },
    output::Destination,
    report::Report,
    ruleset::Ruleset,
    trace::EXIT_LOST,
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(observe(watch))
}

async fn observe(Watch { netns, duration, format }: Watch) -> Result<ExitCode> {
    // Before anything is attached: a signal from here on ends the observation in order.
    let handler = |kind| signal(kind).context("cannot install a signal handler");
    let signals = (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
    let mut printer = Printer {
        netns: match &netns {
            Some(name) => Netns::named(name)?,
            None => Netns::current()?,
        },
        format,
        before: Ruleset::default(),
        incomplete: false,
    };
    let mut observer = Observer::start(Config {
        netns: netns.map_or(NetnsChoice::Current, |name| NetnsChoice::Named(vec![name])),
        backend: BackendChoice::Auto,
        attach: None,
        avoid: Vec::new(),
        filter: Filter::default(),
        filter_text: Vec::new(),
        fold: true,
        rules: Some(RuleOptions { coverage: true, folds: true, ..RuleOptions::default() }),
        lost: false,
        sizes: Sizes::default(),
        event_buffer: 0,
    })?;
    for note in observer.notes() {
        log::info!("{note}");
    }
    // Counters of before the first packet that counts.
    printer.before = Ruleset::load(&printer.netns)?;
    let ctrl_c = if duration.is_some() { "" } else { "; Ctrl-C ends and prints the rules" };
    log::info!("observing{ctrl_c}");
    let end = duration.map(|duration| Instant::now() + duration);
    let ending = Arc::new(Mutex::new(Ending { signals, end }));
    let requests = || {
        let ending = Arc::clone(&ending);
        async move { ending.lock().await.come().await }
    };
    observer.run(requests, &mut printer).await?;
    Ok(if printer.incomplete { ExitCode::from(EXIT_LOST) } else { ExitCode::SUCCESS })
}

/// What ends the observation.
struct Ending {
    signals: (Signal, Signal),
    end: Option<Instant>,
}

impl Ending {
    async fn come(&mut self) -> Request {
        let Self { signals: (interrupt, terminate), end } = self;
        let end = async {
            match end {
                Some(end) => sleep_until(*end).await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = end => {}
        }
        Request::Finish
    }
}

/// Prints the one report.
struct Printer {
    netns: Netns,
    format: Format,
    /// The rules when the observation began.
    before: Ruleset,
    /// Not all is known that there should be.
    incomplete: bool,
}

impl Output for Printer {
    fn report(&mut self, report: Report) -> Result<()> {
        let ruleset = Ruleset::load(&self.netns)?;
        super::warn(&ruleset);
        report.footer.warn();
        let rulesets = (&self.before, &ruleset);
        Destination::Stdout
            .write(|out| hits::render(&report, NetnsId(0), rulesets, self.format, out))?;
        if let Some(why) = hits::incomplete(&report) {
            log::warn!("{why}");
            self.incomplete = true;
        }
        Ok(())
    }

    fn status(&mut self, _: Status) {}
}
