//! What the reader of a report must know about the system it was made on: what is off, full or
//! missing, and how to enable it.

use std::{fs, io, sync::Arc};

use crate::{
    bpf::activity::Activity,
    capture::{Config, backend::Backend},
    os::netns::Netns,
};

/// Directory of conntrack's sysctls; they belong to the namespace of the reading thread.
const SYSCTL: &str = "/proc/sys/net/netfilter";

/// Share of the table, in percent, from which on it is called almost full.
const ALMOST_FULL: u64 = 95;

/// Conntrack's settings in a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether the sysctls are there: conntrack is loaded.
    pub present: bool,
    /// `nf_conntrack_acct`.
    pub accounting: bool,
    /// `nf_conntrack_events`: 0 off, 1 on, 2 while somebody listens (Linux 5.19+).
    pub events: u64,
    /// `nf_conntrack_timestamp`.
    pub timestamps: bool,
    /// `nf_conntrack_count`.
    pub count: u64,
    /// `nf_conntrack_max`, of the initial namespace; 0 if it could not be read.
    pub max: u64,
}

impl Settings {
    /// Reads them in a namespace.
    pub fn of(netns: &Netns) -> io::Result<Self> {
        netns.enter(|| {
            let read = |name: &str| -> Option<u64> {
                fs::read_to_string(format!("{SYSCTL}/{name}")).ok()?.trim().parse().ok()
            };
            let count = read("nf_conntrack_count");
            Ok(Self {
                present: count.is_some(),
                accounting: read("nf_conntrack_acct") == Some(1),
                // Not there without CONFIG_NF_CONNTRACK_EVENTS.
                events: read("nf_conntrack_events").unwrap_or(0),
                timestamps: read("nf_conntrack_timestamp") == Some(1),
                count: count.unwrap_or(0),
                max: read("nf_conntrack_max").unwrap_or(0),
            })
        })
    }

    /// What to say when the table is full or almost.
    #[must_use]
    pub fn fullness(&self) -> Option<String> {
        let Self { count, max, .. } = *self;
        if max == 0 || count * 100 < max * ALMOST_FULL {
            return None;
        }
        let state =
            if count >= max { "full: packets of new flows are dropped" } else { "almost full" };
        Some(format!(
            "the conntrack table is {state} ({count} of {max} entries); enlarge it with `sysctl -w net.netfilter.nf_conntrack_max=N`"
        ))
    }
}

/// How to make the kernel track connections.
pub const HOW_TO_ACTIVATE: &str = "conntrack works only where a rule needs it; any rule with `ct state`, NAT or a helper will do, for example `nft add table inet tracking; nft add chain inet tracking c '{ type filter hook prerouting priority 0; }'; nft add rule inet tracking c ct state new accept`";

/// What was seen so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Whether there is any flow.
    pub flows: bool,
    /// Packets that passed without a conntrack entry.
    pub packets_without_conntrack: u64,
}

/// The notes of now: at the start for the user to see, in each report for its reader.
pub(super) fn now<'a>(
    config: &Config,
    backend: &mut Backend,
    namespaces: impl Iterator<Item = &'a Arc<Netns>>,
    seen: Seen,
) -> Vec<String> {
    let mut notes = Vec::new();
    if !backend.sees_drops() {
        notes.push("drops are not visible with the netlink backend".to_owned());
    }
    match backend.rules() {
        Some(rules) => notes.extend(rules.notes().map(|(netns, text)| in_namespace(netns, &text))),
        None if config.rules.is_some() => {
            notes.push(format!("rules are not traced: {}", backend.without_rules()));
        }
        None => {}
    }
    if let Some(why) = backend.without_ends() {
        notes.push(format!("ends of flows are not seen: {why}"));
    }
    if let Some(why) = backend.without_hooks() {
        notes.push(format!("new flows are seen without hook and interfaces, first replies not at all (dumps and ends tell of them): {why}"));
    }
    for netns in namespaces {
        let Ok(settings) = Settings::of(netns) else { continue };
        let all = settings.notes(backend, netns, seen);
        notes.extend(all.iter().map(|text| in_namespace(netns, text)));
    }
    if !seen.flows && seen.packets_without_conntrack > 0 {
        notes.push(format!(
            "{} packets passed, none of them tracked: conntrack was not active, or found them invalid",
            seen.packets_without_conntrack
        ));
    }
    notes
}

impl Settings {
    fn notes(&self, backend: &mut Backend, netns: &Netns, seen: Seen) -> Vec<String> {
        if !self.present {
            return vec![
                "conntrack is not loaded, so there are no flows (`modprobe nf_conntrack`)"
                    .to_owned(),
            ];
        }
        let mut notes = Vec::new();
        match backend.activity(netns) {
            Some(Ok(Activity { v4: false, v6: false })) => {
                notes.push(format!("conntrack is not active. {HOW_TO_ACTIVATE}"));
            }
            Some(Ok(Activity { v4: false, .. })) => {
                notes.push("conntrack is not active for IPv4".to_owned());
            }
            Some(Ok(Activity { v6: false, .. })) => {
                notes.push("conntrack is not active for IPv6".to_owned());
            }
            Some(Err(error)) => {
                notes.push(format!("cannot tell whether conntrack is active: {error:#}"));
            }
            None if self.count == 0 && !seen.flows => {
                notes.push(format!("the conntrack table is empty. {HOW_TO_ACTIVATE}"));
            }
            Some(Ok(_)) | None => {}
        }
        if !self.accounting {
            notes.push("packets and bytes are not counted; enable with `sysctl -w net.netfilter.nf_conntrack_acct=1` (new flows only)".to_owned());
        }
        if self.events == 0 && !backend.sees_drops() {
            notes.push("conntrack events are off, so that only flows in dumps are seen; enable with `sysctl -w net.netfilter.nf_conntrack_events=1`".to_owned());
        }
        notes.extend(self.fullness());
        notes
    }
}

/// Names the namespace unless it is our own.
pub(super) fn in_namespace(netns: &Netns, text: &str) -> String {
    if netns.name == "-" { text.to_owned() } else { format!("{text} [namespace {}]", netns.name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_is_told_from_an_almost_full_one() {
        let with = |count| Settings { count, max: 1000, ..Settings::default() }.fullness();
        assert_eq!(with(949), None);
        assert!(with(950).unwrap().contains("almost full (950 of 1000"));
        assert!(with(1000).unwrap().contains("full: packets of new flows are dropped"));
        assert_eq!(Settings { count: 5, ..Settings::default() }.fullness(), None);
    }
}
