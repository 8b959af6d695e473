//! Numbers for values that columns repeat.

use std::{collections::HashMap, fmt::Display, hash::Hash};

use serde::{Serialize, Serializer};

/// Numbers for values, in the order in which they were first asked for.
pub(super) struct Dictionary<T> {
    numbers: HashMap<T, u32>,
}

impl<T> Default for Dictionary<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new() }
    }
}

impl<T: Eq + Hash> Dictionary<T> {
    /// The number of a value, and whether it is a new one.
    pub(super) fn number(&mut self, value: T) -> (u32, bool) {
        let next = self.numbers.len() as u32;
        let number = *self.numbers.entry(value).or_insert(next);
        (number, number == next)
    }

    /// The values by their numbers.
    pub(super) fn values(&self) -> Vec<&T> {
        let mut values: Vec<(&T, u32)> =
            self.numbers.iter().map(|(value, number)| (value, *number)).collect();
        values.sort_unstable_by_key(|(_, number)| *number);
        values.into_iter().map(|(value, _)| value).collect()
    }
}

/// Texts. Number 0 is that of no text.
pub(super) struct Words(Dictionary<String>);

impl Default for Words {
    fn default() -> Self {
        let mut words = Dictionary::default();
        words.number(String::new());
        Self(words)
    }
}

impl Words {
    /// The number of a text. What others chose must be harmless ([`crate::model::harmless`]).
    pub(super) fn number(&mut self, text: impl Display) -> u64 {
        self.0.number(text.to_string()).0.into()
    }

    /// The number of a text, 0 for none.
    pub(super) fn optional(&mut self, text: Option<impl Display>) -> u64 {
        text.map_or(0, |text| self.number(text))
    }
}

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.values())
    }
}
