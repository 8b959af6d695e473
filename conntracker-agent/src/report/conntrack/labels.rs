//! Names of conntrack labels: /etc/xtables/connlabel.conf.

use std::collections::HashMap;

/// Number of labels an entry can have.
pub const LABELS: u16 = 128;

/// Labels by name and by number. The file has a number (0 to 127) and a name on each line; `#` begins
/// a comment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelMap {
    names: Vec<Option<String>>,
    numbers: HashMap<String, u16>,
}

impl LabelMap {
    /// Where names are looked for.
    pub const PATH: &str = "/etc/xtables/connlabel.conf";

    /// Reads the text of such a file. Like libnetfilter_conntrack it skips lines that are no label; of several names
    /// of a number, and of several numbers of a name, the first one counts.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut map = Self { names: vec![None; usize::from(LABELS)], numbers: HashMap::new() };
        for line in text.lines() {
            let line = line.trim();
            let Some((number, name)) = line.split_once(|c: char| c.is_ascii_whitespace()) else {
                continue;
            };
            let name = name.trim();
            let Some(number) = number.parse().ok().filter(|&n: &u16| n < LABELS) else { continue };
            let Some(slot) = map.names.get_mut(usize::from(number)) else { continue };
            if slot.is_none() && !name.is_empty() && !map.numbers.contains_key(name) {
                *slot = Some(name.to_owned());
                map.numbers.insert(name.to_owned(), number);
            }
        }
        map
    }

    /// Name of a label, if it has one.
    #[must_use]
    pub fn name(&self, number: u16) -> Option<&str> {
        self.names.get(usize::from(number))?.as_deref()
    }

    /// Number of a label given by name, or by number.
    #[must_use]
    pub fn number(&self, text: &str) -> Option<u16> {
        let number = || text.parse().ok().filter(|&number| number < LABELS);
        self.numbers.get(text).copied().or_else(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_before_numbers_and_what_is_no_label_is_passed_over() {
        let map = LabelMap::parse(
            "# comment\n0 zero\n 1\tfoo\n5 bar baz\n127 last\n128 large\nx junk\n7\n1 again\n9 foo\n3 5\n",
        );
        assert_eq!(map.name(0), Some("zero"));
        assert_eq!(map.name(1), Some("foo"));
        assert_eq!(map.name(5), Some("bar baz"));
        assert_eq!((map.name(9), map.name(7), map.name(128)), (None, None, None));
        assert_eq!((map.number("foo"), map.number("last")), (Some(1), Some(127)));
        assert_eq!((map.number("9"), map.number("128"), map.number("x")), (Some(9), None, None));
        // A name that looks like a number.
        assert_eq!(map.number("5"), Some(3));
        assert_eq!(LabelMap::default().number("77"), Some(77));
    }
}
