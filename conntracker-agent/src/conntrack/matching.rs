//! What is done to each entry that a request matches.

use nix::errno::Errno;

use super::Conntrack;
use crate::kernel::netlink::ctnetlink::{
    Change, Cursor, DumpRequest, DumpStats, Entry, EntryKey, List, requests,
};
use crate::kernel::netlink::{Error, Socket};

/// What became of the entries that a request matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// Entries deleted or changed.
    pub done: u64,
    /// Entries that had ended by themselves between being dumped and being asked for.
    pub gone: u64,
    /// The dump that found them.
    pub dump: DumpStats,
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

    /// As [`Self::delete_matching`], of those entries alone that are `wanted`: what a request cannot say.
    pub fn delete_where(
        &mut self,
        request: &DumpRequest,
        wanted: impl Fn(&Entry<'_>) -> bool,
        each: impl FnMut(&Entry<'_>),
    ) -> Result<Matched, Error> {
        self.for_each_matching(request, wanted, requests::delete, each)
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

    /// As [`Self::update_matching`], of those entries alone that are `wanted`: what a request cannot say.
    pub fn update_where(
        &mut self,
        request: &DumpRequest,
        wanted: impl Fn(&Entry<'_>) -> bool,
        change: &Change,
        each: impl FnMut(&Entry<'_>),
    ) -> Result<Matched, Error> {
        let update = |socket: &mut Socket, buffer: &mut [u8], key: &EntryKey| {
            requests::update(socket, buffer, key, change)
        };
        self.for_each_matching(request, wanted, update, each)
    }

    fn for_each_matching(
        &mut self,
        request: &DumpRequest,
        wanted: impl Fn(&Entry<'_>) -> bool,
        mut act: impl FnMut(&mut Socket, &mut [u8], &EntryKey) -> Result<(), Error>,
        mut each: impl FnMut(&Entry<'_>),
    ) -> Result<Matched, Error> {
        self.skip_unread()?;
        let Self { requests, buffer, dumps, dump_buffer, .. } = self;
        let mut cursor = Cursor::start(dumps, List::Table, request)?;
        let mut matched = Matched::default();
        let mut take = |entry: &Entry<'_>| {
            if !wanted(entry) {
                return Ok(());
            }
            match act(requests, buffer, &entry.into()) {
                Ok(()) => {
                    matched.done += 1;
                    each(entry);
                }
                Err(error) if error.is_refused(Errno::ENOENT) => matched.gone += 1,
                Err(error) => return Err(error),
            }
            Ok(())
        };
        while let Some((_, taken)) = cursor.next(dumps, dump_buffer, &mut take)? {
            taken?;
        }
        Ok(Matched { dump: cursor.stats(), ..matched })
    }
}
