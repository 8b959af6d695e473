//! An entry of conntrack's table as the JSON object of a flow: the same object that a report has of the flow which the
//! entry becomes, made without that flow, because tables have millions of entries.

use super::{EntryDetails, FlowObject, Labels};
use crate::{
    conntrack::Entry,
    model::{Origins, Status, ZoneDir},
    report::{
        json::object::Time,
        names::{self, Name},
    },
};

/// When entries were read, or when an event was received.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// Nanoseconds since the epoch.
    ns: u64,
    text: String,
}

impl Stamp {
    /// A time in nanoseconds since the epoch.
    #[must_use]
    pub fn new(ns: u64) -> Self {
        Self { ns, text: names::time(ns).to_string() }
    }
}

impl<'a> FlowObject<'a> {
    /// The flow of an entry, in the namespace of this name: `event` says whether an event or a dump had the entry.
    pub(in crate::report::json) fn of_entry(
        entry: &'a Entry<'_>,
        netns: &'a str,
        at: &'a Stamp,
        event: bool,
    ) -> Self {
        let Entry {
            family: _, // that of the tuples
            orig,
            reply,
            master,
            zone,
            zone_orig,
            zone_reply,
            status,
            timeout,
            mark,
            secmark: _, // secctx is its name
            secctx,
            id,
            use_count,
            counters,
            start,
            stop,
            timestamp_event: _, // the time of an event is `at`
            helper,
            helper_info: _,
            labels: _, // Labels::Entry has them
            state,
            seqadj: _,
            synproxy: _,
            unknown: _,
            raw: _,
        } = entry;
        let now = Time::Text(&at.text);
        Self {
            netns: Name::Known(netns.into()),
            zone: *zone,
            zone_dir: ZoneDir::of_zones(*zone_orig, *zone_reply),
            original: *orig,
            reply: *reply,
            parent: *master,
            quotes: None,
            confirmed: status.contains(Status::SEEN_REPLY),
            no_entry: false,
            fits_several: false,
            resumed: false,
            dropped: None,
            lost: None,
            status: *status,
            state: *state,
            mark: *mark,
            packet_mark: None,
            interfaces: None,
            timeout_seconds: *timeout,
            flows: 1,
            ended: None,
            unconfirmed: None,
            counters: counters
                .iter()
                .any(Option::is_some)
                .then(|| counters.map(Option::unwrap_or_default)),
            first_seen: start.filter(|start| *start < at.ns).map_or(now, Time::Number),
            last_seen: now,
            origins: Origins { events: event, dump: !event, ..Origins::default() },
            process: None,
            traversals: Vec::new(),
            details: Some(EntryDetails {
                id: *id,
                use_count: *use_count,
                helper: helper.map(String::from_utf8_lossy),
                labels: Labels::Entry(entry),
                secctx: secctx.map(String::from_utf8_lossy),
                start: *start,
                stop: *stop,
            }),
        }
    }
}
