//! Prints dropped packets to standard output as they happen, in a thread: a slow reader never holds up the loop.

use std::{
    io::{self, BufWriter, Write},
    num::NonZeroU32,
    os::fd::AsFd,
    sync::mpsc::{
        Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel,
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    live::drops::{DropFollower, DropPrinter, Printed},
    os::threads,
    report::drops::{DropFormat, DropOutput},
};

/// Lines that wait to be written.
const MOST_WAITING: usize = 4096;

/// How often it is looked whether somebody still reads, if there is nothing to write.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How dropped packets are followed.
#[derive(Clone, Copy, Debug)]
pub struct FollowDrops {
    /// What lines look like.
    pub format: DropFormat,
    /// So many a second at most.
    pub rate: Option<NonZeroU32>,
}

/// The thread that writes.
pub(super) struct Lines(JoinHandle<io::Result<()>>);

/// What the loop has of it.
struct Queue(SyncSender<DropOutput>);

impl Lines {
    /// Starts the thread.
    pub fn start(follow: FollowDrops) -> Result<(Self, DropFollower)> {
        let (sender, receiver) = sync_channel(MOST_WAITING);
        let format = follow.format;
        let thread = threads::spawn("drops", move || write(&receiver, format))?;
        Ok((Self(thread), DropFollower::new(Box::new(Queue(sender)), follow.rate)))
    }

    /// Waits until all lines are written. A closed pipe is no error.
    pub fn end(self) -> Result<()> {
        let written =
            self.0.join().map_err(|_| anyhow!("the thread that writes drops has panicked"))?;
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.context("cannot write to standard output"),
        }
    }
}

impl DropPrinter for Queue {
    fn print(&mut self, output: DropOutput) -> Printed {
        match self.0.try_send(output) {
            Ok(()) => Printed::Yes,
            Err(TrySendError::Full(_)) => Printed::Full,
            Err(TrySendError::Disconnected(_)) => Printed::Closed,
        }
    }

    fn end(self: Box<Self>, last: Option<DropOutput>) {
        // Nobody reads any more, if that fails.
        let _ = last.map(|last| self.0.send(last));
    }
}

/// Writes lines as they come, until no more come or nobody reads them.
fn write(lines: &Receiver<DropOutput>, format: DropFormat) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout());
    let written = write_to(&mut out, lines, format);
    if written.is_err() {
        // The buffer must not be flushed when it is dropped.
        let _ = out.into_parts();
    }
    written
}

fn write_to(
    out: &mut BufWriter<io::Stdout>,
    lines: &Receiver<DropOutput>,
    format: DropFormat,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let line = match lines.try_recv() {
            Ok(line) => line,
            Err(TryRecvError::Disconnected) => return out.flush(),
            Err(TryRecvError::Empty) => {
                // What was written is seen before the next wait.
                out.flush()?;
                match lines.recv_timeout(LOOK_EVERY) {
                    Ok(line) => line,
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                    Err(RecvTimeoutError::Timeout) if is_closed(out.get_ref()) => {
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                    Err(RecvTimeoutError::Timeout) => continue,
                }
            }
        };
        bytes.clear();
        line.render(format, &mut bytes)?;
        out.write_all(&bytes)?;
    }
}

/// Whether the other end of a pipe is closed.
fn is_closed(out: &io::Stdout) -> bool {
    let mut polled = [PollFd::new(out.as_fd(), PollFlags::empty())];
    let found = poll(&mut polled, PollTimeout::ZERO);
    found.is_ok() && polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}
