//! Members: conntrack's entries, one by one.

use super::FlowTable;
use crate::model::{Flow, FlowKey, Tuple, counters::Counters};

/// One conntrack entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// CTA_ID, once a dump or event told it.
    pub id: Option<u32>,
    /// Last accounting.
    pub counters: [Counters; 2],
    /// When it was first heard of.
    pub since_ns: u64,
    /// Its first packet was seen: at `since_ns`.
    pub first_packet: bool,
    /// The last dump that showed it, 0 for none.
    pub dump: u32,
    /// Reply direction, if it is not the original one turned round; in [`FlowTable::replies`] as well.
    pub reply: Option<Tuple>,
}

impl Member {
    pub fn new(at_ns: u64) -> Self {
        Self {
            id: None,
            counters: [Counters::default(); 2],
            since_ns: at_ns,
            first_packet: false,
            dump: 0,
            reply: None,
        }
    }

    /// Adds to its flow what the entry's counters grew by since they were last seen.
    pub fn account(&mut self, flow: &mut Flow, counters: [Option<Counters>; 2]) {
        for (direction, now) in counters.iter().enumerate() {
            let Some(now) = now else { continue };
            let before = &mut self.counters[direction];
            let sum = &mut flow.counters.get_or_insert_default()[direction];
            sum.packets += now.packets.saturating_sub(before.packets);
            sum.bytes += now.bytes.saturating_sub(before.bytes);
            *before = *now;
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
        self.members.insert(key, Member { first_packet: true, ..Member::new(at_ns) });
        true
    }

    /// Remembers the reply direction of a member.
    pub(super) fn translates(&mut self, key: FlowKey, reply: Tuple) {
        let Some(member) = self.members.get_mut(&key) else { return };
        let translated = Some(reply).filter(|reply| reply.inverted() != Some(key.orig));
        if member.reply == translated {
            return;
        }
        if let Some(before) = std::mem::replace(&mut member.reply, translated) {
            self.replies.remove(&FlowKey { orig: before, ..key });
        }
        if let Some(reply) = translated {
            let by_reply = FlowKey { orig: reply, ..key };
            let before = self.replies.insert(by_reply, key.orig);
            if let Some(before) = before.filter(|before| *before != key.orig) {
                self.replies_taken.insert(by_reply, before);
            }
        }
    }

    /// An entry is gone.
    pub(super) fn forget_member(&mut self, key: &FlowKey) -> Option<Member> {
        self.settle_member(key);
        let member = self.members.remove(key)?;
        if let Some(reply) = member.reply {
            self.replies.remove(&FlowKey { orig: reply, ..*key });
        }
        Some(member)
    }
}
