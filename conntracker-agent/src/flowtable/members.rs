//! Members: conntrack's entries, one by one.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{
    FlowTable,
    line::Line,
    packed::{PackedKey, PackedTuple},
    store::{Keyed, Store},
};
use crate::model::{FlowKey, Tuple, counters::Counters};

/// One conntrack entry.
#[derive(Clone, Debug)]
pub(super) struct Member {
    key: PackedKey,
    /// Reply direction, if it is not the original one turned round; in [`Members::by_reply`] as well.
    reply: Option<PackedTuple>,
    /// Last accounting.
    counters: Option<Box<[Counters; 2]>>,
    /// When it was first heard of.
    pub since_ns: u64,
    /// CTA_ID, once a dump or event told it.
    pub id: Option<u32>,
    /// The last dump that showed it, 0 for none.
    pub dump: u32,
    /// Its first packet was seen: at `since_ns`.
    pub first_packet: bool,
}

impl Keyed for Member {
    fn key(&self) -> FlowKey {
        self.key.key()
    }
}

impl Member {
    pub fn new(key: FlowKey, at_ns: u64) -> Self {
        Self {
            key: PackedKey::new(key),
            reply: None,
            counters: None,
            since_ns: at_ns,
            id: None,
            dump: 0,
            first_packet: false,
        }
    }

    /// Reply direction, if it is not the original one turned round.
    pub fn reply(&self) -> Option<Tuple> {
        self.reply.as_ref().map(PackedTuple::tuple)
    }

    /// What its packets of the reply direction are known by, likewise.
    fn reply_key(&self) -> Option<FlowKey> {
        Some(FlowKey { orig: self.reply()?, ..self.key() })
    }

    /// Whether it had accounting.
    pub fn has_counters(&self) -> bool {
        self.counters.is_some()
    }

    /// What the entry's counters grew by since they were last seen.
    pub fn grown(&mut self, counters: [Option<Counters>; 2]) -> Option<[Counters; 2]> {
        if counters == [None; 2] {
            return None;
        }
        let seen = self.counters.get_or_insert_default();
        let mut grown = [Counters::default(); 2];
        for (direction, now) in counters.iter().enumerate() {
            let Some(now) = now else { continue };
            let before = std::mem::replace(&mut seen[direction], *now);
            grown[direction] = Counters {
                packets: now.packets.saturating_sub(before.packets),
                bytes: now.bytes.saturating_sub(before.bytes),
            };
        }
        Some(grown)
    }

    /// Adds to its flow what the entry's counters grew by since they were last seen.
    pub fn account(&mut self, flow: &mut Line, counters: [Option<Counters>; 2]) {
        let Some(grown) = self.grown(counters) else { return };
        let sums = flow.facts().counters.get_or_insert_default();
        for (sum, grown) in sums.iter_mut().zip(grown) {
            sum.packets += grown.packets;
            sum.bytes += grown.bytes;
        }
    }
}

/// Conntrack's entries that are known, by their tuples of both directions.
#[derive(Debug)]
pub(super) struct Members {
    all: Store<Member>,
    /// Slots of members with address translation, by their reply direction; of several that have one, the member that
    /// had it last.
    by_reply: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Members {
    pub fn new() -> Self {
        Self {
            all: Store::new(),
            by_reply: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn unused_bytes(&self) -> u64 {
        self.all.unused_bytes()
    }

    pub fn contains(&self, key: &FlowKey) -> bool {
        self.all.contains(key)
    }

    pub fn get(&self, key: &FlowKey) -> Option<&Member> {
        self.all.get(key)
    }

    pub fn get_mut(&mut self, key: &FlowKey) -> Option<&mut Member> {
        self.all.get_mut(key)
    }

    /// A member, made if need be; and whether it was.
    pub fn get_or_insert(&mut self, key: FlowKey, at_ns: u64) -> (&mut Member, bool) {
        self.all.get_or_insert_with(&key, || Member::new(key, at_ns))
    }

    pub fn remove(&mut self, key: &FlowKey) -> Option<Member> {
        let slot = self.all.slot(key)?;
        let member = self.all.remove(key)?;
        self.forget_reply(slot, &member);
        Some(member)
    }

    /// All members, in no order.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.all.iter()
    }

    /// Takes out the member that nothing told of for the longest time.
    pub fn pop_oldest(&mut self) -> Option<Member> {
        let slot = self.all.oldest_slot()?;
        let member = self.all.pop_oldest()?;
        self.forget_reply(slot, &member);
        Some(member)
    }

    /// Takes out the members of which `keep` says no.
    pub fn extract(&mut self, keep: impl FnMut(&Member) -> bool) -> Vec<Member> {
        let gone = self.all.extract(keep);
        for (slot, member) in &gone {
            self.forget_reply(*slot, member);
        }
        gone.into_iter().map(|(_, member)| member).collect()
    }

    /// Original direction of the member whose packets of the reply direction have a tuple, by address translation.
    pub fn replying(&self, reply: &FlowKey) -> Option<Tuple> {
        let slot = self.by_reply.find(self.hasher.hash_one(reply), |slot| {
            self.all.in_slot(*slot).and_then(Member::reply_key) == Some(*reply)
        })?;
        Some(self.all.in_slot(*slot)?.key().orig)
    }

    /// A member has this reply direction from now on. Returns the original direction of another one that had it.
    pub fn set_reply(&mut self, key: FlowKey, reply: Tuple) -> Option<Tuple> {
        let slot = self.all.slot(&key)?;
        let member = self.all.get_mut(&key)?;
        let translated = Some(reply).filter(|reply| reply.inverted() != Some(key.orig));
        if member.reply() == translated {
            return None;
        }
        let before = member.clone();
        member.reply = translated.map(PackedTuple::new);
        self.forget_reply(slot, &before);
        self.point_reply_to(FlowKey { orig: translated?, ..key }, key)
    }

    /// A reply direction is this member's. Returns the original direction of another one that had it.
    pub fn point_reply_to(&mut self, reply: FlowKey, member: FlowKey) -> Option<Tuple> {
        let hash = self.hasher.hash_one(reply);
        let Self { all, by_reply, hasher } = self;
        let of = |slot: u32| all.in_slot(slot).and_then(Member::reply_key);
        let mut before = None;
        if let Ok(entry) = by_reply.find_entry(hash, |slot| of(*slot) == Some(reply)) {
            before = all.in_slot(entry.remove().0).map(|other| other.key().orig);
        }
        by_reply.insert_unique(hash, all.slot(&member)?, |slot| {
            of(*slot).map_or(0, |reply| hasher.hash_one(reply))
        });
        before.filter(|before| *before != member.orig)
    }

    /// What was in a slot has its reply direction no more.
    fn forget_reply(&mut self, slot: u32, member: &Member) {
        let Some(reply) = member.reply_key() else { return };
        let hash = self.hasher.hash_one(reply);
        if let Ok(entry) = self.by_reply.find_entry(hash, |of| *of == slot) {
            entry.remove();
        }
    }
}

impl FlowTable {
    /// Whether the first packet of an entry is of one that nothing told of before.
    pub(super) fn is_new_member(&mut self, key: FlowKey, at_ns: u64) -> bool {
        if let Some(member) = self.members.get_mut(&key) {
            // A dump may be faster than the record. Otherwise the tuple was used again: an entry of its own.
            let told_later = !member.first_packet && at_ns <= member.since_ns;
            let told_again = member.first_packet && at_ns == member.since_ns;
            if told_later || told_again {
                (member.since_ns, member.first_packet) = (at_ns, true);
                return false;
            }
        }
        self.forget_member(&key);
        self.member(key, at_ns).0.first_packet = true;
        true
    }

    /// The member of an entry, made if need be; and whether it was.
    pub(super) fn member(&mut self, key: FlowKey, at_ns: u64) -> (&mut Member, bool) {
        if !self.members.contains(&key) {
            // The flow first: another one may leave for it, and with that one its entry.
            let of = self.key(key.netns, key.zone, key.orig);
            self.flow(of, at_ns).members += 1;
            while self.members.len() >= self.max_members()
                && let Some(oldest) = self.members.pop_oldest()
            {
                self.entries_forgotten += 1;
                self.leaves_flow(oldest.key());
            }
        }
        self.members.get_or_insert(key, at_ns)
    }

    /// Remembers the reply direction of a member.
    pub(super) fn translates(&mut self, key: FlowKey, reply: Tuple) {
        if let Some(before) = self.members.set_reply(key, reply) {
            if self.replies_taken.len() < MOST_CLASHES {
                self.replies_taken.insert(FlowKey { orig: reply, ..key }, before);
            } else {
                self.entries_forgotten += 1;
            }
        }
    }

    /// An entry is gone.
    pub(super) fn forget_member(&mut self, key: &FlowKey) -> Option<Member> {
        self.settle_member(key);
        let member = self.members.remove(key)?;
        self.leaves_flow(*key);
        Some(member)
    }

    /// Entries are gone of which `keep` says no.
    pub(super) fn forget_members(&mut self, keep: impl FnMut(&Member) -> bool) {
        for member in self.members.extract(keep) {
            self.leaves_flow(member.key());
        }
    }

    /// A flow has one entry less.
    fn leaves_flow(&mut self, member: FlowKey) {
        let of = self.key(member.netns, member.zone, member.orig);
        if let Some(flow) = self.flows.peek_mut(&of) {
            flow.members = flow.members.saturating_sub(1);
        }
    }
}

/// Entries with tuples that others have are remembered up to this number, of either kind.
pub(super) const MOST_CLASHES: usize = 65_536;
