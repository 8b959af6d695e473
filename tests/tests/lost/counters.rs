//! Counters of the kernel's network stack.

use std::fs;

use conntracker_tests::lab::Host;

/// One counter of a namespace.
#[derive(Clone, Copy)]
pub struct Counter {
    /// Its name.
    pub name: &'static str,
    /// The file in /proc/net.
    pub file: &'static str,
    /// What its two lines begin with; empty in `snmp6`, where each counter has a line.
    pub section: &'static str,
}

impl Counter {
    /// Its value.
    pub fn of(&self, host: &Host) -> u64 {
        let path = format!("/proc/thread-self/net/{}", self.file);
        let text = host.enter(|| Ok(fs::read_to_string(&path)?)).unwrap();
        if self.section.is_empty() {
            let mut lines = text.lines().map(str::split_ascii_whitespace);
            let line = lines.find_map(|mut words| (words.next()? == self.name).then_some(words));
            return line.and_then(|mut words| words.next()).unwrap().parse().unwrap();
        }
        let mut lines = text.lines().filter(|line| line.starts_with(self.section));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let mut pairs = names.split_ascii_whitespace().zip(values.split_ascii_whitespace());
        let (_, value) = pairs.find(|(name, _)| *name == self.name).unwrap();
        value.parse().unwrap()
    }
}
