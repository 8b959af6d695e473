//! Values by their flow key, in the order in which they were last used.
//!
//! A value stands in a slot and has its key in itself; the index has the number of the slot alone. Slots are linked in
//! the order of their last use, so that the one that was used longest ago is found at once.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, hash_table::HashTable};

use crate::model::FlowKey;

/// What has a key.
pub(super) trait Keyed {
    fn key(&self) -> FlowKey;
}

/// No slot.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Slot<T> {
    /// `None`: free.
    value: Option<T>,
    /// Used last before this one; of a free slot, the next free one.
    older: u32,
    newer: u32,
}

/// The values.
#[derive(Debug)]
pub(super) struct Store<T> {
    index: HashTable<u32>,
    slots: Vec<Slot<T>>,
    oldest: u32,
    newest: u32,
    free: u32,
    hasher: DefaultHashBuilder,
}

impl<T: Keyed> Store<T> {
    pub fn new() -> Self {
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            oldest: NONE,
            newest: NONE,
            free: NONE,
            hasher: DefaultHashBuilder::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes of the slots that are free.
    pub fn unused_bytes(&self) -> u64 {
        ((self.slots.len() - self.len()) * size_of::<Slot<T>>()) as u64
    }

    pub fn contains(&self, key: &FlowKey) -> bool {
        self.find(key).is_some()
    }

    /// A value, which is not used by that.
    pub fn get(&self, key: &FlowKey) -> Option<&T> {
        self.value(self.find(key)?)
    }

    /// A value, to be used.
    pub fn get_mut(&mut self, key: &FlowKey) -> Option<&mut T> {
        let at = self.find(key)?;
        self.touch(at);
        self.slots[at as usize].value.as_mut()
    }

    /// A value that changes without being used.
    pub fn peek_mut(&mut self, key: &FlowKey) -> Option<&mut T> {
        let at = self.find(key)?;
        self.slots[at as usize].value.as_mut()
    }

    /// A value, to be used, and whether it was made for that. What `make` gives must have the key.
    pub fn get_or_insert_with(
        &mut self,
        key: &FlowKey,
        make: impl FnOnce() -> T,
    ) -> (&mut T, bool) {
        let found = self.find(key);
        let at = match found {
            Some(at) => {
                self.touch(at);
                at
            }
            None => self.new_slot(key),
        };
        (self.slots[at as usize].value.get_or_insert_with(make), found.is_none())
    }

    pub fn remove(&mut self, key: &FlowKey) -> Option<T> {
        let at = self.find(key)?;
        self.take(at)
    }

    /// The slot of a value, which it has until it is taken out.
    pub fn slot(&self, key: &FlowKey) -> Option<u32> {
        self.find(key)
    }

    /// The value in a slot.
    pub fn in_slot(&self, at: u32) -> Option<&T> {
        self.slots.get(at as usize)?.value.as_ref()
    }

    /// The slot of the value that was used longest ago.
    pub fn oldest_slot(&self) -> Option<u32> {
        Some(self.oldest).filter(|&at| at != NONE)
    }

    /// Takes out the value that was used longest ago.
    pub fn pop_oldest(&mut self) -> Option<T> {
        self.take(self.oldest_slot()?)
    }

    /// All values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.value.as_ref())
    }

    /// Takes out the values of which `keep` says no, and tells which slots they had.
    pub fn extract(&mut self, mut keep: impl FnMut(&T) -> bool) -> Vec<(u32, T)> {
        let gone: Vec<u32> = (0..self.slots.len() as u32)
            .filter(|&at| self.value(at).is_some_and(|value| !keep(value)))
            .collect();
        gone.into_iter().filter_map(|at| Some((at, self.take(at)?))).collect()
    }

    fn hash(&self, key: &FlowKey) -> u64 {
        self.hasher.hash_one(key)
    }

    fn find(&self, key: &FlowKey) -> Option<u32> {
        let is = |&at: &u32| self.value(at).is_some_and(|value| value.key() == *key);
        self.index.find(self.hash(key), is).copied()
    }

    fn value(&self, at: u32) -> Option<&T> {
        self.slots[at as usize].value.as_ref()
    }

    /// A slot for the value of a key that has none, used last.
    fn new_slot(&mut self, key: &FlowKey) -> u32 {
        let at = match self.free {
            NONE => {
                self.slots.push(Slot { value: None, older: NONE, newer: NONE });
                (self.slots.len() - 1) as u32
            }
            at => {
                self.free = self.slots[at as usize].older;
                at
            }
        };
        let hash = self.hash(key);
        let Self { index, slots, hasher, .. } = self;
        index.insert_unique(hash, at, |&at| {
            slots[at as usize].value.as_ref().map_or(0, |value| hasher.hash_one(value.key()))
        });
        self.link(at);
        at
    }

    /// Takes the value out of a slot, which is free then.
    fn take(&mut self, at: u32) -> Option<T> {
        let value = self.slots[at as usize].value.take()?;
        if let Ok(entry) = self.index.find_entry(self.hash(&value.key()), |&other| other == at) {
            entry.remove();
        }
        self.unlink(at);
        self.slots[at as usize].older = self.free;
        self.free = at;
        Some(value)
    }

    fn touch(&mut self, at: u32) {
        if self.newest != at {
            self.unlink(at);
            self.link(at);
        }
    }

    /// Makes a slot the one that was used last.
    fn link(&mut self, at: u32) {
        let before = std::mem::replace(&mut self.newest, at);
        (self.slots[at as usize].older, self.slots[at as usize].newer) = (before, NONE);
        match before {
            NONE => self.oldest = at,
            before => self.slots[before as usize].newer = at,
        }
    }

    fn unlink(&mut self, at: u32) {
        let Slot { older, newer, .. } = self.slots[at as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer as usize].older = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{L4, NetnsId, Tuple, Zone};

    impl Keyed for (FlowKey, u32) {
        fn key(&self) -> FlowKey {
            self.0
        }
    }

    fn key(port: u16) -> FlowKey {
        let l4 = L4::Ports { src: port, dst: 53 };
        let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        FlowKey {
            netns: NetnsId(0),
            zone: Zone::DEFAULT,
            orig: Tuple { src, dst, proto: 17, l4 },
            entry: true,
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u16),
        Use(u16),
        Look(u16),
        Remove(u16),
        Pop,
        Extract(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u16..40).prop_map(Step::Insert),
            2 => (0u16..40).prop_map(Step::Use),
            1 => (0u16..40).prop_map(Step::Look),
            1 => (0u16..40).prop_map(Step::Remove),
            1 => Just(Step::Pop),
            1 => (1u16..7).prop_map(Step::Extract),
        ]
    }

    proptest! {
        /// The same is done with a list that has the value used last at its end.
        #[test]
        fn it_has_what_a_plain_list_has_in_its_order(
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let mut store = Store::new();
            let mut list: Vec<(u16, u32)> = Vec::new();
            for (n, step) in (0u32..).zip(steps) {
                let at = |list: &[(u16, u32)], port| list.iter().position(|(p, _)| *p == port);
                match step {
                    Step::Insert(port) => {
                        let (value, new) = store.get_or_insert_with(&key(port), || (key(port), n));
                        let found = at(&list, port).map(|at| list.remove(at));
                        prop_assert_eq!(new, found.is_none());
                        list.push(found.unwrap_or((port, n)));
                        prop_assert_eq!(value.1, list[list.len() - 1].1);
                    }
                    Step::Use(port) => {
                        let found = at(&list, port).map(|at| list.remove(at));
                        prop_assert_eq!(store.get_mut(&key(port)).map(|v| v.1), found.map(|v| v.1));
                        list.extend(found);
                    }
                    Step::Look(port) => {
                        let found = at(&list, port).map(|at| list[at].1);
                        prop_assert_eq!(store.get(&key(port)).map(|v| v.1), found);
                    }
                    Step::Remove(port) => {
                        let found = at(&list, port).map(|at| list.remove(at).1);
                        prop_assert_eq!(store.remove(&key(port)).map(|v| v.1), found);
                    }
                    Step::Pop => {
                        let first = (!list.is_empty()).then(|| list.remove(0).1);
                        prop_assert_eq!(store.pop_oldest().map(|v| v.1), first);
                    }
                    Step::Extract(n) => {
                        let gone = store.extract(|(_, v)| !v.is_multiple_of(n.into()));
                        prop_assert!(gone.iter().all(|(slot, _)| store.in_slot(*slot).is_none()));
                        let before = list.len();
                        list.retain(|(_, v)| !v.is_multiple_of(n.into()));
                        prop_assert_eq!(gone.len(), before - list.len());
                    }
                }
                prop_assert_eq!(store.len(), list.len());
                prop_assert_eq!(store.iter().count(), list.len());
            }
        }
    }
}
