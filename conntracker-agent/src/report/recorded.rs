//! Header and footer of a report as statements of a recording, and back.

use super::{Footer, Header, Interface, Namespace, Report};
use crate::{
    model::{NetnsId, TimeOfDay, intern_name, loss::Loss, other::OtherFlows},
    recording::statement,
};

impl<F> Report<F> {
    /// What the report says besides flows and counts. `folded_at_once`: flows are folded as they are seen.
    pub(crate) fn to_statement(&self, folded_at_once: bool) -> statement::Header {
        let Header {
            version,
            host,
            kernel,
            backend,
            backend_reason,
            namespaces,
            start_ns,
            end_ns: _,
            filters,
            folded,
            epochs,
            notes,
        } = &self.header;
        let namespace = |Namespace { id, name, interfaces, untraced }: &Namespace| {
            let interface =
                |Interface { number, index, name }: &Interface| (*number, *index, name.clone());
            statement::Namespace {
                id: id.0,
                name: name.clone(),
                interfaces: interfaces.iter().map(interface).collect(),
                untraced: untraced.clone(),
            }
        };
        statement::Header {
            version: (*version).to_owned(),
            host: host.clone(),
            kernel: kernel.clone(),
            backend: backend.clone(),
            backend_reason: backend_reason.clone(),
            namespaces: namespaces.iter().map(namespace).collect(),
            start_ns: *start_ns,
            filters: filters.clone(),
            folded: *folded,
            folded_at_once,
            epochs: *epochs,
            notes: notes.clone(),
            without_rules: self.coverage.as_ref().err().cloned(),
            untold: self.untold.clone(),
        }
    }
}

impl Header {
    /// The header of a report whose flows end at a time.
    pub(crate) fn of_statement(stated: statement::Header, end_ns: u64) -> Self {
        let statement::Header {
            version,
            host,
            kernel,
            backend,
            backend_reason,
            namespaces,
            start_ns,
            filters,
            folded,
            folded_at_once: _,
            epochs,
            notes,
            without_rules: _,
            untold: _,
        } = stated;
        let namespace = |statement::Namespace { id, name, interfaces, untraced }| Namespace {
            id: NetnsId(id),
            name,
            interfaces: interfaces
                .into_iter()
                .map(|(number, index, name)| Interface { number, index, name })
                .collect(),
            untraced,
        };
        Self {
            version: intern_name(&version),
            host,
            kernel,
            backend,
            backend_reason,
            namespaces: namespaces.into_iter().map(namespace).collect(),
            start_ns,
            end_ns,
            filters,
            folded,
            epochs,
            notes,
        }
    }
}

impl Footer {
    /// The counts at a time since boot; `clock` is a pair of times that relates it to the time of day.
    pub(crate) fn to_statement(&self, at_ns: u64, clock: (u64, u64)) -> statement::Counts {
        let Self { sources, losses, others: _ } = self;
        statement::Counts {
            at_ns,
            clock,
            sources: sources.iter().map(|&(name, count)| (name.to_owned(), count)).collect(),
            losses: losses.iter().map(|of| (of.loss.name().to_owned(), of.count)).collect(),
        }
    }

    /// The counts of a recording, and what a later version has counted that has no name here.
    pub(crate) fn of_statement(
        counts: statement::Counts,
        others: OtherFlows,
    ) -> (Self, Vec<String>) {
        let statement::Counts { sources, losses, .. } = counts;
        let (mut counted, mut unknown) = (Vec::new(), Vec::new());
        for (name, count) in losses {
            match Loss::named(&name) {
                Some(loss) => counted.push(loss.times(count)),
                None if count > 0 => unknown.push(format!(
                    "{count} losses of a kind that this version does not know: {name}"
                )),
                None => {}
            }
        }
        let sources = sources.iter().map(|(name, count)| (intern_name(name), *count)).collect();
        (Self { sources, losses: counted, others }, unknown)
    }
}

/// The relation of the clocks that counts have.
pub(crate) fn time_of_day(counts: &statement::Counts) -> TimeOfDay {
    TimeOfDay::at(counts.clock.0, counts.clock.1)
}
