//! Which flows with address translation a reply may be of, where nothing but its headers is known.

use std::collections::HashMap;

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
        if self.flows.len() > 2 * max_flows && !self.flows.contains_key(&seen_as) {
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
