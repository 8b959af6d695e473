//! A flow as a JSON object. Fields stand in the order in which they are written. What changes here changes
//! in [`entry`](super::entry) too.

use serde::Serialize;

use super::tuple::TupleObject;
use super::{
    path::{StepObject, TraversalObject},
    values::{Set, State, StatusNames, Time},
};
use crate::{
    model::{
        Cause, Clash, Details, DropPoint, DroppedAt, Drops, Flow, Mark, Origins, Status, Tuple,
        Zone, ZoneDir, counters::Counters, process::Process, protocol,
    },
    report::names::{self, Name, Names},
};

#[derive(Serialize)]
#[serde(tag = "type", rename = "flow")]
pub(super) struct FlowObject<'a> {
    netns: Name<'a>,
    zone: Zone,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone_direction: Option<&'static str>,
    family: &'static str,
    protocol: ProtocolObject,
    original: TupleObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<TupleObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<OtherObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quotes: Option<OtherObject>,
    #[serde(skip_serializing_if = "Set::is_empty")]
    nat: Set<2>,
    confirmed: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_entry: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    fits_several: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<DroppedObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<LostObject<'a>>,
    status: StatusNames,
    status_bits: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<Mark>,
    #[serde(skip_serializing_if = "Option::is_none")]
    packet_mark: Option<Mark>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interfaces: Option<InterfacesObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<u32>,
    flows: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unconfirmed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<CountersObject>,
    first_seen: Time,
    last_seen: Time,
    sources: Set<6>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<ProcessObject<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    traversals: Vec<TraversalObject<'a>>,
    #[serde(flatten)]
    details: Option<DetailsObject<'a>>,
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
            zone_direction: direction(*zone_dir),
            family: family(&key.orig),
            protocol: key.orig.into(),
            original: key.orig.into(),
            reply: reply.map(TupleObject::from),
            parent: parent.map(OtherObject::from),
            quotes: quotes.map(OtherObject::from),
            nat: nat(*status),
            confirmed: flow.confirmed(),
            no_entry: !key.entry,
            fits_several: *fits_several,
            dropped: drops
                .as_ref()
                .filter(|_| flow.dropped())
                .map(|drops| DroppedObject::new(drops, way, suspects)),
            lost: drops.as_ref().filter(|_| flow.lost()).map(|drops| LostObject::new(drops, way)),
            status: StatusNames(*status),
            status_bits: status.0,
            state: state.map(State),
            mark: *mark,
            packet_mark: *packet_mark,
            interfaces: interfaces.map(|(iif, oif)| way(iif, oif)),
            timeout_seconds: *timeout,
            flows: flow.merged(),
            ended: (*ended > 0).then_some(*ended),
            unconfirmed: flow.never_confirmed(),
            counters: counters.map(CountersObject::from),
            first_seen: Time(*first_ns),
            last_seen: Time(*last_ns),
            sources: sources(*origins, !paths.is_empty()),
            process: process.as_deref().map(ProcessObject::from),
            traversals: paths.iter().map(|path| TraversalObject::new(flow, path)).collect(),
            details: details.as_deref().map(DetailsObject::from),
        }
    }
}

fn direction(zone: ZoneDir) -> Option<&'static str> {
    match zone {
        ZoneDir::Both => None,
        ZoneDir::Original => Some("original"),
        ZoneDir::Reply => Some("reply"),
    }
}

fn family(tuple: &Tuple) -> &'static str {
    if tuple.is_ipv4() { "ipv4" } else { "ipv6" }
}

fn nat(status: Status) -> Set<2> {
    Set([("src", status.contains(Status::SRC_NAT)), ("dst", status.contains(Status::DST_NAT))])
}

fn sources(origins: Origins, rules: bool) -> Set<6> {
    let Origins { packets, dump, events, drops, ends } = origins;
    Set([
        ("packets", packets),
        ("dump", dump),
        ("events", events),
        ("drops", drops),
        ("ends", ends),
        ("rules", rules),
    ])
}

#[derive(Serialize)]
struct ProtocolObject {
    number: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
}

impl From<Tuple> for ProtocolObject {
    fn from(tuple: Tuple) -> Self {
        Self { number: tuple.proto, name: protocol::name(tuple.proto) }
    }
}

/// One direction of another flow.
#[derive(Serialize)]
struct OtherObject {
    protocol: ProtocolObject,
    #[serde(flatten)]
    tuple: TupleObject,
}

impl From<Tuple> for OtherObject {
    fn from(tuple: Tuple) -> Self {
        Self { protocol: tuple.into(), tuple: tuple.into() }
    }
}

/// The interfaces that a packet came in and went out by.
#[derive(Serialize)]
struct InterfacesObject<'a> {
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    iif: Option<Name<'a>>,
    #[serde(rename = "out", skip_serializing_if = "Option::is_none")]
    oif: Option<Name<'a>>,
}

#[derive(Serialize)]
struct DroppedObject<'a> {
    packets: u64,
    places: Vec<DropPointObject<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    elsewhere: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    clash: Option<ClashObject>,
}

/// The tuple that the entry of dropped packets could not have, and whose it is.
#[derive(Serialize)]
struct ClashObject {
    reply: TupleObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<TupleObject>,
}

/// Whether a count says nothing.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[derive(Serialize)]
struct DropPointObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<Name<'static>>,
    #[serde(flatten)]
    way: InterfacesObject<'a>,
    packets: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<StepObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conntrack: Option<&'static str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    maybe: &'a [String],
}

/// Packets that got lost elsewhere than in netfilter.
#[derive(Serialize)]
struct LostObject<'a> {
    packets: u64,
    places: Vec<LossPointObject<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    elsewhere: u64,
}

#[derive(Serialize)]
struct LossPointObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Name<'static>>,
    #[serde(flatten)]
    way: InterfacesObject<'a>,
    packets: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meaning: Option<&'static str>,
}

impl<'a> LostObject<'a> {
    fn new(drops: &Drops, way: impl Fn(u32, u32) -> InterfacesObject<'a>) -> Self {
        let place = |at: &DroppedAt| {
            let DropPoint { cause, hook, iif, oif } = at.place;
            let (reason, function) = match cause {
                Cause::Function(name) => (None, Some(name)),
                cause => (cause.elsewhere(), None),
            };
            LossPointObject {
                after: hook.map(names::hook),
                way: way(iif, oif),
                packets: at.packets,
                reason,
                function,
                meaning: cause.elsewhere().and_then(names::meaning),
            }
        };
        Self {
            packets: drops.lost_packets(),
            places: drops.lost().map(place).collect(),
            elsewhere: drops.lost_elsewhere(),
        }
    }
}

impl<'a> DroppedObject<'a> {
    fn new(
        drops: &'a Drops,
        way: impl Fn(u32, u32) -> InterfacesObject<'a>,
        suspects: impl Fn(&DroppedAt) -> &'a [String],
    ) -> Self {
        let place = |at: &'a DroppedAt| {
            let DroppedAt { place: DropPoint { cause, hook, iif, oif }, by, packets } = at;
            let maybe = suspects(at);
            let conntrack = match cause {
                Cause::Conntrack(cause) => Some(cause.name()),
                _ => None,
            };
            DropPointObject {
                hook: hook.filter(|_| maybe.is_empty()).map(names::hook),
                way: way(*iif, *oif),
                packets: *packets,
                by: by.as_ref().filter(|_| conntrack.is_none()).map(StepObject::new),
                conntrack,
                maybe,
            }
        };
        Self {
            packets: drops.packets(),
            places: drops.dropped().map(place).collect(),
            elsewhere: drops.elsewhere(),
            clash: drops.clash().map(|Clash { reply, holder }| ClashObject {
                reply: reply.into(),
                holder: holder.map(TupleObject::from),
            }),
        }
    }
}

#[derive(Serialize)]
struct CountersObject {
    original: CounterObject,
    reply: CounterObject,
}

impl From<[Counters; 2]> for CountersObject {
    fn from([original, reply]: [Counters; 2]) -> Self {
        Self { original: original.into(), reply: reply.into() }
    }
}

#[derive(Serialize)]
struct CounterObject {
    packets: u64,
    bytes: u64,
}

impl From<Counters> for CounterObject {
    fn from(Counters { packets, bytes }: Counters) -> Self {
        Self { packets, bytes }
    }
}

#[derive(Serialize)]
struct ProcessObject<'a> {
    direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm: Option<&'a str>,
    uid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inode: Option<u64>,
}

impl<'a> From<&'a Process> for ProcessObject<'a> {
    fn from(process: &'a Process) -> Self {
        let Process { direction, uid, user, pid, comm, cgroup_id, cgroup, inode } = process;
        Self {
            direction: direction.name(),
            pid: *pid,
            comm: comm.as_deref(),
            uid: *uid,
            user: user.as_deref(),
            cgroup: cgroup.as_deref(),
            cgroup_id: *cgroup_id,
            inode: *inode,
        }
    }
}

#[derive(Serialize)]
struct DetailsObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    use_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    helper: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    labels: &'a [u16],
    #[serde(skip_serializing_if = "Option::is_none")]
    secctx: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<Time>,
}

impl<'a> From<&'a Details> for DetailsObject<'a> {
    fn from(details: &'a Details) -> Self {
        let Details { id, use_count, helper, labels, secctx, start_ns, stop_ns } = details;
        Self {
            id: *id,
            use_count: *use_count,
            helper: helper.as_deref(),
            labels,
            secctx: secctx.as_deref(),
            start: start_ns.map(Time),
            stop: stop_ns.map(Time),
        }
    }
}
