//! The objects of a JSON report. Fields stand in the order in which they are written.

use std::net::IpAddr;

use serde::{Serialize, Serializer};

use super::{SCHEMA, path::TraversalObject};
use crate::{
    flow::{
        Details, DropPlace, Drops, Flow, L4, Origins, Paths, Status, Tuple, ZoneDir,
        process::Process, protocol,
    },
    kernel::netlink::ctnetlink::Counters,
    report::{
        Footer, Header, Loss, Report, Totals,
        names::{self, Name, Names},
    },
};

/// A time, nanoseconds since the epoch.
struct Time(u64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&names::time(self.0))
    }
}

/// Counts by name, in their own order.
struct Counts(Vec<(&'static str, u64)>);

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "header")]
pub(super) struct HeaderObject<'a> {
    schema: &'static str,
    version: &'static str,
    host: &'a str,
    kernel: &'a str,
    backend: &'a str,
    backend_reason: &'a str,
    namespaces: Vec<NamespaceObject<'a>>,
    start: Time,
    end: Time,
    filters: &'a [String],
    folded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    epochs: Option<u64>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct NamespaceObject<'a> {
    name: &'a str,
    interfaces: Vec<InterfaceObject<'a>>,
}

#[derive(Serialize)]
struct InterfaceObject<'a> {
    index: u32,
    name: &'a str,
}

impl<'a> HeaderObject<'a> {
    pub(super) fn new(header: &'a Header) -> Self {
        let Header {
            version,
            host,
            kernel,
            backend,
            backend_reason,
            namespaces,
            start_ns,
            end_ns,
            filters,
            folded,
            epochs,
            notes,
        } = header;
        let interface = |(index, name): &'a (u32, String)| InterfaceObject { index: *index, name };
        let namespaces = namespaces.iter().map(|namespace| NamespaceObject {
            name: &namespace.name,
            interfaces: namespace.interfaces.iter().map(interface).collect(),
        });
        Self {
            schema: SCHEMA,
            version,
            host,
            kernel,
            backend,
            backend_reason,
            namespaces: namespaces.collect(),
            start: Time(*start_ns),
            end: Time(*end_ns),
            filters,
            folded: *folded,
            epochs: *epochs,
            notes,
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "flow")]
pub(super) struct FlowObject<'a> {
    netns: Name<'a>,
    zone: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone_direction: Option<&'static str>,
    family: &'static str,
    protocol: ProtocolObject,
    original: TupleObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<TupleObject>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nat: Vec<&'static str>,
    confirmed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<DroppedObject<'a>>,
    status: Vec<&'static str>,
    status_bits: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Name<'static>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    packet_mark: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interfaces: Option<WayObject<'a>>,
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
    sources: Vec<&'static str>,
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
            zone_dir,
            status,
            state,
            mark,
            packet_mark,
            interfaces,
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
        let way = |iif, oif| WayObject {
            iif: names.interface(key.netns, iif),
            oif: names.interface(key.netns, oif),
        };
        Self {
            netns: names.netns(key.netns),
            zone: key.zone,
            zone_direction: match zone_dir {
                ZoneDir::Both => None,
                ZoneDir::Original => Some("original"),
                ZoneDir::Reply => Some("reply"),
            },
            family: if key.orig.is_ipv4() { "ipv4" } else { "ipv6" },
            protocol: ProtocolObject {
                number: key.orig.proto,
                name: protocol::name(key.orig.proto),
            },
            original: key.orig.into(),
            reply: reply.map(TupleObject::from),
            nat: set([
                ("src", status.contains(Status::SRC_NAT)),
                ("dst", status.contains(Status::DST_NAT)),
            ]),
            confirmed: flow.confirmed(),
            dropped: drops.as_ref().map(|drops| DroppedObject::new(drops, way)),
            status: status.names().collect(),
            status_bits: status.0,
            state: state.map(|state| names::state(state).lower()),
            mark: *mark,
            packet_mark: *packet_mark,
            interfaces: interfaces.map(|(iif, oif)| way(iif, oif)),
            timeout_seconds: *timeout,
            flows: flow.merged(),
            ended: (*ended > 0).then_some(*ended),
            unconfirmed: flow.never_confirmed(),
            counters: counters.map(|[original, reply]| CountersObject {
                original: original.into(),
                reply: reply.into(),
            }),
            first_seen: Time(*first_ns),
            last_seen: Time(*last_ns),
            sources: sources(*origins, paths),
            process: process.as_deref().map(ProcessObject::from),
            traversals: paths.iter().map(TraversalObject::new).collect(),
            details: details.as_deref().map(DetailsObject::from),
        }
    }
}

/// The names whose condition holds.
fn set<const N: usize>(names: [(&'static str, bool); N]) -> Vec<&'static str> {
    names.into_iter().filter_map(|(name, holds)| holds.then_some(name)).collect()
}

fn sources(origins: Origins, paths: &Paths) -> Vec<&'static str> {
    let Origins { packets, dump, events, drops, ends } = origins;
    set([
        ("packets", packets),
        ("dump", dump),
        ("events", events),
        ("drops", drops),
        ("ends", ends),
        ("rules", !paths.is_empty()),
    ])
}

#[derive(Serialize)]
struct ProtocolObject {
    number: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
}

#[derive(Serialize)]
pub(super) struct TupleObject {
    src: IpAddr,
    dst: IpAddr,
    #[serde(flatten)]
    l4: L4Object,
}

#[derive(Serialize)]
#[serde(untagged)]
enum L4Object {
    Ports {
        sport: u16,
        dport: u16,
    },
    Icmp {
        #[serde(rename = "type")]
        kind: u8,
        code: u8,
        id: u16,
    },
    Gre {
        srckey: u16,
        dstkey: u16,
    },
    None {},
}

impl From<Tuple> for TupleObject {
    fn from(Tuple { src, dst, proto: _, l4 }: Tuple) -> Self {
        let l4 = match l4 {
            L4::Ports { src, dst } => L4Object::Ports { sport: src, dport: dst },
            L4::Icmp { kind, code, id } => L4Object::Icmp { kind, code, id },
            L4::Gre { src, dst } => L4Object::Gre { srckey: src, dstkey: dst },
            L4::None => L4Object::None {},
        };
        Self { src, dst, l4 }
    }
}

/// The interfaces that a packet came in and went out by.
#[derive(Serialize)]
struct WayObject<'a> {
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    iif: Option<Name<'a>>,
    #[serde(rename = "out", skip_serializing_if = "Option::is_none")]
    oif: Option<Name<'a>>,
}

#[derive(Serialize)]
struct DroppedObject<'a> {
    packets: u64,
    places: Vec<PlaceObject<'a>>,
}

#[derive(Serialize)]
struct PlaceObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<Name<'static>>,
    #[serde(flatten)]
    way: WayObject<'a>,
}

impl<'a> DroppedObject<'a> {
    fn new(drops: &Drops, way: impl Fn(u32, u32) -> WayObject<'a>) -> Self {
        let place = |&DropPlace { hook, iif, oif }: &DropPlace| PlaceObject {
            hook: hook.map(names::hook),
            way: way(iif, oif),
        };
        Self { packets: drops.packets(), places: drops.places().iter().map(place).collect() }
    }
}

#[derive(Serialize)]
struct CountersObject {
    original: CounterObject,
    reply: CounterObject,
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

#[derive(Serialize)]
#[serde(tag = "type", rename = "footer")]
pub(super) struct FooterObject {
    totals: TotalsObject,
    sources: Counts,
    losses: Counts,
    lost: bool,
}

#[derive(Serialize)]
struct TotalsObject {
    flows: u64,
    merged: u64,
    confirmed: u64,
    dropped: u64,
    dropped_packets: u64,
}

impl FooterObject {
    pub(super) fn new(report: &Report) -> Self {
        let Footer { sources, losses } = &report.footer;
        let Totals { flows, merged, confirmed, dropped, dropped_packets } = report.totals();
        let loss = |&Loss { name, meaning: _, count }: &Loss| (name, count);
        Self {
            totals: TotalsObject { flows, merged, confirmed, dropped, dropped_packets },
            sources: Counts(sources.clone()),
            losses: Counts(losses.iter().map(loss).collect()),
            lost: report.footer.lost_anything(),
        }
    }
}
