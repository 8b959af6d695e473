//! Dumps and events for programs on tokio.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use nix::errno::Errno;
use tokio::io::unix::AsyncFd;

use super::Conntrack;
use super::dump::decode_found;
use super::items::{EventItem, EventStats, OwnedItem};
use super::resync::{Core, Step};
use super::stream::EventStream;
use crate::netlink::ctnetlink::{
    ConntrackEntry, Cursor, DumpRequest, DumpStats, Entry, List, Listener, Progress,
};
use crate::netlink::exchange::Found;
use crate::netlink::{Error, Socket};
use crate::os::watch::watch;

/// A dump for programs on tokio, otherwise as [`Dump`](super::Dump). It owns its connection.
///
/// Dropping it ends the dump.
pub struct AsyncDump {
    socket: AsyncFd<Socket>,
    cursor: Cursor,
    buffer: Vec<u8>,
    failed: bool,
}

impl AsyncDump {
    pub(super) fn start(
        mut conntrack: Conntrack,
        list: List,
        request: &DumpRequest,
    ) -> Result<Self, Error> {
        conntrack.skip_unread()?;
        let Conntrack { mut dumps, dump_buffer, .. } = conntrack;
        dumps.set_nonblocking()?;
        let cursor = Cursor::start(&mut dumps, list, request)?;
        let socket = watch(dumps)
            .map_err(|source| Error::System { call: "registering with tokio", source })?;
        Ok(Self { socket, cursor, buffer: dump_buffer, failed: false })
    }

    /// The next entry, borrowed until the next call; `None` at the end. It loses nothing when it is cancelled.
    pub async fn next(&mut self) -> Result<Option<Entry<'_>>, Error> {
        let found = poll_fn(|cx| self.poll_advance(cx, |_| ())).await?;
        Ok(found.and_then(|(found, ())| decode_found(&found, &self.buffer)))
    }

    /// What was dumped so far.
    #[must_use]
    pub fn stats(&self) -> DumpStats {
        self.cursor.stats()
    }

    fn poll_advance<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut make: impl FnMut(&Entry<'_>) -> T,
    ) -> Poll<Result<Option<(Found, T)>, Error>> {
        loop {
            // The kernel makes a dump while it is read, so the socket is always ready. This call yields when tokio's
            // budget for the task is used up.
            let ready = if self.cursor.answer().datagram_is_read() {
                Some(ready!(self.socket.poll_read_ready(cx)).map_err(waiting)?)
            } else {
                None
            };
            match self.cursor.step(self.socket.get_ref(), &mut self.buffer, &mut make) {
                Ok(Progress::Item(item)) => return Poll::Ready(Ok(Some(item))),
                Ok(Progress::More) => {}
                Ok(Progress::End) => return Poll::Ready(Ok(None)),
                Err(error) if error.is_system(Errno::EAGAIN) => {
                    if let Some(mut ready) = ready {
                        ready.clear_ready();
                    }
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// Why waiting failed.
fn waiting(source: io::Error) -> Error {
    Error::System { call: "waiting for the socket", source }
}

/// Yields owned entries; ends after an error.
impl Stream for AsyncDump {
    type Item = Result<ConntrackEntry, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.failed {
            return Poll::Ready(None);
        }
        let entry = ready!(self.poll_advance(cx, |entry| ConntrackEntry::from(entry)));
        self.failed = entry.is_err();
        Poll::Ready(entry.transpose().map(|entry| entry.map(|(_, entry)| entry)))
    }
}

impl EventStream {
    /// For programs on tokio, within its runtime.
    pub fn into_async(self) -> Result<AsyncEventStream, Error> {
        let Self { listener, core } = self;
        let listener = watch(listener)
            .map_err(|source| Error::System { call: "registering with tokio", source })?;
        Ok(AsyncEventStream { listener, core, failed: false })
    }
}

/// Events of a network namespace, for programs on tokio. As a [`Stream`] it copies each item and ends only after an
/// error.
pub struct AsyncEventStream {
    listener: AsyncFd<Listener>,
    core: Core,
    failed: bool,
}

impl AsyncEventStream {
    /// The next item. It loses nothing when it is cancelled.
    ///
    /// A resync does not wait: a call decodes a part of it (some 100 entries).
    pub async fn next(&mut self) -> Result<EventItem<'_>, Error> {
        let step = poll_fn(|cx| self.poll_step(cx)).await?;
        Ok(self.core.item(step))
    }

    /// Dumps the table now, as after a loss.
    pub fn resync(&mut self) {
        self.core.resync();
    }

    /// What was told so far.
    pub fn stats(&mut self) -> EventStats {
        self.core.stats(self.listener.get_mut())
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, Error>> {
        loop {
            match self.core.step(self.listener.get_mut())? {
                Progress::Item(step) => return Poll::Ready(Ok(step)),
                Progress::More => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Progress::End => {}
            }
            let ready = ready!(self.listener.poll_read_ready(cx));
            let waiting = |source: io::Error| Error::System { call: "waiting for events", source };
            ready.map_err(waiting)?.clear_ready();
        }
    }
}

impl Stream for AsyncEventStream {
    type Item = Result<OwnedItem, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.failed {
            return Poll::Ready(None);
        }
        let step = ready!(self.poll_step(cx));
        self.failed = step.is_err();
        Poll::Ready(Some(step.map(|step| (&self.core.item(step)).into())))
    }
}
