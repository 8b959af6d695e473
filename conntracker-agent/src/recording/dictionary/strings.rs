//! Strings by number.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

/// Strings that a writer remembers; then it states all of them anew, under new numbers.
const MOST: usize = 65_536;

/// Strings of consecutive numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::recording) struct StringStatement {
    /// Number of the first one.
    first: u64,
    /// Those before it are not referred to any more.
    #[serde(default)]
    anew: bool,
    strings: Vec<String>,
}

/// The numbers of strings.
#[derive(Debug, Default)]
pub(super) struct StringWriter {
    numbers: HashMap<String, u64>,
    next: u64,
    new: StringStatement,
}

impl StringWriter {
    pub fn number(&mut self, text: &str) -> u64 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        if self.numbers.len() >= MOST {
            self.numbers.clear();
            self.new.anew = true;
        }
        let number = self.next;
        self.next += 1;
        self.numbers.insert(text.to_owned(), number);
        self.new.strings.push(text.to_owned());
        number
    }

    pub fn statement(&mut self) -> Option<StringStatement> {
        if self.new.strings.is_empty() {
            return None;
        }
        let next = StringStatement { first: self.next, ..StringStatement::default() };
        Some(std::mem::replace(&mut self.new, next))
    }
}

/// Strings by their numbers.
#[derive(Debug, Default)]
pub(super) struct StatedStrings(BTreeMap<u64, String>);

impl StatedStrings {
    pub fn add(&mut self, StringStatement { first, anew, strings }: StringStatement) {
        if anew || self.0.len() > 2 * MOST {
            // The block that comes next may still refer to the last ones of before.
            self.0 = self.0.split_off(&first.saturating_sub(MOST as u64));
        }
        self.0.extend((first..).zip(strings));
    }

    pub fn get(&self, number: u64) -> &str {
        self.0.get(&number).map_or("(lost)", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_string_is_stated_once_and_a_lost_statement_is_no_other_string() {
        let mut writer = StringWriter::default();
        assert_eq!((writer.number("a"), writer.number("b"), writer.number("a")), (0, 1, 0));
        let first = writer.statement().unwrap();
        assert_eq!((first.strings.len(), writer.statement()), (2, None));
        assert_eq!(writer.number("c"), 2);
        let second = writer.statement().unwrap();
        let mut stated = StatedStrings::default();
        stated.add(second);
        assert_eq!((stated.get(0), stated.get(2)), ("(lost)", "c"));
        stated.add(first);
        assert_eq!((stated.get(0), stated.get(1), stated.get(2)), ("a", "b", "c"));
    }

    #[test]
    fn memory_is_bounded_on_both_sides() {
        let (mut writer, mut stated) = (StringWriter::default(), StatedStrings::default());
        for round in 0..10_u64 {
            for n in 0..MOST as u64 / 2 {
                let text = (round * 1_000_000 + n).to_string();
                let number = writer.number(&text);
                if let Some(statement) = writer.statement() {
                    stated.add(statement);
                }
                assert_eq!(stated.get(number), text);
            }
        }
        assert!(writer.numbers.len() <= MOST && stated.0.len() <= 2 * MOST + 1);
    }
}
