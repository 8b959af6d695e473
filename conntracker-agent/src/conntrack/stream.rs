//! The event stream: events, losses, and a dump of the table after each loss.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Conntrack;
use super::items::{EventItem, EventOptions, EventStats};
use super::resync::Core;
use crate::netlink::Error;
use crate::netlink::ctnetlink::{Listener, Progress};

/// Events of a network namespace; calls block.
///
/// With `net.netfilter.nf_conntrack_events` at 2, the default since Linux 5.19, the kernel reports events only of
/// flows that began while a socket listened: an older flow has not even a DESTROY event.
pub struct EventStream {
    pub(super) listener: Listener,
    pub(super) core: Core,
}

impl EventStream {
    pub(super) fn start(mut conntrack: Conntrack, options: &EventOptions) -> Result<Self, Error> {
        conntrack.skip_unread()?;
        let Conntrack { requests, dumps, dump_buffer, .. } = conntrack;
        let listener = Listener::new(requests, options.groups, options.buffer)?;
        Ok(Self { listener, core: Core::new(dumps, dump_buffer, options) })
    }

    /// The next item; waits until there is one.
    #[expect(clippy::should_implement_trait, reason = "a lending iterator, which Iterator is not")]
    pub fn next(&mut self) -> Result<EventItem<'_>, Error> {
        let step = loop {
            match self.core.step(&mut self.listener)? {
                Progress::Item(step) => break step,
                Progress::More => {}
                Progress::End => drop(self.wait(None)?),
            }
        };
        Ok(self.core.item(step))
    }

    /// The next item; `None` if there is none within this time, or if a signal handler interrupted the wait.
    pub fn next_within(&mut self, timeout: Duration) -> Result<Option<EventItem<'_>>, Error> {
        let end = Instant::now() + timeout;
        let step = loop {
            let progress = self.core.step(&mut self.listener)?;
            let left = end.saturating_duration_since(Instant::now());
            match progress {
                Progress::Item(step) => break step,
                Progress::More if !left.is_zero() => {}
                Progress::End if !left.is_zero() && self.wait(Some(left))? => {}
                Progress::More | Progress::End => return Ok(None),
            }
        };
        Ok(Some(self.core.item(step)))
    }

    /// Dumps the table now, as after a loss, so that a stream can begin with all existing flows.
    pub fn resync(&mut self) {
        self.core.resync();
    }

    /// What was told so far.
    pub fn stats(&mut self) -> EventStats {
        self.core.stats(&mut self.listener)
    }

    /// Waits until the socket is readable; false after a signal or the timeout.
    fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
            // Rounded up, because poll(2) counts milliseconds.
            let millis = timeout.as_nanos().div_ceil(1_000_000);
            u32::try_from(millis).ok().and_then(|m| m.try_into().ok()).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(Error::System { call: "poll", source: errno.into() }),
        }
    }
}

impl AsRawFd for EventStream {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

/// The descriptor is readable when there are events. During a resync it may not be, because a resync never waits.
impl AsFd for EventStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}
