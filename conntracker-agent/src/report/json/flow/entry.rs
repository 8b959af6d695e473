//! An entry of conntrack's table as the JSON object of a flow: the same object that a report has of the flow which the
//! entry becomes, made without that flow, because tables have millions of entries.

use super::{CountersObject, DetailsObject, FlowObject, Labels, direction, family, nat, sources};
use crate::{
    conntrack::Entry,
    model::{Origins, Status, ZoneDir},
    report::{
        json::values::{State, StatusNames, Time},
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
            zone_direction: direction(ZoneDir::of_zones(*zone_orig, *zone_reply)),
            family: family(orig),
            protocol: (*orig).into(),
            original: (*orig).into(),
            reply: reply.map(Into::into),
            parent: master.map(Into::into),
            quotes: None,
            nat: nat(*status),
            confirmed: status.contains(Status::SEEN_REPLY),
            no_entry: false,
            fits_several: false,
            dropped: None,
            lost: None,
            status: StatusNames(*status),
            status_bits: status.0,
            state: state.map(State),
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
                .then(|| CountersObject::from(counters.map(Option::unwrap_or_default))),
            first_seen: start.filter(|start| *start < at.ns).map_or(now, Time::Number),
            last_seen: now,
            sources: sources(Origins { events: event, dump: !event, ..Origins::default() }, false),
            process: None,
            traversals: Vec::new(),
            details: Some(DetailsObject {
                id: *id,
                use_count: *use_count,
                helper: helper.map(String::from_utf8_lossy),
                labels: Labels::Entry(entry),
                secctx: secctx.map(String::from_utf8_lossy),
                start: start.map(Time::Number),
                stop: stop.map(Time::Number),
            }),
        }
    }
}
