//! `conntracker trace`: signals, schedule, status line and output around an [`Observer`].

use std::{
    fs::DirBuilder,
    future::pending,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Mutex,
    time::{Instant, Interval, interval_at, sleep_until},
};

use crate::{
    asked, daemon, messages,
    observe::{Config, Observer, Output, Request, Status},
    output::Destination,
    report::{Format, Report},
};

/// Exit status when records were lost and it matters: `--strict` asks for it, or a rule cannot be told that
/// none matched.
pub(crate) const EXIT_LOST: u8 = 3;

/// Where the process lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the terminal.
    Foreground,
    /// Detached.
    Daemon {
        /// Its pidfile.
        pidfile: PathBuf,
    },
}

/// What `conntracker trace` is to do.
#[derive(Clone, Debug)]
pub struct Trace {
    /// What to observe.
    pub config: Config,
    /// Foreground or daemon.
    pub mode: Mode,
    /// Where the report goes.
    pub destination: Destination,
    /// What it looks like.
    pub format: Format,
    /// End after this time.
    pub duration: Option<Duration>,
    /// Write the report this often.
    pub interval: Option<Duration>,
    /// Lost records are worth an exit status.
    pub strict: bool,
    /// Say details on standard error: why other backends were not taken.
    pub verbose: bool,
}

/// Runs a trace to its end.
pub fn run(trace: Trace) -> Result<ExitCode> {
    let Mode::Daemon { pidfile } = &trace.mode else {
        messages::to_stderr();
        return observe(trace);
    };
    if !daemon::is_daemon() {
        return daemon::start();
    }
    let logged = messages::to_syslog();
    if let Err(error) = &logged {
        messages::to_stderr();
        log::warn!("{error:#}; messages end with the start");
    }
    let pidfile = pidfile.clone();
    let result = daemonize(&pidfile, trace);
    // Standard error is only heard until the daemon observes.
    if let (Err(error), Ok(())) = (&result, logged) {
        log::error!("{error:#}");
    }
    result
}

fn daemonize(pidfile: &Path, trace: Trace) -> Result<ExitCode> {
    daemon::detach()?;
    let _pidfile = daemon::Pidfile::lock(pidfile)?;
    if let Destination::File(path) = &trace.destination
        && let Some(directory) = path.parent()
    {
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    observe(trace)
}

fn observe(trace: Trace) -> Result<ExitCode> {
    trace.destination.check()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(observe_until_told(trace))
}

async fn observe_until_told(trace: Trace) -> Result<ExitCode> {
    let Trace { config, mode, destination, format, duration, interval, strict, verbose } = trace;
    if verbose {
        messages::say_details();
    }
    // Before anything is attached: a signal from here on ends the trace in order.
    let signals = Signals::install()?;
    let missing = asked::missing(&config.filter, &config.netns)?;
    let mut observer = Observer::start(config)?;
    let schedule = Arc::new(Mutex::new(Schedule::new(signals, duration, interval)));
    let (backend, reason) = observer.backend();
    log::info!("backend {backend} ({})", reason.short);
    if reason.full != reason.short {
        log::debug!("{}", reason.full);
    }
    for missing in missing {
        log::warn!("{missing}");
    }
    for note in observer.notes() {
        log::info!("{note}");
    }
    let in_foreground = mode == Mode::Foreground;
    if in_foreground {
        log::info!(
            "observing{}",
            if duration.is_some() { "" } else { "; Ctrl-C ends and writes the report" }
        );
    } else {
        daemon::ready()?;
    }
    let mut output = Writer {
        destination,
        format,
        show_status: in_foreground && messages::on_terminal(),
        started: Instant::now(),
        last: Status::default(),
        lost: false,
    };
    let requests = || {
        let schedule = Arc::clone(&schedule);
        async move { schedule.lock().await.next().await }
    };
    observer.run(requests, &mut output).await?;
    Ok(if strict && output.lost { ExitCode::from(EXIT_LOST) } else { ExitCode::SUCCESS })
}

/// Signals that are handled from now on.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    report: Signal,
}

impl Signals {
    fn install() -> Result<Self> {
        let handler = |kind| signal(kind).context("cannot install a signal handler");
        Ok(Self {
            interrupt: handler(SignalKind::interrupt())?,
            terminate: handler(SignalKind::terminate())?,
            report: handler(SignalKind::user_defined1())?,
        })
    }
}

/// When reports are due.
struct Schedule {
    signals: Signals,
    end: Option<Instant>,
    interval: Option<Interval>,
}

impl Schedule {
    /// Times count from now.
    fn new(signals: Signals, duration: Option<Duration>, every: Option<Duration>) -> Self {
        let now = Instant::now();
        Self {
            signals,
            end: duration.map(|duration| now + duration),
            interval: every.map(|every| interval_at(now + every, every)),
        }
    }

    async fn next(&mut self) -> Request {
        let Self { signals: Signals { interrupt, terminate, report }, end, interval } = self;
        let end = async {
            match end {
                Some(end) => sleep_until(*end).await,
                None => pending().await,
            }
        };
        let tick = async {
            match interval {
                Some(interval) => {
                    interval.tick().await;
                }
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = interrupt.recv() => Request::Finish,
            _ = terminate.recv() => Request::Finish,
            () = end => Request::Finish,
            _ = report.recv() => Request::Report,
            () = tick => Request::Report,
        }
    }
}

/// Writes reports and the status line.
struct Writer {
    destination: Destination,
    format: Format,
    show_status: bool,
    started: Instant,
    last: Status,
    lost: bool,
}

impl Output for Writer {
    fn report(&mut self, report: Report) -> Result<()> {
        messages::clear_status();
        self.lost |= report.footer.lost_anything();
        self.destination.write(|out| report.render(self.format, out))?;
        let totals = report.totals();
        let place = match &self.destination {
            Destination::Stdout => "standard output".to_owned(),
            Destination::File(path) => path.display().to_string(),
        };
        log::info!("{} flows ({} dropped) written to {place}", totals.flows, totals.dropped);
        report.footer.warn();
        Ok(())
    }

    fn status(&mut self, status: Status) {
        if !self.show_status {
            return;
        }
        let Status { flows, records, lost } = status;
        let rate = records - self.last.records;
        let elapsed = self.started.elapsed().as_secs();
        messages::show_status(format!(
            "{:02}:{:02}:{:02}  {flows} flows  {rate} records/s  {lost} lost",
            elapsed / 3600,
            elapsed / 60 % 60,
            elapsed % 60
        ));
        self.last = status;
    }
}
