//! Signals, received by a thread of their own, so that they are handled even while the agent starts or waits.

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

/// Exit status after a second Ctrl-C, as a shell reports it.
const EXIT_INTERRUPTED: i32 = 128 + libc::SIGINT;

/// Two SIGINT within this time are one Ctrl-C: timeout(1) sends it to the process and then to its group.
const ONE_INTERRUPT: Duration = Duration::from_millis(250);

/// The request of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalRequest {
    /// SIGINT, SIGTERM, and SIGHUP in the foreground: write the last report and end.
    End,
    /// SIGUSR1: a report.
    Report,
    /// SIGHUP for a daemon: open the log and the report again.
    Reopen,
}

/// Signals that are handled from now on.
pub(crate) struct Signals(UnboundedReceiver<SignalRequest>);

impl Signals {
    /// Installs the handlers. SIGHUP does not end a `daemon`, and stays ignored if it was (nohup(1)).
    ///
    /// # Errors The kernel refuses a thread or a handler.
    pub fn install(daemon: bool) -> Result<Self> {
        let (asked, receiver) = mpsc::unbounded_channel();
        let (sender, installed) = sync::mpsc::channel();
        let hangup = if daemon {
            Some(SignalRequest::Reopen)
        } else {
            (!is_ignored(SignalKind::hangup())).then_some(SignalRequest::End)
        };
        let listen = move || {
            let listening = event_loop::block_on(async {
                let handlers = Handlers::install(hangup.is_some())?;
                // The thread that called `install` waits for this, so the channel is open.
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
    pub async fn next(&mut self) -> SignalRequest {
        match self.0.recv().await {
            Some(asked) => asked,
            // The thread never ends before the process.
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

    /// Passes signals on, for ever. A second Ctrl-C ends the process at once, because the first may be waiting for a
    /// disk.
    async fn listen(
        mut self,
        on_hangup: Option<SignalRequest>,
        asked: &UnboundedSender<SignalRequest>,
    ) {
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
                        // No message: the thread that hangs may hold the lock of standard error.
                        process::exit(EXIT_INTERRUPTED);
                    }
                    interrupted.get_or_insert_with(Instant::now);
                    SignalRequest::End
                }
                _ = terminate.recv() => SignalRequest::End,
                _ = report.recv() => SignalRequest::Report,
                asked = hung_up => asked,
            };
            ending |= now == SignalRequest::End;
            // The receiver may be gone, if the command is ending.
            let _ = asked.send(now);
        }
    }
}

/// Whether this process has ignored a signal since it started.
fn is_ignored(kind: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}
