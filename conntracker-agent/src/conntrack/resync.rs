//! The event stream without waiting: events, losses and the resync after them.
//!
//! After the receive buffer was full, the kernel drops every event until the buffer was read empty
//! (NETLINK_S_CONGESTED of net/netlink/af_netlink.c). So the stream empties the buffer first and dumps the table
//! then: events after the dump are in the buffer. Events that arrive during the dump are stored, because it takes a
//! second for each million entries.

use super::items::{EventItem, EventOptions, EventStats, Gap, Item};
use crate::netlink::ctnetlink::{
    Cursor, DumpStats, Entry, Event, EventGroups, ExpectEvent, ExpectRequest, Expectation, List,
    Listener, Progress, Received, expect_requests,
};
use crate::netlink::exchange::{Answer, Found};
use crate::netlink::socket::RECEIVE_BYTES;
use crate::netlink::wire::{DecodeError, Message, Messages, align};
use crate::netlink::{Error, Socket};

/// The least space of the receive buffer that an event takes: `struct sk_buff`, and a head with room for `struct
/// skb_shared_info`.
const LEAST_BYTES: usize = 512;
/// First message type that belongs to a protocol.
const NLMSG_MIN_TYPE: u16 = 0x10;
/// Datagrams without an item after which a call returns, so that the caller can do other work.
const PATIENCE: usize = 64;
/// Datagrams stored at once, so that a flood of events does not stop the dump.
const DATAGRAMS: usize = 1024;

/// The next step of the stream; [`Core::item`] returns its item.
pub(super) enum Step {
    Event(Found),
    Gap(Gap),
    ResyncBegin(Option<u64>),
    Resync(Found),
    ResyncExpect(Found),
    ResyncEnd(DumpStats),
    Rejected(DecodeError),
}

enum State {
    /// Events are passed on as they arrive.
    Live,
    /// Events are passed on until the buffer was empty once, at the latest after so many datagrams.
    Draining(usize),
    /// The table is read.
    Table(Cursor),
    /// Expectations are read; the table was.
    Expectations(Answer, DumpStats),
}

/// The stream without its socket.
pub(super) struct Core {
    options: EventOptions,
    dumps: Socket,
    dump_buffer: Vec<u8>,
    state: State,
    /// Datagrams of events, one after the other, of which those from `next` to `end` are unread.
    events: Vec<u8>,
    next: usize,
    end: usize,
    /// The buffer was full while the table was read.
    overrun: bool,
    stats: EventStats,
}

impl Core {
    pub fn new(dumps: Socket, dump_buffer: Vec<u8>, options: &EventOptions) -> Self {
        Self {
            options: *options,
            dumps,
            dump_buffer,
            state: State::Live,
            events: vec![0; RECEIVE_BYTES],
            next: 0,
            end: 0,
            overrun: false,
            stats: EventStats::default(),
        }
    }

    pub fn resync(&mut self) {
        if matches!(self.state, State::Live) {
            self.state = State::Draining(0);
        }
    }

    pub fn stats(&self, listener: &mut Listener) -> EventStats {
        EventStats { lost: listener.lost(), buffer: listener.buffer(), ..self.stats }
    }

    /// The next step; `End` if there is none before the socket is readable.
    pub fn step(&mut self, listener: &mut Listener) -> Result<Progress<Step>, Error> {
        for _ in 0..PATIENCE {
            let step = match &mut self.state {
                State::Live | State::Draining(_) => match self.unread() {
                    Some(step) => Some(step),
                    None if self.overrun => {
                        self.overrun = false;
                        Some(self.gap(listener))
                    }
                    None if matches!(self.state, State::Draining(0)) => Some(self.begin(listener)?),
                    None => match self.receive(listener)? {
                        Received::Datagram(_) => None,
                        Received::Overrun => Some(self.gap(listener)),
                        Received::Nothing => match &mut self.state {
                            State::Draining(left) => {
                                *left = 0;
                                None
                            }
                            _ => return Ok(Progress::End),
                        },
                    },
                },
                State::Table(_) => self.table(listener)?,
                State::Expectations(..) => Some(self.expectations()?),
            };
            if let Some(step) = step {
                return Ok(Progress::Item(step));
            }
        }
        Ok(Progress::More)
    }

    /// What a step is about.
    pub fn item(&self, step: Step) -> EventItem<'_> {
        match step {
            Step::Event(found) => event(&found.message(&self.events)),
            Step::Gap(gap) => Item::Gap(gap),
            Step::ResyncBegin(lost) => Item::ResyncBegin(lost),
            Step::Resync(found) => {
                let message = found.message(&self.dump_buffer);
                Entry::decode(message.payload).map_or_else(Item::Rejected, Item::Resync)
            }
            Step::ResyncExpect(found) => {
                let message = found.message(&self.dump_buffer);
                Expectation::decode(message.payload).map_or_else(Item::Rejected, Item::ResyncExpect)
            }
            Step::ResyncEnd(stats) => Item::ResyncEnd(stats),
            Step::Rejected(error) => Item::Rejected(error),
        }
    }

    /// The next event that was received.
    fn unread(&mut self) -> Option<Step> {
        loop {
            let unread = self.events.get(self.next..self.end).unwrap_or_default();
            let message = match Messages::new(unread).next()? {
                Ok(message) => message,
                Err(error) => {
                    // The start of the next message is unknown.
                    self.next = self.end;
                    self.stats.rejected += 1;
                    return Some(Step::Rejected(error));
                }
            };
            let found = Found::of(&message, self.next);
            self.next = found.end().min(self.end);
            if message.kind < NLMSG_MIN_TYPE {
                continue;
            }
            self.stats.events += 1;
            match event(&message) {
                Item::Rejected(error) => {
                    self.stats.rejected += 1;
                    return Some(Step::Rejected(error));
                }
                Item::Event { entry, .. } if !self.options.filter.matches(&entry) => {
                    self.stats.left_out += 1;
                }
                _ => return Some(Step::Event(found)),
            }
        }
    }

    /// Receives when all is read.
    fn receive(&mut self, listener: &mut Listener) -> Result<Received, Error> {
        // Large buffers are needed during a resync only.
        if self.events.len() > RECEIVE_BYTES {
            self.events = vec![0; RECEIVE_BYTES];
        }
        let received = listener.receive(&mut self.events)?;
        (self.next, self.end) = (0, 0);
        if let Received::Datagram(len) = received {
            self.end = len;
            if let State::Draining(left) = &mut self.state {
                *left = left.saturating_sub(1);
            }
        }
        Ok(received)
    }

    /// Reports a loss, and plans the dump for when the buffer was read empty.
    fn gap(&mut self, listener: &mut Listener) -> Step {
        self.stats.overruns += 1;
        if self.options.resync {
            // The kernel allows twice the size that was asked for.
            self.state = State::Draining(2 * listener.buffer() / LEAST_BYTES + 1);
        }
        Step::Gap(Gap {
            overruns: self.stats.overruns,
            lost: listener.lost(),
            buffer: listener.buffer(),
        })
    }

    fn begin(&mut self, listener: &mut Listener) -> Result<Step, Error> {
        (self.next, self.end) = (0, 0);
        self.stats.resyncs += 1;
        self.state =
            State::Table(Cursor::start(&mut self.dumps, List::Table, &self.options.filter)?);
        Ok(Step::ResyncBegin(listener.lost()))
    }

    /// The next entry of the table.
    fn table(&mut self, listener: &mut Listener) -> Result<Option<Step>, Error> {
        let State::Table(cursor) = &mut self.state else { return Ok(None) };
        if cursor.answer().datagram_is_read() {
            self.store_events(listener)?;
        }
        let State::Table(cursor) = &mut self.state else { return Ok(None) };
        match cursor.step(&self.dumps, &mut self.dump_buffer, |_| ())? {
            Progress::Item((found, ())) => return Ok(Some(Step::Resync(found))),
            Progress::More => return Ok(None),
            Progress::End => {}
        }
        let stats = cursor.stats();
        if self.options.groups.overlaps(EventGroups::EXPECTATIONS) {
            let answer = expect_requests::list(&mut self.dumps, &ExpectRequest::default())?;
            self.state = State::Expectations(answer, stats);
            return Ok(None);
        }
        self.state = State::Live;
        Ok(Some(Step::ResyncEnd(stats)))
    }

    /// The next expectation.
    fn expectations(&mut self) -> Result<Step, Error> {
        let State::Expectations(answer, stats) = &mut self.state else {
            return Ok(Step::ResyncEnd(DumpStats::default()));
        };
        if let Some(found) = answer.advance(&self.dumps, &mut self.dump_buffer)? {
            return Ok(Step::ResyncExpect(found));
        }
        let stats = *stats;
        self.state = State::Live;
        Ok(Step::ResyncEnd(stats))
    }

    /// Stores events from the socket during a dump, up to the largest size of its buffer.
    fn store_events(&mut self, listener: &mut Listener) -> Result<(), Error> {
        for _ in 0..DATAGRAMS {
            if self.overrun || self.end >= self.options.buffer.limit {
                return Ok(());
            }
            let needed = self.end + RECEIVE_BYTES;
            if self.events.len() < needed {
                self.events.resize(needed.max(2 * self.events.len()), 0);
            }
            let free = self.events.get_mut(self.end..).unwrap_or_default();
            match listener.receive(free)? {
                Received::Datagram(len) => self.end += align(len),
                Received::Overrun => self.overrun = true,
                Received::Nothing => return Ok(()),
            }
        }
        Ok(())
    }
}

/// The event in a message.
fn event<'a>(message: &Message<'a>) -> EventItem<'a> {
    match ExpectEvent::decode(message) {
        Some(Ok(ExpectEvent { kind, portid, expectation })) => {
            Item::Expect { kind, portid, expectation }
        }
        Some(Err(error)) => Item::Rejected(error),
        None => match Event::decode(message) {
            Ok(Event { kind, portid, entry }) => Item::Event { kind, portid, entry },
            Err(error) => Item::Rejected(error),
        },
    }
}
