//! A flow as a JSON object.

mod drops;
mod entry;
mod process;

use std::{borrow::Cow, io};

use self::drops::{DroppedObject, LostObject};
pub use self::entry::Stamp;
pub(super) use self::{drops::InterfacesObject, process::ProcessObject};
use super::{
    object::{Object, Time},
    path::TraversalObject,
};
use crate::{
    conntrack::Entry,
    model::{
        Details, DroppedAt, Flow, Mark, Origins, Status, Tuple, Zone, ZoneDir, counters::Counters,
        state::ProtoState,
    },
    report::names::{Name, Names},
};

/// What the object of a flow says, whether the flow is of a report or an entry of conntrack's table.
pub(super) struct FlowObject<'a> {
    netns: Name<'a>,
    zone: Zone,
    zone_dir: ZoneDir,
    original: Tuple,
    reply: Option<Tuple>,
    parent: Option<Tuple>,
    quotes: Option<Tuple>,
    confirmed: bool,
    no_entry: bool,
    fits_several: bool,
    resumed: bool,
    dropped: Option<DroppedObject<'a>>,
    lost: Option<LostObject<'a>>,
    status: Status,
    state: Option<ProtoState>,
    mark: Option<Mark>,
    packet_mark: Option<Mark>,
    interfaces: Option<InterfacesObject<'a>>,
    timeout_seconds: Option<u32>,
    flows: u64,
    ended: Option<u64>,
    unconfirmed: Option<u64>,
    counters: Option<[Counters; 2]>,
    first_seen: Time<'a>,
    last_seen: Time<'a>,
    origins: Origins,
    process: Option<ProcessObject<'a>>,
    traversals: Vec<TraversalObject<'a>>,
    details: Option<EntryDetails<'a>>,
}

/// What the object says of the entry alone.
struct EntryDetails<'a> {
    id: Option<u32>,
    use_count: Option<u32>,
    helper: Option<Cow<'a, str>>,
    labels: Labels<'a>,
    secctx: Option<Cow<'a, str>>,
    start: Option<u64>,
    stop: Option<u64>,
}

/// Numbers of labels.
enum Labels<'a> {
    Numbers(&'a [u16]),
    /// Those of an entry.
    Entry(&'a Entry<'a>),
}

impl<'a> FlowObject<'a> {
    pub(super) fn new(flow: &'a Flow, names: &Names<'a>) -> Self {
        let Flow {
            key,
            reply,
            parent,
            quotes,
            zone_dir,
            status,
            state,
            mark,
            packet_mark,
            interfaces,
            fits_several,
            resumed,
            timeout,
            flows: _, // as Flow::merged has it
            ended,
            unconfirmed: _, // as Flow::never_confirmed has it
            counters,
            first_ns,
            last_ns,
            drops,
            paths,
            origins,
            process,
            details,
        } = flow;
        let way = |iif, oif| InterfacesObject {
            iif: names.interface(key.netns, iif),
            oif: names.interface(key.netns, oif),
        };
        let suspects = |at: &DroppedAt| names.suspects(key.netns, at);
        Self {
            netns: names.netns(key.netns),
            zone: key.zone,
            zone_dir: *zone_dir,
            original: key.orig,
            reply: *reply,
            parent: parent.as_deref().copied(),
            quotes: quotes.as_deref().copied(),
            confirmed: flow.confirmed(),
            no_entry: !key.entry,
            fits_several: *fits_several,
            resumed: *resumed,
            dropped: drops
                .as_ref()
                .filter(|_| flow.dropped())
                .map(|drops| DroppedObject::new(drops, way, suspects)),
            lost: drops.as_ref().filter(|_| flow.lost()).map(|drops| LostObject::new(drops, way)),
            status: *status,
            state: *state,
            mark: *mark,
            packet_mark: *packet_mark,
            interfaces: interfaces.map(|(iif, oif)| way(iif, oif)),
            timeout_seconds: *timeout,
            flows: flow.merged(),
            ended: (*ended > 0).then_some(*ended),
            unconfirmed: flow.never_confirmed(),
            counters: *counters,
            first_seen: Time::Number(*first_ns),
            last_seen: Time::Number(*last_ns),
            origins: *origins,
            process: process.as_deref().map(ProcessObject::from),
            traversals: paths.iter().map(|path| TraversalObject::new(flow, path)).collect(),
            details: details.as_deref().map(EntryDetails::from),
        }
    }

    /// Appends the object.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let Self {
            netns,
            zone,
            zone_dir,
            original,
            reply,
            parent,
            quotes,
            confirmed,
            no_entry,
            fits_several,
            resumed,
            dropped,
            lost,
            status,
            state,
            mark,
            packet_mark,
            interfaces,
            timeout_seconds,
            flows,
            ended,
            unconfirmed,
            counters,
            first_seen,
            last_seen,
            origins,
            process,
            traversals,
            details,
        } = self;
        let mut object = Object::begin(out, "flow");
        object.value("netns", netns)?;
        object.number("zone", *zone);
        match zone_dir {
            ZoneDir::Both => {}
            ZoneDir::Original => object.word("zone_direction", "original"),
            ZoneDir::Reply => object.word("zone_direction", "reply"),
        }
        object.word("family", if original.is_ipv4() { "ipv4" } else { "ipv6" });
        object.protocol(original.proto);
        object.tuple("original", original);
        if let Some(reply) = reply {
            object.tuple("reply", reply);
        }
        if let Some(parent) = parent {
            object.other_tuple("parent", parent);
        }
        if let Some(quoted) = quotes {
            object.other_tuple("quotes", quoted);
        }
        let nat = [(Status::SRC_NAT, "src"), (Status::DST_NAT, "dst")];
        let nat = nat.into_iter().filter(|(bit, _)| status.contains(*bit)).map(|(_, name)| name);
        if nat.clone().next().is_some() {
            object.words("nat", nat);
        }
        object.flag("confirmed", *confirmed);
        object.if_so("no_entry", *no_entry);
        object.if_so("fits_several", *fits_several);
        object.if_so("resumed", *resumed);
        object.optional_value("dropped", dropped.as_ref())?;
        object.optional_value("lost", lost.as_ref())?;
        object.words("status", status.names());
        object.number("status_bits", status.0);
        if let Some(state) = state {
            match state.name() {
                Some(name) => object.lower_case("state", name),
                None => object.number("state", state.number()),
            }
        }
        object.optional("mark", *mark);
        object.optional("packet_mark", *packet_mark);
        object.optional_value("interfaces", interfaces.as_ref())?;
        object.optional("timeout_seconds", *timeout_seconds);
        object.number("flows", *flows);
        object.optional("ended", *ended);
        object.optional("unconfirmed", *unconfirmed);
        if let Some(counters) = counters {
            object.counters(counters);
        }
        object.time("first_seen", *first_seen);
        object.time("last_seen", *last_seen);
        object.words("sources", sources(*origins, !traversals.is_empty()));
        object.optional_value("process", process.as_ref())?;
        if !traversals.is_empty() {
            object.value("traversals", traversals)?;
        }
        if let Some(details) = details {
            details.write(&mut object)?;
        }
        object.end();
        Ok(())
    }
}

/// Names of the sources that saw a flow.
fn sources(origins: Origins, rules: bool) -> impl Iterator<Item = &'static str> {
    let Origins { packets, dump, events, drops, ends } = origins;
    let all = [
        ("packets", packets),
        ("dump", dump),
        ("events", events),
        ("drops", drops),
        ("ends", ends),
        ("rules", rules),
    ];
    all.into_iter().filter_map(|(name, saw)| saw.then_some(name))
}

impl EntryDetails<'_> {
    /// Appends the fields.
    fn write(&self, object: &mut Object<'_>) -> io::Result<()> {
        let Self { id, use_count, helper, labels, secctx, start, stop } = self;
        object.optional("id", *id);
        object.optional("use", *use_count);
        object.optional_value("helper", helper.as_ref())?;
        match labels {
            Labels::Numbers(numbers) => object.numbers("labels", numbers.iter().copied()),
            Labels::Entry(entry) => object.numbers("labels", entry.label_numbers()),
        }
        object.optional_value("secctx", secctx.as_ref())?;
        for (name, time) in [("start", start), ("stop", stop)] {
            if let Some(ns) = time {
                object.time(name, Time::Number(*ns));
            }
        }
        Ok(())
    }
}

impl<'a> From<&'a Details> for EntryDetails<'a> {
    fn from(details: &'a Details) -> Self {
        let Details { id, use_count, helper, labels, secctx, start_ns, stop_ns } = details;
        Self {
            id: *id,
            use_count: *use_count,
            helper: helper.as_deref().map(Cow::Borrowed),
            labels: Labels::Numbers(labels),
            secctx: secctx.as_deref().map(Cow::Borrowed),
            start: *start_ns,
            stop: *stop_ns,
        }
    }
}
