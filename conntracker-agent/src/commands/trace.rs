//! `conntracker trace`: signals, schedule, status line and output around an [`Observer`].

mod drops;

use std::{
    fs::DirBuilder,
    future::pending,
    io,
    ops::ControlFlow,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    sync::Mutex,
    time::{Instant, Interval, interval_at, sleep_until},
};

pub use self::drops::FollowDrops;
use self::drops::Lines;
use crate::{
    capture::{BackendChoice, Config, Hurry, NetnsChoice, tracing::RuleOptions},
    live::{
        self, Observer, Output, Request, Status,
        status::{StatusBoard, protocol},
    },
    model::filter::Filter,
    os::{
        agent_socket::{self, AgentSocket},
        daemon, descriptors, event_loop, messages,
        output::{Destination, Written},
        signals::{SignalRequest, Signals},
    },
    report::{Format, Report, Totals},
};

/// Time to wait for the first rulesets before packets are observed without them.
const FIRST_RULES_WITHIN: Duration = Duration::from_secs(10);

/// Exit status when something was lost and the user asked for completeness (`--strict`), or needs it (`rules hits`).
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
    /// Where the report goes; `None` if none is wanted.
    pub destination: Option<Destination>,
    /// The socket at which `conntracker status` reaches it. Without one a daemon has that of its pidfile, and a trace
    /// in the foreground none: killed, it would leave a file that nobody replaces.
    pub socket: Option<PathBuf>,
    /// What it looks like.
    pub format: Format,
    /// Print dropped packets as they happen.
    pub follow: Option<FollowDrops>,
    /// End after this time.
    pub duration: Option<Duration>,
    /// Write the report this often.
    pub interval: Option<Duration>,
    /// Lost records are worth an exit status.
    pub strict: bool,
    /// Print details on standard error: why other backends were not taken.
    pub verbose: bool,
}

/// What other commands observe: one namespace, for themselves alone; nothing is recorded or left behind.
pub(super) fn observation(
    netns: Option<String>,
    filter: Filter,
    fold: bool,
    rules: RuleOptions,
) -> Config {
    Config {
        netns: netns.map_or(NetnsChoice::Current, |name| NetnsChoice::Named(vec![name])),
        backend: BackendChoice::Auto,
        attach: None,
        avoid: Vec::new(),
        filter,
        filter_text: Vec::new(),
        fold,
        rules: Some(rules),
        lost: false,
        max_flows: live::max_flows(),
        leave_written: false,
        record: None,
        sizes: live::sizes(),
        event_buffer: 0,
    }
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
    // The starter reads standard error only until the daemon observes.
    if let (Err(error), Ok(())) = (&result, logged) {
        log::error!("{error:#}");
    }
    result
}

fn daemonize(pidfile: &Path, trace: Trace) -> Result<ExitCode> {
    daemon::detach()?;
    let _pidfile = daemon::Pidfile::lock(pidfile)?;
    let report = match &trace.destination {
        Some(Destination::File(path)) => Some(path),
        Some(Destination::Stdout) | None => None,
    };
    let recording = trace.config.record.as_ref().map(|record| &record.path);
    for directory in report.into_iter().chain(recording).filter_map(|path| path.parent()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    let _claim = report.map(|path| daemon::Claim::report(path)).transpose()?;
    observe(trace)
}

fn observe(trace: Trace) -> Result<ExitCode> {
    if let Some(destination) = &trace.destination {
        destination.check()?;
    }
    descriptors::raise_limit();
    // Before anything is attached: a signal from here on ends the trace in order.
    let signals = Signals::install(trace.mode != Mode::Foreground)?;
    event_loop::block_on(trace_until_end(trace, signals))
}

async fn trace_until_end(trace: Trace, signals: Signals) -> Result<ExitCode> {
    let Trace { config, mode, destination, socket, format, follow, duration, interval, .. } = trace;
    let Trace { strict, verbose, .. } = trace;
    if verbose {
        messages::say_details();
    }
    let in_foreground = mode == Mode::Foreground;
    let place = destination.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    let board = Arc::new(StatusBoard::new(config.filter_text.clone(), place)?);
    let socket = listen(socket, &mode, &board)?;
    let mut schedule = Schedule::new(signals, duration, interval);
    let recorded = config.record.clone();
    let mut observer = schedule.start(config).await?;
    if socket.is_some() {
        observer.publish_on(Arc::clone(&board));
    }
    let (backend, reason) = observer.backend();
    log::info!("backend {backend} ({})", reason.short);
    if reason.full != reason.short {
        log::debug!("{}", reason.full);
    }
    for missing in observer.missing() {
        log::warn!("{missing}");
    }
    for note in observer.notes() {
        log::info!("{note}");
    }
    let lines = match follow {
        Some(follow) => {
            let (lines, follower) = Lines::start(follow)?;
            if !observer.follow_drops(follower) {
                bail!(
                    "drops cannot be followed: backend {} does not see them ({})",
                    observer.backend().0,
                    observer.backend().1.full
                );
            }
            Some(lines)
        }
        None => None,
    };
    if in_foreground {
        log::info!(
            "observing{}",
            if duration.is_some() { "" } else { "; Ctrl-C ends and writes the report" }
        );
    } else {
        daemon::ready()?;
    }
    if let Some(record) = &recorded {
        log::info!("recording to {}", record.path.display());
    }
    let output = Writer {
        destination,
        format,
        strict,
        show_status: in_foreground && messages::on_terminal() && lines.is_none(),
        started: Instant::now(),
        last: Status::default(),
        lost: false,
        board,
    };
    let observed = schedule.observe(observer, output).await;
    let printed = lines.map_or(Ok(()), Lines::end);
    let output = observed?;
    printed?;
    Ok(if strict && output.lost { ExitCode::from(EXIT_LOST) } else { ExitCode::SUCCESS })
}

/// Has a thread answer `conntracker status`. A daemon goes on without one, unless the socket was asked for.
fn listen(
    asked: Option<PathBuf>,
    mode: &Mode,
    board: &Arc<StatusBoard>,
) -> Result<Option<AgentSocket>> {
    let listen = |path: &Path| {
        let board = Arc::clone(board);
        AgentSocket::listen(path, move |question| protocol::answer(question, &board))
    };
    match (asked, mode) {
        (Some(path), _) => listen(&path).map(Some),
        (None, Mode::Foreground) => Ok(None),
        (None, Mode::Daemon { pidfile }) => Ok(listen(&agent_socket::of_pidfile(pidfile))
            .inspect_err(|error| log::warn!("`conntracker status` gets no answer: {error:#}"))
            .ok()),
    }
}

/// When reports are due.
pub(crate) struct Schedule {
    signals: Signals,
    duration: Option<Duration>,
    every: Option<Duration>,
    /// Of the time since the start.
    end: Option<Instant>,
    interval: Option<Interval>,
    /// A request that came before the observation began, and whether it has begun.
    early: Option<Request>,
    observing: bool,
}

impl Schedule {
    /// Times count from the start.
    pub fn new(signals: Signals, duration: Option<Duration>, every: Option<Duration>) -> Self {
        Self { signals, duration, every, end: None, interval: None, early: None, observing: false }
    }

    /// Starts to observe. A signal that ends the trace ends the wait for rules too.
    ///
    /// # Errors
    /// No backend works, or a namespace cannot be entered.
    pub async fn start(&mut self, config: Config) -> Result<Observer> {
        let patience = self.duration.map_or(FIRST_RULES_WITHIN, |all| all.min(FIRST_RULES_WITHIN));
        let hurry = Hurry::within(patience);
        let mut start = Box::pin(Observer::start(config, &hurry));
        let observer = loop {
            tokio::select! {
                started = &mut start => break started?,
                asked = self.next(), if self.early != Some(Request::Finish) => {
                    if asked == Request::Finish {
                        hurry.now();
                    }
                    self.early = Some(asked);
                }
            }
        };
        self.observing = true;
        let now = Instant::now();
        self.end = self.duration.map(|duration| now + duration);
        self.interval = self.every.map(|every| interval_at(now + every, every));
        Ok(observer)
    }

    /// Waits until the end is asked for.
    pub async fn ended(&mut self) {
        while self.next().await != Request::Finish {}
        self.early = Some(Request::Finish);
    }

    /// Observes until the end is due, and hands all reports to `output`, which it gives back.
    ///
    /// # Errors
    /// The observation, or what `output` did with a report, failed.
    pub async fn observe<O: Output>(self, observer: Observer, output: O) -> Result<O> {
        let schedule = Arc::new(Mutex::new(self));
        let requests = || {
            let schedule = Arc::clone(&schedule);
            async move { schedule.lock().await.next().await }
        };
        observer.run(requests, output).await
    }

    /// What is to be done next.
    async fn next(&mut self) -> Request {
        if self.observing
            && let Some(early) = self.early.take()
        {
            return early;
        }
        let Self { signals, end, interval, .. } = self;
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
            asked = signals.next() => match asked {
                SignalRequest::End => Request::Finish,
                SignalRequest::Report => Request::Report,
                SignalRequest::Reopen => {
                    messages::reopen();
                    Request::Reopen
                }
            },
            () = end => Request::Finish,
            () = tick => Request::Report,
        }
    }
}

/// Writes reports and the status line.
struct Writer {
    destination: Option<Destination>,
    format: Format,
    strict: bool,
    show_status: bool,
    started: Instant,
    last: Status,
    lost: bool,
    board: Arc<StatusBoard>,
}

impl Output for Writer {
    fn report(&mut self, report: Report, last: bool) -> Result<ControlFlow<()>> {
        messages::clear_status();
        self.lost |= report.footer.lost_anything() || !report.untold.is_empty();
        let totals = Totals::of(&report.flows);
        let what = format!("{} flows ({} dropped)", totals.flows, totals.dropped);
        match &self.destination {
            None => log::info!("{what} seen"),
            Some(destination) => {
                let render = |format: Format| {
                    let report = &report;
                    move |out: &mut dyn io::Write| report.render(format, out)
                };
                let shown = self.format.coloured(destination.shows_colours());
                let written = match destination.write(render(shown)) {
                    Err(error) if last => Err(destination.fall_back(error, render(self.format))),
                    written => written,
                };
                // The reader has closed the pipe, so the trace ends.
                if written? == Written::Closed {
                    return Ok(ControlFlow::Break(()));
                }
                self.board.report_written(report.flows.len() as u64);
                log::info!("{what} written to {destination}");
            }
        }
        report.footer.warn();
        for why in report.untold.iter().filter(|_| self.strict && last) {
            log::warn!("{why}");
        }
        Ok(ControlFlow::Continue(()))
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
