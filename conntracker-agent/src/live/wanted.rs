//! A report that is wanted. It starts with a dump of every namespace: accounting and states of now. A dump that was
//! under way already will not do, it may have passed by what has changed since. Pure.

use std::collections::HashSet;

use super::Request;
use crate::model::NetnsId;

/// A report that waits for its dumps. Others come and go meanwhile, those of new namespaces say.
#[derive(Debug)]
pub(super) struct Wanted {
    pub request: Request,
    /// Namespaces whose dump was under way: another one follows.
    again: HashSet<NetnsId>,
    /// Namespaces whose dump it waits for.
    waiting: HashSet<NetnsId>,
}

impl Wanted {
    /// One is asked for; `None` if the report that is wanted already will do. Dumps of the namespaces in
    /// `under_way` are not over.
    pub fn next(
        wanted: Option<&Self>,
        request: Request,
        under_way: &HashSet<NetnsId>,
    ) -> Option<Self> {
        match wanted {
            // With every tick of an interval that is shorter than a dump it would begin anew, and never come.
            Some(_) if request != Request::Finish => None,
            _ => Some(Self { request, again: under_way.clone(), waiting: HashSet::new() }),
        }
    }

    /// A dump has begun that it waits for.
    pub fn waits_for(&mut self, id: NetnsId) {
        self.waiting.insert(id);
    }

    /// A dump is over: whether another one is to begin.
    pub fn dumped(&mut self, id: NetnsId) -> bool {
        self.waiting.remove(&id);
        self.again.remove(&id)
    }

    /// Whether all dumps are over.
    pub fn is_due(&self) -> bool {
        self.again.is_empty() && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NetnsId = NetnsId(1);
    const TWO: NetnsId = NetnsId(2);

    #[test]
    fn a_report_comes_however_often_it_is_asked_for_before_its_dumps_are_over() {
        let mut wanted = Wanted::next(None, Request::Report, &HashSet::from([ONE])).unwrap();
        wanted.waits_for(TWO);
        for _ in 0..100 {
            assert!(
                Wanted::next(Some(&wanted), Request::Report, &HashSet::from([ONE, TWO])).is_none()
            );
        }
        assert!(!wanted.dumped(TWO) && !wanted.is_due());
        // The one of before: its successor counts.
        assert!(wanted.dumped(ONE));
        wanted.waits_for(ONE);
        assert!(!wanted.is_due());
        // Of a namespace that has come since.
        assert!(!wanted.dumped(NetnsId(3)));
        assert!(!wanted.dumped(ONE) && wanted.is_due());
    }

    #[test]
    fn the_last_report_has_dumps_of_its_own() {
        let mut report = Wanted::next(None, Request::Report, &HashSet::new()).unwrap();
        report.waits_for(ONE);
        let mut last = Wanted::next(Some(&report), Request::Finish, &HashSet::from([ONE])).unwrap();
        assert!(!last.is_due());
        assert!(last.dumped(ONE));
    }
}
