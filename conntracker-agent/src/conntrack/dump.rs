//! Dumps as iterators.

use std::thread::available_parallelism;

use super::Conntrack;
use crate::netlink::Error;
use crate::netlink::ctnetlink::{ConntrackEntry, Cursor, DumpRequest, DumpStats, Entry, List};
use crate::netlink::exchange::Found;

/// Entries up to which a dump ends sooner than a thread starts.
const SHORT: u32 = 1000;

/// A dump, read while the kernel makes it. It takes 64 KiB of memory however large the table is, and eight times as
/// much where a thread receives ahead ([`Self::for_each`]).
///
/// [`Self::next`] lends entries without copying them; as an iterator (`for entry in dump`) each entry
/// is copied. Dropping it before its end is fine: the next dump skips the rest first.
///
/// The table changes meanwhile: an entry that begins or ends during the dump may be in it or not.
pub struct Dump<'c> {
    conntrack: &'c mut Conntrack,
    cursor: Option<Cursor>,
}

impl<'c> Dump<'c> {
    pub(super) fn start(
        conntrack: &'c mut Conntrack,
        list: List,
        request: &DumpRequest,
    ) -> Result<Self, Error> {
        conntrack.skip_unread()?;
        let cursor = Cursor::start(&mut conntrack.dumps, list, request)?;
        Ok(Self { conntrack, cursor: Some(cursor) })
    }

    /// The next entry, borrowed until the next call; `None` at the end. Messages that cannot be decoded are skipped
    /// and counted ([`Self::stats`]).
    ///
    /// Each entry is decoded once more than by [`Conntrack::dump_with`], the fastest way.
    #[expect(clippy::should_implement_trait, reason = "a lending iterator, which Iterator is not")]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>, Error> {
        let found = self.advance(|_| ())?;
        Ok(found.and_then(|(found, ())| decode_found(&found, &self.conntrack.dump_buffer)))
    }

    /// Hands the entries that are left to `each`, as they arrive, without copying them or allocating for
    /// each: the fastest way. An error of `each` ends it.
    ///
    /// Where there is more than one processor a long dump is received by a thread of its own, which ends
    /// with it.
    pub fn for_each<E: From<Error>>(
        mut self,
        mut each: impl FnMut(&Entry<'_>) -> Result<(), E>,
    ) -> Result<DumpStats, E> {
        let mut before = 0;
        let mut alone = available_parallelism().is_ok_and(|processors| processors.get() < 2);
        while let Some((_, done)) = self.advance(&mut each)? {
            done?;
            before += 1;
            if alone || before < SHORT {
                continue;
            }
            if let Some(cursor) = &mut self.cursor
                && cursor.answer().datagram_is_read()
            {
                if cursor.for_each_ahead(&self.conntrack.dumps, &mut each)? {
                    break;
                }
                alone = true;
            }
        }
        Ok(self.stats())
    }

    /// What was dumped so far.
    #[must_use]
    pub fn stats(&self) -> DumpStats {
        self.cursor.as_ref().map(Cursor::stats).unwrap_or_default()
    }

    /// Finds the next entry and makes something of it.
    pub(super) fn advance<T>(
        &mut self,
        make: impl FnMut(&Entry<'_>) -> T,
    ) -> Result<Option<(Found, T)>, Error> {
        let Some(cursor) = &mut self.cursor else { return Ok(None) };
        cursor.next(&self.conntrack.dumps, &mut self.conntrack.dump_buffer, make)
    }
}

impl Drop for Dump<'_> {
    fn drop(&mut self) {
        self.conntrack.unread =
            self.cursor.take().map(Cursor::into_answer).filter(|answer| !answer.ended());
    }
}

/// Decodes an entry for the second time, because the borrow checker does not accept a loop that returns a borrow of
/// the buffer in one branch and gives it back in the other.
pub(super) fn decode_found<'b>(found: &Found, buffer: &'b [u8]) -> Option<Entry<'b>> {
    Entry::decode(found.message(buffer).payload).ok()
}

impl<'c> IntoIterator for Dump<'c> {
    type Item = Result<ConntrackEntry, Error>;
    type IntoIter = Entries<'c>;

    fn into_iter(self) -> Self::IntoIter {
        Entries { dump: self, failed: false }
    }
}

/// The entries of a dump as owned copies.
pub struct Entries<'c> {
    dump: Dump<'c>,
    failed: bool,
}

impl Entries<'_> {
    /// What was dumped so far.
    #[must_use]
    pub fn stats(&self) -> DumpStats {
        self.dump.stats()
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<ConntrackEntry, Error>;

    /// Ends after an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let entry = self.dump.advance(|entry| ConntrackEntry::from(entry)).transpose()?;
        self.failed = entry.is_err();
        Some(entry.map(|(_, entry)| entry))
    }
}
