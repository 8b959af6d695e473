//! The flows, of which some may be in a file, and what finds them by the replies that they may have.

use std::{borrow::Cow, fs::File, io};

use super::{
    cold::Cold,
    line::Line,
    replies::Replies,
    store::{Keyed, Store},
};
use crate::model::{Flow, FlowKey, NetnsId};

/// The flows of the table. Without a file all of them are in memory.
#[derive(Debug)]
pub(super) struct Lines {
    /// Flows are merged by their folded key.
    fold: bool,
    hot: Store<Line>,
    /// Flows with address translation, by the replies that they may have; of flows in the file, those that are alone in
    /// having such a reply are found there.
    replies: Replies,
    cold: Option<Cold>,
}

impl Lines {
    pub fn new(fold: bool) -> Self {
        Self { fold, hot: Store::new(), replies: Replies::default(), cold: None }
    }

    /// From now on so many flows stay in memory, those that were used last; the others go to the file.
    pub fn spill_to(&mut self, file: File, in_memory: usize) {
        self.cold = Some(Cold::new(file, in_memory));
    }

    /// What went wrong with the file. Flows are missing then.
    pub fn error(&self) -> Option<&io::Error> {
        self.cold.as_ref()?.error()
    }

    pub fn len(&self) -> usize {
        self.hot.len() + self.cold.as_ref().map_or(0, Cold::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that are free for new flows.
    pub fn unused_bytes(&self) -> u64 {
        self.hot.unused_bytes()
    }

    pub fn contains(&self, key: &FlowKey) -> bool {
        is_there(&self.hot, self.cold.as_ref(), key)
    }

    /// A flow, which is not used by that.
    pub fn get(&self, key: &FlowKey) -> Option<Cow<'_, Line>> {
        match self.hot.get(key) {
            Some(line) => Some(Cow::Borrowed(line)),
            None => self.cold.as_ref()?.get(key).map(Cow::Owned),
        }
    }

    /// A flow that is in memory, which is not used by that.
    pub fn in_memory(&self, key: &FlowKey) -> Option<&Line> {
        self.hot.get(key)
    }

    /// A flow, to be used.
    pub fn get_mut(&mut self, key: &FlowKey) -> Option<&mut Line> {
        self.warm(key);
        self.hot.get_mut(key)
    }

    /// A flow that changes without being used.
    pub fn peek_mut(&mut self, key: &FlowKey) -> Option<&mut Line> {
        self.warm(key);
        self.hot.peek_mut(key)
    }

    /// A flow, to be used, and whether it was made for that.
    pub fn get_or_insert_with(
        &mut self,
        key: &FlowKey,
        make: impl FnOnce() -> Line,
    ) -> (&mut Line, bool) {
        self.warm(key);
        if !self.hot.contains(key) {
            self.cool();
        }
        self.hot.get_or_insert_with(key, make)
    }

    /// Takes out the flow that was used longest ago.
    pub fn pop_oldest(&mut self) -> Option<Line> {
        self.hot.pop_oldest()
    }

    /// The flows that are in memory, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Line> {
        self.hot.iter()
    }

    /// Takes out the flows in memory of which `keep` says no.
    pub fn extract(&mut self, keep: impl FnMut(&Line) -> bool) -> Vec<Line> {
        self.hot.extract(keep).into_iter().map(|(_, line)| line).collect()
    }

    /// Changes all flows.
    pub fn change_all(&mut self, mut change: impl FnMut(&mut Line)) {
        let keys: Vec<FlowKey> = self.hot.iter().map(Keyed::key).collect();
        for key in keys {
            if let Some(line) = self.hot.peek_mut(&key) {
                change(line);
            }
        }
        if let Some(cold) = &mut self.cold {
            cold.change_all(change);
        }
    }

    /// All flows, in no order; those in the file as they stand there.
    pub fn into_flows(mut self) -> impl Iterator<Item = io::Result<Flow>> {
        let hot = std::iter::from_fn(move || self.hot.pop_oldest()).map(Ok);
        let cold = self.cold.into_iter().flat_map(Cold::into_lines);
        let listed = |line: &io::Result<Line>| line.as_ref().map_or(true, Line::is_listed);
        hot.chain(cold).filter(listed).map(|line| line.map(Line::flow))
    }

    /// A flow may have this reply.
    pub fn add_reply(&mut self, seen_as: FlowKey, flow: FlowKey, max_flows: usize) {
        // Whoever has the same reply comes back into memory: candidates are counted there.
        let others = self.cold.as_ref().map(|cold| cold.with_reply(&seen_as, self.fold));
        for other in others.unwrap_or_default() {
            self.warm(&other);
        }
        let Self { hot, replies, cold, .. } = self;
        replies.add(seen_as, flow, max_flows, |flow| is_there(hot, cold.as_ref(), flow));
    }

    /// The flows that a reply may be of, some of which may not be there any more; `None`: any flow.
    pub fn with_reply(&self, seen_as: FlowKey) -> Option<Vec<FlowKey>> {
        let mut found = self.replies.of(seen_as)?;
        if let Some(cold) = &self.cold {
            found.extend(cold.with_reply(&seen_as, self.fold));
        }
        Some(found)
    }

    /// Replies of namespaces are not known any more.
    pub fn forget_replies(&mut self, gone: impl Fn(&NetnsId) -> bool) {
        self.replies.forget(gone);
    }

    /// Brings a flow back into memory.
    fn warm(&mut self, key: &FlowKey) {
        let Some(cold) = &mut self.cold else { return };
        if self.hot.contains(key) {
            return;
        }
        let Some((line, has_reply)) = cold.take(key) else { return };
        self.cool();
        if has_reply && let Some(seen_as) = line.seen_as(self.fold) {
            self.replies.add(seen_as, *key, usize::MAX, |_| true);
        }
        self.hot.get_or_insert_with(key, || line);
    }

    /// Writes the flows away for which there is no room.
    fn cool(&mut self) {
        let Some(cold) = &mut self.cold else { return };
        while self.hot.len() >= cold.in_memory() {
            let Some(line) = self.hot.pop_oldest() else { return };
            let seen_as = line.seen_as(self.fold);
            let reply = seen_as.filter(|seen_as| self.replies.take_single(*seen_as, line.key()));
            cold.put(line, reply.as_ref());
        }
    }
}

fn is_there(hot: &Store<Line>, cold: Option<&Cold>, key: &FlowKey) -> bool {
    hot.contains(key) || cold.is_some_and(|cold| cold.contains(key))
}
