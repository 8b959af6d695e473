//! Names that are kept in files.

use std::collections::HashMap;

use crate::report::conntrack::LabelMap;

/// Names of labels and of protocols.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// /etc/xtables/connlabel.conf
    pub labels: LabelMap,
    protocols: HashMap<String, u8>,
}

impl Names {
    /// From the texts of /etc/xtables/connlabel.conf and /etc/protocols.
    #[must_use]
    pub fn parse(labels: &str, protocols: &str) -> Self {
        let mut numbers = HashMap::new();
        for line in protocols.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let (Some(name), Some(number)) = (words.next(), words.next()) else { continue };
            let Ok(number) = number.parse() else { continue };
            for name in std::iter::once(name).chain(words) {
                numbers.entry(name.to_owned()).or_insert(number);
            }
        }
        Self { labels: LabelMap::parse(labels), protocols: numbers }
    }

    /// The number of a protocol by its name or an alias.
    #[must_use]
    pub fn protocol(&self, name: &str) -> Option<u8> {
        self.protocols.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_have_names_and_other_names() {
        let names =
            Names::parse("1 foo\n", "# c\nip 0 IP # internet\nesp\t50\tIPSEC-ESP\nbad\nworse x\n");
        assert_eq!((names.protocol("esp"), names.protocol("IPSEC-ESP")), (Some(50), Some(50)));
        assert_eq!((names.protocol("IP"), names.protocol("internet")), (Some(0), None));
        assert_eq!(names.labels.number("foo"), Some(1));
    }
}
