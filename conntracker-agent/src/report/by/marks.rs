//! What is known of the connmark of a group.

use std::collections::{HashMap, HashSet};

use crate::{
    model::{Flow, NetnsId, Status, Tuple, Zone},
    report::text::marks::{By, Kind, changes_on},
};

/// Flows with one connmark under a mask: flows that helpers expected, and what set the mark.
#[derive(Default)]
pub(in crate::report) struct MarkGroup<'a> {
    /// Flows that a helper expected (data connections of FTP, say). They have the mark of their parent from the start.
    pub related: u64,
    /// Their parents, as far as they are known.
    parents: HashSet<(NetnsId, Zone, Tuple)>,
    /// Flows whose mark was set by what is known, by that.
    set_by: HashMap<By<'a>, u64>,
}

impl<'a> MarkGroup<'a> {
    /// Adds a flow of the group.
    pub fn add(&mut self, flow: &'a Flow, value: u32, mask: u32) {
        if flow.parent.is_some() || flow.status.contains(Status::EXPECTED) {
            self.related += 1;
            let parent = flow.parent.as_deref();
            self.parents.extend(parent.map(|parent| (flow.key.netns, flow.key.zone, *parent)));
        }
        let mut setters: Vec<By<'a>> = Vec::new();
        let ways = flow.paths.iter();
        for (change, by) in ways.flat_map(|(way, _)| changes_on(way, Kind::Connmark)) {
            let (before, after) = change.values();
            let sets = before & mask != after & mask && after & mask == value;
            if sets && by != By::Unknown && !setters.contains(&by) {
                setters.push(by);
            }
        }
        for by in setters {
            *self.set_by.entry(by).or_default() += 1;
        }
    }

    /// Number of flows whose helpers expected the related ones, as far as they are known.
    pub fn parents(&self) -> u64 {
        self.parents.len() as u64
    }

    /// What set the mark, and the mark of how many flows; most flows first.
    pub fn set_by(&self) -> Vec<(By<'a>, u64)> {
        let mut all: Vec<(By<'a>, u64)> = self.set_by.iter().map(|(&by, &n)| (by, n)).collect();
        all.sort_by_cached_key(|(by, flows)| (std::cmp::Reverse(*flows), by.to_string()));
        all
    }
}
