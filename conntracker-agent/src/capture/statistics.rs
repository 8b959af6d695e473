//! Conntrack's own counters (`conntrack -S`) since the observation of a namespace began, because no event reports
//! evicted entries and invalid packets.

use std::{collections::BTreeMap, io};

use crate::{
    model::NetnsId,
    netlink::{
        ctnetlink::stats::{self, CpuStats},
        socket::Socket,
    },
    os::netns::Netns,
    report::OneLine,
};

/// The counters that are reported, and their words.
const REPORTED: [(&str, &str); 5] = [
    ("drop", "packets dropped: no room for an entry, or its tuple was taken"),
    ("insert_failed", "of these because the tuple was taken"),
    ("early_drop", "entries removed before their time, to make room"),
    ("invalid", "packets that cannot be tracked"),
    ("error", "ICMP errors that fit no entry, or are damaged"),
];

/// The counters of each CPU in a namespace; none where the kernel does not send them (the first packet that conntrack
/// drops on a CPU may then get the wrong cause).
pub(crate) fn of(netns: &Netns) -> Vec<CpuStats> {
    let stats = netns.enter(|| {
        let mut socket = Socket::netfilter().map_err(io::Error::other)?;
        stats::per_cpu(&mut socket).map_err(io::Error::other)
    });
    stats.unwrap_or_else(|error| {
        log::warn!("no statistics of conntrack in namespace {}: {error}", OneLine(&netns.name));
        Vec::new()
    })
}

/// The counters at the beginning of the observation of each namespace.
#[derive(Debug, Default)]
pub(crate) struct Statistics(BTreeMap<NetnsId, Vec<CpuStats>>);

impl Statistics {
    /// A namespace is observed from now on.
    pub fn begin(&mut self, id: NetnsId, netns: &Netns) {
        self.0.insert(id, of(netns));
    }

    /// A namespace is not observed any more.
    pub fn end(&mut self, id: NetnsId) {
        self.0.remove(&id);
    }

    /// The increase since then, if there is any.
    pub fn note(&self, id: NetnsId, netns: &Netns) -> Option<String> {
        let before = self.0.get(&id).filter(|before| !before.is_empty())?;
        grown(before, &of(netns))
    }
}

fn grown(before: &[CpuStats], now: &[CpuStats]) -> Option<String> {
    let grown = |wanted: &str| -> u64 {
        let counter = |cpu: &CpuStats| {
            let found = cpu.counters().find(|(name, _)| *name == wanted);
            found.map_or(0, |(_, value)| value)
        };
        let of_cpu = |cpu: &CpuStats| {
            let before = before.iter().find(|before| before.cpu == cpu.cpu).map_or(0, counter);
            u64::from(counter(cpu).wrapping_sub(before))
        };
        now.iter().map(of_cpu).sum()
    };
    let parts: Vec<String> = REPORTED
        .iter()
        .map(|(name, meaning)| (name, meaning, grown(name)))
        .filter(|(.., count)| *count > 0)
        .map(|(name, meaning, count)| format!("{name}={count} ({meaning})"))
        .collect();
    (!parts.is_empty()).then(|| format!("conntrack counted meanwhile: {}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_grown_is_summed_over_the_cpus_and_may_wrap() {
        let cpu = |cpu, invalid, early_drop| CpuStats {
            cpu,
            invalid: Some(invalid),
            early_drop: Some(early_drop),
            ..CpuStats::default()
        };
        let before = [cpu(0, u32::MAX, 7), cpu(1, 10, 0)];
        assert_eq!(grown(&before, &before), None);
        let now = [cpu(0, 1, 7), cpu(1, 13, 0), cpu(2, 1, 0)];
        assert_eq!(
            grown(&before, &now).unwrap(),
            "conntrack counted meanwhile: invalid=6 (packets that cannot be tracked)"
        );
    }
}
