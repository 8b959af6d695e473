//! Signals, heard by a thread of its own: whatever else is under way, from the first moment on.

use std::{
    fs, process, sync,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
};

use crate::os::{event_loop, threads};

/// Exit status after a second Ctrl-C, as a shell tells it.
const EXIT_INTERRUPTED: i32 = 128 + libc::SIGINT;

/// Within this time two SIGINT are one Ctrl-C: timeout(1) sends it to the process, and to its group.
const ONE_INTERRUPT: Duration = Duration::from_millis(250);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// SIGINT, SIGTERM; SIGHUP in the foreground: the last report, and the end.
    End,
    /// SIGUSR1: a report.
    Report,
    /// SIGHUP for a daemon: what it holds open is opened anew.
    Reopen,
}

/// Signals that are handled from now on.
pub(crate) struct Signals(UnboundedReceiver<Asked>);

impl Signals {
    /// Handles them. `daemon`: SIGHUP is no end. A SIGHUP that is ignored (nohup(1)) stays so.
    ///
    /// # Errors
    /// No thread, or no handler.
    pub fn install(daemon: bool) -> Result<Self> {
        let (asked, receiver) = mpsc::unbounded_channel();
        let (sender, installed) = sync::mpsc::channel();
        let hangup = if daemon {
            Some(Asked::Reopen)
        } else {
            (!is_ignored(SignalKind::hangup())).then_some(Asked::End)
        };
        let listen = move || {
            let listening = event_loop::block_on(async {
                let handlers = Handlers::install(hangup.is_some())?;
                // The thread that installs them waits for this, so that it is there to receive it.
                let _ = sender.send(Ok(()));
                handlers.listen(hangup, &asked).await;
                Ok(())
            });
            if let Err(error) = listening {
                let _ = sender.send(Err(error));
            }
        };
        threads::spawn("signals", listen)?;
        installed.recv().context("the thread of signals has ended")??;
        Ok(Self(receiver))
    }

    /// The next one.
    pub async fn next(&mut self) -> Asked {
        match self.0.recv().await {
            Some(asked) => asked,
            // The thread never ends before us.
            None => std::future::pending().await,
        }
    }
}

/// Handlers of signals.
struct Handlers {
    interrupt: Signal,
    terminate: Signal,
    report: Signal,
    hangup: Option<Signal>,
}

impl Handlers {
    fn install(with_hangup: bool) -> Result<Self> {
        let handler = |kind| signal(kind).context("cannot install a signal handler");
        Ok(Self {
            interrupt: handler(SignalKind::interrupt())?,
            terminate: handler(SignalKind::terminate())?,
            report: handler(SignalKind::user_defined1())?,
            hangup: with_hangup.then(|| handler(SignalKind::hangup())).transpose()?,
        })
    }

    /// Tells of signals, for ever. A second Ctrl-C ends the process at once: the first one may be waiting for a disk.
    async fn listen(mut self, on_hangup: Option<Asked>, asked: &UnboundedSender<Asked>) {
        let mut interrupted: Option<Instant> = None;
        let mut ending = false;
        loop {
            let Self { interrupt, terminate, report, hangup } = &mut self;
            let hung_up = async {
                match (hangup, on_hangup) {
                    (Some(hangup), Some(asked)) => {
                        hangup.recv().await;
                        asked
                    }
                    _ => std::future::pending().await,
                }
            };
            let now = tokio::select! {
                _ = interrupt.recv() => {
                    let again = interrupted.is_some_and(|first| first.elapsed() >= ONE_INTERRUPT);
                    if again || (ending && interrupted.is_none()) {
                        // Nothing is said: whoever hangs may hold standard error.
                        process::exit(EXIT_INTERRUPTED);
                    }
                    interrupted.get_or_insert_with(Instant::now);
                    Asked::End
                }
                _ = terminate.recv() => Asked::End,
                _ = report.recv() => Asked::Report,
                asked = hung_up => asked,
            };
            ending |= now == Asked::End;
            // Nobody may be interested any more.
            let _ = asked.send(now);
        }
    }
}

/// Whether a signal is ignored by this process since it was started.
fn is_ignored(kind: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}
