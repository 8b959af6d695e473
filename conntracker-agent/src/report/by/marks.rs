//! What is known of the connmark of a group.

use std::collections::HashSet;

use super::kept::KeptKeys;
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
    set_by: Vec<(By<'a>, u64)>,
}

impl<'a> MarkGroup<'a> {
    /// Adds a flow of the group.
    pub fn add(&mut self, flow: &Flow, value: u32, mask: u32, kept: &'a KeptKeys) {
        if flow.parent.is_some() || flow.status.contains(Status::EXPECTED) {
            self.related += 1;
            let parent = flow.parent.as_deref();
            self.parents.extend(parent.map(|parent| (flow.key.netns, flow.key.zone, *parent)));
        }
        let mut setters: Vec<By<'_>> = Vec::new();
        let ways = flow.paths.iter();
        for (change, by) in ways.flat_map(|(way, _)| changes_on(way, Kind::Connmark)) {
            let (before, after) = change.values();
            let sets = before & mask != after & mask && after & mask == value;
            if sets && by != By::Unknown && !setters.contains(&by) {
                setters.push(by);
            }
        }
        for by in setters {
            match find(&self.set_by, by) {
                Some(at) => self.set_by[at].1 += 1,
                None => self.set_by.push((kept.keep_setter(by), 1)),
            }
        }
    }

    /// Number of flows whose helpers expected the related ones, as far as they are known.
    pub fn parents(&self) -> u64 {
        self.parents.len() as u64
    }

    /// What set the mark, and the mark of how many flows; most flows first.
    pub fn set_by(&self) -> Vec<(By<'a>, u64)> {
        let mut all = self.set_by.clone();
        all.sort_by_cached_key(|(by, flows)| (std::cmp::Reverse(*flows), by.to_string()));
        all
    }
}

/// A rule or chain among those of a group: few set one mark.
fn find<'k>(setters: &[(By<'k>, u64)], by: By<'k>) -> Option<usize> {
    setters.iter().position(|(of, _)| *of == by)
}
