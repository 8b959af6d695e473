//! The library's front door: the connection tracking table of a network namespace.
//!
//! ```no_run
//! use conntracker::conntrack::{Conntrack, DumpRequest, Error};
//! use conntracker::model::Mark;
//!
//! # fn main() -> Result<(), Error> {
//! let mut conntrack = Conntrack::connect()?;
//! for flow in conntrack.dump()? {
//!     let flow = flow?;
//!     println!("{} -> {}", flow.orig.src, flow.orig.dst);
//! }
//!
//! // Without copying, and only those with connmark 1 in the low byte, which the kernel picks out.
//! let request = DumpRequest::default().mark((Mark(1), 0xff));
//! let mut bytes = 0;
//! let mut marked = conntrack.dump_filtered(&request)?;
//! while let Some(entry) = marked.next()? {
//!     bytes += entry.counters.iter().flatten().map(|c| c.bytes).sum::<u64>();
//! }
//! drop(marked);
//! println!("{bytes} bytes in {} flows", conntrack.count()?);
//! # Ok(())
//! # }
//! ```
//!
//! # Overview
//!
//! | to | call |
//! |---|---|
//! | read all entries | [`Conntrack::dump`], [`Conntrack::dump_filtered`] (an iterator of copies, or lending with [`Dump::next`]), [`Conntrack::dump_with`], [`Dump::for_each`] (a closure; the fastest), `Conntrack::into_async_dump` (feature `tokio`, a `Stream`) |
//! | read other lists, or set counters back | [`Conntrack::dump_list`] |
//! | choose entries | [`DumpRequest`]; what the kernel does of it: [`FilterSupport`] |
//! | read one entry | [`Conntrack::get`], [`Conntrack::get_and_zero`] |
//! | make one | [`Conntrack::create`], [`Conntrack::create_or_update`] with a [`NewEntry`] |
//! | change | [`Conntrack::update`], [`Conntrack::update_matching`] with a [`Change`] |
//! | ask about, change or remove entries as they are dumped | [`Conntrack::for_each_matching`] |
//! | remove | [`Conntrack::delete`], [`Conntrack::delete_matching`], [`Conntrack::flush`] |
//! | be told what happens | [`Conntrack::into_events`]: an [`EventStream`], or with `EventStream::into_async` a stream on tokio |
//! | expectations | [`Conntrack::expectations`], [`Conntrack::get_expectation`], [`Conntrack::create_expectation`], [`Conntrack::delete_expectation`], [`Conntrack::flush_expectations`] |
//! | count | [`Conntrack::count`], [`Conntrack::stats`], [`Conntrack::cpu_stats`], [`Conntrack::expect_cpu_stats`] |
//!
//! Whichever thread uses a [`Conntrack`], it stays with the network namespace of the thread that
//! connected it. It needs CAP_NET_ADMIN there.
//!
//! # Making, changing, removing
//!
//! ```no_run
//! use conntracker::conntrack::{Change, Conntrack, EntryKey, MarkChange, NewEntry};
//! use conntracker::model::{L4, Mark, Tuple};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut conntrack = Conntrack::connect()?;
//! let orig = Tuple {
//!     src: "192.0.2.1".parse()?,
//!     dst: "198.51.100.2".parse()?,
//!     proto: 17,
//!     l4: L4::Ports { src: 1000, dst: 53 },
//! };
//! if let Some(entry) = NewEntry::new(orig, 60) {
//!     conntrack.create(&entry)?;
//! }
//! let key = EntryKey::orig(orig);
//! let change = Change::default().mark(MarkChange::to(Mark(7)));
//! conntrack.update(&key, &change)?;
//! if let Some(entry) = conntrack.get(&key)? {
//!     // By its identifier: not an entry that has taken its place.
//!     conntrack.delete(&key.with_id(entry.id))?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Events
//!
//! What is lost is counted and told, and made up for by a dump of the table ([`Item`] has the order):
//!
//! ```no_run
//! use conntracker::conntrack::{Conntrack, Error, EventOptions, Item};
//!
//! # fn main() -> Result<(), Error> {
//! let mut events = Conntrack::connect()?.into_events(&EventOptions::default())?;
//! // Begin with what is there.
//! events.resync();
//! loop {
//!     match events.next()? {
//!         Item::Event { kind, entry, .. } => println!("{kind:?} {:?}", entry.orig),
//!         Item::Resync(entry) => println!("there is {:?}", entry.orig),
//!         Item::Gap(gap) => eprintln!("{} events were lost", gap.lost.unwrap_or_default()),
//!         _ => {}
//!     }
//! }
//! # }
//! ```
//!
//! On tokio:
//!
//! ```no_run
//! use conntracker::conntrack::{Conntrack, DumpRequest, Error, EventOptions, List};
//!
//! # async fn example() -> Result<(), Error> {
//! let mut dump = Conntrack::connect()?.into_async_dump(List::Table, &DumpRequest::default())?;
//! while let Some(entry) = dump.next().await? {
//!     println!("{:?}", entry.orig);
//! }
//! let mut events = Conntrack::connect()?.into_events(&EventOptions::default())?.into_async()?;
//! let first = events.next().await?;
//! println!("{first:?}");
//! # Ok(())
//! # }
//! ```
//!
//! # Errors
//!
//! [`Error`] names the request, the kernel's error number ([`Error::is_refused`]) and the kernel's own
//! words where it has some. `EPERM` is a missing CAP_NET_ADMIN, `ENOENT` an entry that is not there,
//! `EEXIST` one that is, `EOPNOTSUPP` what this kernel, or this kind of entry, cannot.

mod dump;
mod expectations;
mod filtered;
mod items;
mod matching;
mod resync;
mod stream;
#[cfg(feature = "tokio")]
mod tokio;

use nix::errno::Errno;

pub use self::dump::{Dump, Entries};
pub use self::items::{EventItem, EventOptions, EventStats, Gap, Item, OwnedItem};
pub use self::matching::{Matched, Requests};
pub use self::stream::EventStream;
#[cfg(feature = "tokio")]
pub use self::tokio::{AsyncDump, AsyncEventStream};
pub use crate::netlink::ctnetlink::expect::{
    ConntrackExpectation, EXPECT_INACTIVE, EXPECT_PERMANENT, EXPECT_USERSPACE, ExpectKey,
    ExpectNat, ExpectRequest, Expectation, NewExpectation,
};
pub use crate::netlink::ctnetlink::stats::{CpuStats, ExpectCpuStats, GlobalStats};
pub use crate::netlink::{DecodeError, Error};
pub use crate::{
    model::{Mark, Zone, counters::Counters, state::ProtoState},
    netlink::ctnetlink::{
        Change, ConntrackEntry, DumpRequest, DumpStats, Entry, EntryKey, EntryZone, EventBuffer,
        EventGroups, FilterSupport, Kind, LabelChange, List, MarkChange, NatRange, NewEntry,
        OwnedAttribute, ProtoChange, SeqAdj, SynProxy, TupleFilter, UnknownAttribute,
        UnknownAttributes,
    },
};

use crate::netlink::Socket;
use crate::netlink::ctnetlink::{requests, stats, support};
use crate::netlink::exchange::Answer;
use crate::netlink::socket::RECEIVE_BYTES;

/// The connection tracking table of one network namespace. Needs CAP_NET_ADMIN there.
pub struct Conntrack {
    /// A second socket, so that single requests can be made during a dump.
    requests: Socket,
    buffer: Vec<u8>,
    dumps: Socket,
    dump_buffer: Vec<u8>,
    /// The answer of an unfinished dump: the kernel begins no other on the socket before it was read.
    unread: Option<Answer>,
}

impl Conntrack {
    /// Opens the table of the calling thread's network namespace. The connection stays with that namespace, whichever
    /// thread uses it.
    pub fn connect() -> Result<Self, Error> {
        Ok(Self {
            requests: Socket::netfilter()?,
            buffer: vec![0; RECEIVE_BYTES],
            dumps: Socket::netfilter()?,
            dump_buffer: vec![0; RECEIVE_BYTES],
            unread: None,
        })
    }

    /// All entries, in the kernel's order.
    pub fn dump(&mut self) -> Result<Dump<'_>, Error> {
        self.dump_list(List::Table, &DumpRequest::default())
    }

    /// The entries that match `request`.
    pub fn dump_filtered(&mut self, request: &DumpRequest) -> Result<Dump<'_>, Error> {
        self.dump_list(List::Table, request)
    }

    /// The entries of a list that match `request`.
    pub fn dump_list(&mut self, list: List, request: &DumpRequest) -> Result<Dump<'_>, Error> {
        Dump::start(self, list, request)
    }

    /// Hands the entries that match `request` to `each` as they arrive, in constant memory and without
    /// copying or allocating.
    ///
    /// After an error the rest of the answer may be unread: connect again.
    pub fn dump_with(
        &mut self,
        request: &DumpRequest,
        mut each: impl FnMut(Entry<'_>),
    ) -> Result<DumpStats, Error> {
        self.dump_filtered(request)?.for_each(|entry| {
            each(*entry);
            Ok(())
        })
    }

    /// Dumps a list within tokio's runtime. The dump takes the connection.
    #[cfg(feature = "tokio")]
    pub fn into_async_dump(self, list: List, request: &DumpRequest) -> Result<AsyncDump, Error> {
        AsyncDump::start(self, list, request)
    }

    /// Listens to events. The stream takes the connection, to read the table after events were lost.
    pub fn into_events(self, options: &EventOptions) -> Result<EventStream, Error> {
        EventStream::start(self, options)
    }

    /// An entry; `None` if there is none, or one with another identifier.
    pub fn get(&mut self, key: &EntryKey) -> Result<Option<ConntrackEntry>, Error> {
        self.get_entry(key, false)
    }

    /// As [`Self::get`], without copying: the entry is handed to `make`.
    pub fn get_with<T>(
        &mut self,
        key: &EntryKey,
        make: impl FnOnce(&Entry<'_>) -> T,
    ) -> Result<Option<T>, Error> {
        Requests::new(&mut self.requests, &mut self.buffer).get(key, make)
    }

    /// As [`Self::get`]; the kernel then resets the accounting of the entry.
    pub fn get_and_zero(&mut self, key: &EntryKey) -> Result<Option<ConntrackEntry>, Error> {
        self.get_entry(key, true)
    }

    fn get_entry(&mut self, key: &EntryKey, zero: bool) -> Result<Option<ConntrackEntry>, Error> {
        let mut requests = Requests::new(&mut self.requests, &mut self.buffer);
        let make = |entry: &Entry<'_>| ConntrackEntry::from(entry);
        if zero { requests.get_and_zero(key, make) } else { requests.get(key, make) }
    }

    /// Makes an entry.
    ///
    /// # Errors
    /// EEXIST if an entry has one of its tuples, EINVAL if its tuples are of two protocols, ENOENT if
    /// there is no such master, EOPNOTSUPP if there is no such helper.
    pub fn create(&mut self, entry: &NewEntry) -> Result<(), Error> {
        requests::create(&mut self.requests, &mut self.buffer, entry, true)
    }

    /// Makes an entry; if there is one with its original direction, that one is changed. An existing
    /// entry refuses translation and a master with EOPNOTSUPP.
    pub fn create_or_update(&mut self, entry: &NewEntry) -> Result<(), Error> {
        requests::create(&mut self.requests, &mut self.buffer, entry, false)
    }

    /// Changes an entry. The identifier in `key` is ignored, because the kernel does not compare it.
    ///
    /// # Errors ENOENT if there is no such entry; for others see the fields of [`Change`]. The changes before the
    /// refused one are made.
    pub fn update(&mut self, key: &EntryKey, change: &Change) -> Result<(), Error> {
        requests::update(&mut self.requests, &mut self.buffer, key, change)
    }

    /// Removes an entry; false if there was none, or one with another identifier.
    pub fn delete(&mut self, key: &EntryKey) -> Result<bool, Error> {
        match requests::delete(&mut self.requests, &mut self.buffer, key) {
            Ok(()) => Ok(true),
            Err(error) if error.is_refused(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes all entries, or those of a family (AF_INET or AF_INET6; Linux 5.3+, older kernels ignore it or always
    /// apply it), or those whose `mark & mask` is a value. For anything else see [`Self::delete_matching`].
    pub fn flush(&mut self, family: Option<u8>, mark: Option<(Mark, u32)>) -> Result<(), Error> {
        requests::flush(&mut self.requests, &mut self.buffer, family, mark)
    }

    /// Number of entries, without reading them.
    pub fn count(&mut self) -> Result<u32, Error> {
        self.stats().map(|stats| stats.entries)
    }

    /// Number of entries and the most there may be.
    pub fn stats(&mut self) -> Result<GlobalStats, Error> {
        stats::global(&mut self.requests)
    }

    /// The counters of each possible CPU.
    pub fn cpu_stats(&mut self) -> Result<Vec<CpuStats>, Error> {
        stats::per_cpu(&mut self.requests)
    }

    /// What each CPU has counted of expectations.
    pub fn expect_cpu_stats(&mut self) -> Result<Vec<ExpectCpuStats>, Error> {
        stats::expectations_per_cpu(&mut self.requests)
    }

    /// Which filters the running kernel has, probed in the network namespace of the calling thread.
    pub fn filter_support() -> Result<FilterSupport, Error> {
        support::probe()
    }

    /// Reads the rest of an unfinished dump.
    fn skip_unread(&mut self) -> Result<(), Error> {
        if let Some(mut answer) = self.unread.take() {
            while answer.advance(&self.dumps, &mut self.dump_buffer)?.is_some() {}
        }
        Ok(())
    }
}
