//! A packet under way: what was done to it, the steps that it took, and the unknown that they hang on.

use super::{
    code::{ChainNumber, Code},
    packet::Packet,
    tracking::Tracking,
    unknown::UnknownSet,
};
use crate::model::hook::Hook;

/// What a step did with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepVerdict {
    /// A verdict of the rule or the policy.
    Code(Code),
    /// Dropped, with an answer.
    Reject,
    /// Unknown.
    Unknown,
}

/// A step of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EvaluatedStep {
    /// Hook.
    pub hook: Hook,
    /// Chain.
    pub chain: ChainNumber,
    /// Index of the rule from 0; the number of rules at the end of the chain: its policy or return.
    pub index: usize,
    /// What it did.
    pub verdict: StepVerdict,
    /// The unknown that decides whether the packet takes it, where that makes no other difference; none: it does.
    pub why: UnknownSet,
}

/// What ends the way of a packet through a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It passed.
    Accept,
    /// Dropped.
    Drop,
    /// Dropped, with an answer to the sender.
    Reject,
    /// Given to a program, which decides.
    Queue,
    /// Taken by a rule.
    Stolen,
    /// No route, or one that refuses.
    NoRoute,
    /// Forwarded once too often: its TTL ended here.
    Expired,
    /// Unknown.
    Unknown,
}

/// A packet under way.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub packet: Packet,
    /// What conntrack will say, once its function is reached.
    pub upcoming: Tracking,
    pub steps: Vec<EvaluatedStep>,
    /// The unknown that this state was chosen by.
    pub why: UnknownSet,
}

impl State {
    /// Whether nothing behind this point can tell the two apart.
    fn equals(&self, other: &Self) -> bool {
        self.packet == other.packet && self.upcoming == other.upcoming
    }

    /// Takes in a state that is the same but for its steps. Steps that only one of them took are uncertain.
    fn join(&mut self, other: Self) {
        let common =
            self.steps.iter().zip(&other.steps).take_while(|(one, two)| one == two).count();
        let of_other = other.steps.into_iter().skip(common);
        self.steps.extend(of_other);
        self.why = self.why.union(other.why);
        for step in self.steps.iter_mut().skip(common) {
            step.why = step.why.union(self.why);
        }
    }

    /// Adds a state to others, as one with that which equals it.
    pub(super) fn add(self, to: &mut Vec<Self>) {
        match to.iter_mut().find(|state| state.equals(&self)) {
            Some(state) => state.join(self),
            None => to.push(self),
        }
    }
}
