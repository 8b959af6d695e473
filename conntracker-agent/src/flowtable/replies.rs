//! Which flows with address translation a reply may be of, where nothing but its headers is known.

use hashbrown::HashMap;

use super::packed::PackedKey;
use crate::model::{FlowKey, NetnsId};

/// With more flows than this a reply may be of any of them, and is told to fit several.
const MOST_CANDIDATES: usize = 16;

/// Original tuple, folded as flows are, that a reply would have → the flows that it may be a reply to; only
/// for flows with address translation, where it is not their own.
#[derive(Debug, Default)]
pub(super) struct Replies {
    flows: HashMap<PackedKey, Candidates>,
}

/// Flows that a reply may be of.
#[derive(Debug)]
enum Candidates {
    One(PackedKey),
    Several(Vec<PackedKey>),
    /// Too many.
    Many,
}

impl Replies {
    /// A reply may be of a flow. Once there are twice as many replies as flows can be (`max_flows`), those go whose
    /// flows are not there any more.
    pub fn add(
        &mut self,
        seen_as: FlowKey,
        flow: FlowKey,
        max_flows: usize,
        is_there: impl Fn(&FlowKey) -> bool,
    ) {
        let (seen_as, flow) = (PackedKey::new(seen_as), PackedKey::new(flow));
        if self.flows.len() > max_flows.saturating_mul(2) && !self.flows.contains_key(&seen_as) {
            self.flows.retain(|_, candidates| candidates.any(&is_there));
        }
        match self.flows.get_mut(&seen_as) {
            None => {
                self.flows.insert(seen_as, Candidates::One(flow));
            }
            Some(candidates) => candidates.add(flow, is_there),
        }
    }

    /// The flows that a reply may be of, some of which may not be there any more; `None`: any flow.
    pub fn of(&self, seen_as: FlowKey) -> Option<Vec<FlowKey>> {
        if self.flows.is_empty() {
            return Some(Vec::new());
        }
        match self.flows.get(&PackedKey::new(seen_as)) {
            None => Some(Vec::new()),
            Some(Candidates::One(flow)) => Some(vec![flow.key()]),
            Some(Candidates::Several(flows)) => Some(flows.iter().map(PackedKey::key).collect()),
            Some(Candidates::Many) => None,
        }
    }

    /// Takes out a reply that a flow alone has; false if it is not known, or others have it as well.
    pub fn take_single(&mut self, seen_as: FlowKey, flow: FlowKey) -> bool {
        let (seen_as, flow) = (PackedKey::new(seen_as), PackedKey::new(flow));
        let single = matches!(self.flows.get(&seen_as), Some(Candidates::One(of)) if *of == flow);
        if single {
            self.flows.remove(&seen_as);
        }
        single
    }

    /// Nothing is known any more of namespaces.
    pub fn forget(&mut self, gone: impl Fn(&NetnsId) -> bool) {
        self.flows.retain(|key, _| !gone(&key.key().netns));
    }
}

impl Candidates {
    fn any(&self, is_there: impl Fn(&FlowKey) -> bool) -> bool {
        match self {
            Self::One(flow) => is_there(&flow.key()),
            Self::Several(flows) => flows.iter().any(|flow| is_there(&flow.key())),
            Self::Many => false,
        }
    }

    fn add(&mut self, flow: PackedKey, is_there: impl Fn(&FlowKey) -> bool) {
        match self {
            Self::One(known) if *known == flow => {}
            Self::One(known) => *self = Self::Several(vec![known.clone(), flow]),
            Self::Several(flows) if flows.contains(&flow) => {}
            Self::Several(flows) => {
                if flows.len() >= MOST_CANDIDATES {
                    flows.retain(|flow| is_there(&flow.key()));
                }
                flows.push(flow);
                if flows.len() > MOST_CANDIDATES {
                    *self = Self::Many;
                }
            }
            Self::Many => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{L4, Tuple, Zone};

    fn key(src: u8) -> FlowKey {
        let l4 = L4::Ports { src: 1024, dst: 53 };
        let (src, dst) = ([10, 0, 0, src].into(), [10, 0, 1, 1].into());
        let orig = Tuple { src, dst, proto: 17, l4 };
        FlowKey { netns: NetnsId(0), zone: Zone::DEFAULT, orig, entry: true }
    }

    #[test]
    fn more_flows_than_can_be_told_apart_are_any_flow() {
        let mut replies = Replies::default();
        for src in 0..16 {
            // Twice is once, and no limit is no limit.
            replies.add(key(200), key(src), usize::MAX, |_| true);
            replies.add(key(200), key(src), usize::MAX, |_| true);
        }
        let sixteen: Vec<_> = (0..16).map(key).collect();
        assert_eq!((replies.of(key(200)), replies.of(key(201))), (Some(sixteen), Some(vec![])));
        replies.add(key(200), key(16), usize::MAX, |_| true);
        assert_eq!(replies.of(key(200)), None);
    }

    #[test]
    fn flows_that_are_gone_make_room() {
        let mut replies = Replies::default();
        for src in 0..40 {
            replies.add(key(200), key(src), 10, |flow| *flow == key(src) || *flow == key(0));
        }
        assert!(replies.of(key(200)).is_some_and(|flows| flows.contains(&key(39))));
        for src in 0..100 {
            replies.add(key(src), key(src), 10, |_| false);
        }
        assert!(replies.flows.len() <= 22, "{}", replies.flows.len());
    }
}
