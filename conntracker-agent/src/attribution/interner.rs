//! Values by number.

use std::{collections::HashMap, hash::Hash};

/// Numbers for values: equal values have the same one.
pub(super) struct Interner<T> {
    values: Vec<T>,
    interner: HashMap<T, u32>,
}

impl<T: Clone + Eq + Hash> Interner<T> {
    /// None yet.
    pub fn new() -> Self {
        Self { values: Vec::new(), interner: HashMap::new() }
    }

    /// The number of a value, and whether it is new.
    pub fn number(&mut self, value: T) -> (u32, bool) {
        let next = self.values.len() as u32;
        let number = *self.interner.entry(value).or_insert_with_key(|value| {
            self.values.push(value.clone());
            next
        });
        (number, number == next)
    }

    /// The value of a number.
    pub fn get(&self, number: u32) -> Option<&T> {
        self.values.get(number as usize)
    }
}
