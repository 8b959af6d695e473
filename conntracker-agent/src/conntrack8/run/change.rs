//! Commands that make, change and remove.

use std::process::ExitCode;

use conntracker_common::{IPPROTO_DCCP, IPPROTO_SCTP};
use nix::errno::Errno;

use super::failure::operation_failed;
use super::list::no_expectation;
use super::printer::{calendar, renderer};
use super::{Outcome, Session, connected, found, print_line};
use crate::conntrack::{
    Change, Entry, ExpectKey, Kind, MarkChange, NewEntry, NewExpectation, ProtoChange, ProtoState,
};
use crate::conntrack8::create::liberal_tcp;
use crate::conntrack8::edit::Edit;
use crate::conntrack8::filter::Filter;
use crate::conntrack8::values::{MarkArgument, Output};
use crate::conntrack8::{FAILURE, Rejection};
use crate::model::Status;

impl Session {
    /// Makes an entry.
    pub(super) fn create(&mut self, entry: &NewEntry, lenient: bool) -> Outcome {
        let made = match connected(&mut self.conntrack)?.create(entry) {
            Ok(()) => 1,
            Err(error) if error.is_refused(Errno::EEXIST) && lenient => 0,
            Err(error) if error.is_refused(Errno::EEXIST) => {
                let why = "Operation failed: Such conntrack exists, try -U to update";
                return Err(Rejection::failure(why).into());
            }
            Err(error) => return Err(error.into()),
        };
        let what = if lenient { "added" } else { "created" };
        self.summarize(made, &format!("flow entries have been {what}"))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Removes entries.
    pub(super) fn delete(&mut self, filter: &Filter, output: Output) -> Outcome {
        let Self { names, conntrack, printer, .. } = self;
        let calendar = calendar();
        let renderer = renderer(output, names, &calendar);
        let mut deleted = 0;
        connected(conntrack)?.for_each_matching(&filter.request, |requests, entry| {
            if !filter.matches(entry) {
                return Ok(());
            }
            match requests.delete(&entry.into()) {
                Ok(()) => {
                    renderer.done(printer.begun(|out| renderer.begin(out)), Kind::Destroy, entry);
                    deleted += 1;
                    printer.line()
                }
                // It has ended by itself meanwhile.
                Err(error) if error.is_refused(Errno::ENOENT) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })?;
        printer.ended(|out| renderer.end(out));
        self.summarize(deleted, "flow entries have been deleted")?;
        Ok(found(deleted))
    }

    /// Changes entries. Those that the kernel refuses to change are reported and skipped.
    pub(super) fn update(&mut self, filter: &Filter, edit: &Edit, output: Output) -> Outcome {
        let Self { names, conntrack, printer, .. } = self;
        let calendar = calendar();
        let renderer = renderer(output, names, &calendar);
        let (mut updated, mut refused) = (0, 0);
        connected(conntrack)?.for_each_matching(&filter.request, |requests, entry| {
            if !filter.matches(entry) {
                return Ok(());
            }
            let Some(change) = edit.of(entry) else { return Ok(()) };
            match requests.update(&entry.into(), &change) {
                Ok(()) => {}
                Err(error) if error.is_refused(Errno::ENOENT) => return Ok(()),
                // The entry began before a rule matched labels, and has no room for them.
                Err(error)
                    if error.is_refused(Errno::ENOSPC)
                        && change.labels.is_some()
                        && entry.labels.is_none() =>
                {
                    return Ok(());
                }
                Err(error) => {
                    print_line(&operation_failed(&error).message);
                    refused += 1;
                    return Ok(());
                }
            }
            updated += 1;
            // The entry after the change, unless it has ended.
            requests.get(&entry.into(), |entry| {
                renderer.entry(printer.begun(|out| renderer.begin(out)), entry);
            })?;
            printer.line()
        })?;
        printer.ended(|out| renderer.end(out));
        self.summarize(updated, "flow entries have been updated")?;
        Ok(if refused > 0 { ExitCode::from(FAILURE) } else { found(updated) })
    }

    /// Removes all entries.
    pub(super) fn flush(&mut self, family: Option<u8>) -> Outcome {
        connected(&mut self.conntrack)?.flush(family, None)?;
        print_line("connection tracking table has been emptied.");
        Ok(ExitCode::SUCCESS)
    }

    /// Makes an expectation.
    pub(super) fn create_expectation(&mut self, expectation: &NewExpectation) -> Outcome {
        match connected(&mut self.conntrack)?.create_expectation(expectation) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) if error.is_refused(Errno::ENOENT) => {
                Err(Rejection::failure("Operation failed: master conntrack not found").into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes an expectation.
    pub(super) fn delete_expectation(&mut self, key: &ExpectKey) -> Outcome {
        if connected(&mut self.conntrack)?.delete_expectation(key)? {
            Ok(ExitCode::SUCCESS)
        } else {
            Err(no_expectation())
        }
    }

    /// Removes all expectations.
    pub(super) fn flush_expectations(&mut self) -> Outcome {
        connected(&mut self.conntrack)?.flush_expectations(None)?;
        print_line("expectation table has been emptied.");
        Ok(ExitCode::SUCCESS)
    }
}

impl Edit {
    /// The change of an entry; `None` if it already has the values. Labels are not compared.
    fn of(&self, entry: &Entry<'_>) -> Option<Change> {
        let status = entry.status.union(Status(self.status));
        let change = Change {
            timeout: self.timeout.filter(|_| self.timeout != entry.timeout),
            status: Some(status).filter(|&status| status != entry.status),
            mark: self
                .mark
                .filter(|mark| mark.changes(entry.mark.unwrap_or_default().0))
                .map(|MarkArgument { value, mask }| MarkChange { value, mask }),
            // What has no labels loses none.
            labels: self.labels.filter(|labels| labels.value != 0 || entry.labels.is_some()),
            state: self.state_of(entry),
            ..Change::default()
        };
        (change != Change::default()).then_some(change)
    }

    /// The new state, if it differs.
    fn state_of(&self, entry: &Entry<'_>) -> Option<ProtoChange> {
        let old = entry.state?;
        let proto = entry.orig.proto;
        let state = self.state.filter(|(of, _)| *of == proto).map_or(old.number(), |(_, n)| n);
        let new = match old {
            ProtoState::Tcp { wscale, flags, .. } => ProtoState::Tcp { state, wscale, flags },
            ProtoState::Sctp { vtag: [orig, reply], .. } if proto == IPPROTO_SCTP => {
                let [new_orig, new_reply] = self.vtags;
                ProtoState::Sctp { state, vtag: [new_orig.or(orig), new_reply.or(reply)] }
            }
            ProtoState::Dccp { role, handshake_seq, .. } if proto == IPPROTO_DCCP => {
                ProtoState::Dccp { state, role: self.role.or(role), handshake_seq }
            }
            ProtoState::Sctp { .. } | ProtoState::Dccp { .. } => old,
        };
        let change = match new {
            ProtoState::Tcp { state, .. } => liberal_tcp(state),
            other => other.into(),
        };
        (new != old).then_some(change)
    }
}

impl MarkArgument {
    /// Whether it makes another mark of one.
    fn changes(self, old: u32) -> bool {
        (old & !self.mask) ^ self.value != old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_outside_the_mask_of_a_mark_are_flipped_too() {
        // What the kernel does with them.
        assert!(MarkArgument { value: 0x10, mask: 0xf }.changes(0x10));
        assert!(!MarkArgument { value: 5, mask: 0xf }.changes(0x25));
        assert!(!MarkArgument { value: 7, mask: u32::MAX }.changes(7));
        assert!(MarkArgument { value: 7, mask: u32::MAX }.changes(8));
    }
}
