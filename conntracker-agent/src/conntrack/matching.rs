//! Requests for each entry that a dump matches.

use nix::errno::Errno;

use super::Conntrack;
use crate::netlink::ctnetlink::{
    Change, Cursor, DumpRequest, DumpStats, Entry, EntryKey, List, requests,
};
use crate::netlink::{Error, Socket};

/// Numbers of entries that a request matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Matched {
    /// Entries deleted or changed.
    pub done: u64,
    /// Entries that ended between the dump and the request.
    pub gone: u64,
    /// The dump that found them.
    pub dump: DumpStats,
}

/// Requests about single entries while a dump is under way.
pub struct Requests<'c> {
    socket: &'c mut Socket,
    buffer: &'c mut [u8],
}

impl<'c> Requests<'c> {
    pub(super) fn new(socket: &'c mut Socket, buffer: &'c mut [u8]) -> Self {
        Self { socket, buffer }
    }

    /// Hands the entry to `make` as it is now; `None` if there is none, or one with another identifier.
    pub fn get<T>(
        &mut self,
        key: &EntryKey,
        make: impl FnOnce(&Entry<'_>) -> T,
    ) -> Result<Option<T>, Error> {
        self.read(key, false, make)
    }

    /// As [`Self::get`]; the kernel then resets the accounting of the entry.
    pub fn get_and_zero<T>(
        &mut self,
        key: &EntryKey,
        make: impl FnOnce(&Entry<'_>) -> T,
    ) -> Result<Option<T>, Error> {
        self.read(key, true, make)
    }

    /// As [`Conntrack::update`].
    pub fn update(&mut self, key: &EntryKey, change: &Change) -> Result<(), Error> {
        requests::update(self.socket, self.buffer, key, change)
    }

    /// Removes the entry; ENOENT if there is none, or one with another identifier.
    pub fn delete(&mut self, key: &EntryKey) -> Result<(), Error> {
        requests::delete(self.socket, self.buffer, key)
    }

    fn read<T>(
        &mut self,
        key: &EntryKey,
        zero: bool,
        make: impl FnOnce(&Entry<'_>) -> T,
    ) -> Result<Option<T>, Error> {
        let make =
            |entry: &Entry<'_>| (key.id.is_none() || key.id == entry.id).then(|| make(entry));
        match requests::get(self.socket, self.buffer, key, zero, make) {
            Ok(made) => Ok(made),
            Err(error) if error.is_refused(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Conntrack {
    /// Removes the entries that match, one by one, and hands each to `each` after it was removed. With
    /// a request for everything [`Self::flush`] is faster, but does not say what it removed.
    ///
    /// After an error some of the entries are removed; connect again.
    pub fn delete_matching(
        &mut self,
        request: &DumpRequest,
        each: impl FnMut(&Entry<'_>),
    ) -> Result<Matched, Error> {
        self.delete_where(request, |_| true, each)
    }

    /// As [`Self::delete_matching`], only for entries that are `wanted`, for conditions that a request cannot
    /// express.
    pub fn delete_where(
        &mut self,
        request: &DumpRequest,
        wanted: impl Fn(&Entry<'_>) -> bool,
        each: impl FnMut(&Entry<'_>),
    ) -> Result<Matched, Error> {
        #[expect(
            clippy::redundant_closure_for_method_calls,
            reason = "the method alone is of one lifetime only"
        )]
        self.act_on_matching(request, wanted, |requests, key| requests.delete(key), each)
    }

    /// Changes the entries that match, one by one, and hands each, as it was before, to `each`
    /// after it was changed.
    ///
    /// After an error some of the entries are changed; connect again.
    pub fn update_matching(
        &mut self,
        request: &DumpRequest,
        change: &Change,
        each: impl FnMut(&Entry<'_>),
    ) -> Result<Matched, Error> {
        self.update_where(request, |_| true, change, each)
    }

    /// As [`Self::update_matching`], only for entries that are `wanted`, for conditions that a request cannot
    /// express.
    pub fn update_where(
        &mut self,
        request: &DumpRequest,
        wanted: impl Fn(&Entry<'_>) -> bool,
        change: &Change,
        each: impl FnMut(&Entry<'_>),
    ) -> Result<Matched, Error> {
        self.act_on_matching(request, wanted, |requests, key| requests.update(key, change), each)
    }

    /// Hands the entries that match to `each` as they arrive, with [`Requests`] to read, change or remove them. An
    /// error of `each` ends the dump; connect again then.
    pub fn for_each_matching<E: From<Error>>(
        &mut self,
        request: &DumpRequest,
        mut each: impl FnMut(&mut Requests<'_>, &Entry<'_>) -> Result<(), E>,
    ) -> Result<DumpStats, E> {
        self.skip_unread()?;
        let Self { requests, buffer, dumps, dump_buffer, .. } = self;
        let mut requests = Requests::new(requests, buffer);
        let mut cursor = Cursor::start(dumps, List::Table, request)?;
        let mut take = |entry: &Entry<'_>| each(&mut requests, entry);
        while let Some((_, taken)) = cursor.next(dumps, dump_buffer, &mut take)? {
            taken?;
        }
        Ok(cursor.stats())
    }

    fn act_on_matching(
        &mut self,
        request: &DumpRequest,
        wanted: impl Fn(&Entry<'_>) -> bool,
        mut act: impl FnMut(&mut Requests<'_>, &EntryKey) -> Result<(), Error>,
        mut each: impl FnMut(&Entry<'_>),
    ) -> Result<Matched, Error> {
        let mut matched = Matched::default();
        let dump = self.for_each_matching(request, |requests, entry| {
            if !wanted(entry) {
                return Ok(());
            }
            match act(requests, &entry.into()) {
                Ok(()) => {
                    matched.done += 1;
                    each(entry);
                }
                Err(error) if error.is_refused(Errno::ENOENT) => matched.gone += 1,
                Err(error) => return Err(error),
            }
            Ok(())
        })?;
        Ok(Matched { dump, ..matched })
    }
}
