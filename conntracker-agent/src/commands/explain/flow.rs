//! A packet of a flow that conntrack's table has, or a recording: what the entry says of it.

use std::io;

use anyhow::{Context, Result, bail};
use conntracker_common::conntrack::{IPS_EXPECTED, IPS_SEEN_REPLY};

use super::{AskedPacket, HostSource};
use crate::{
    conntrack::{Conntrack, DumpRequest},
    firewall::evaluate::{tracking::Tracking, unknown::Attribute, word::Word},
    model::{
        Flow, L4, Tuple,
        path::{CtState, Direction},
    },
    netlink::ctnetlink::Entry,
    os::netns::Netns,
};

/// An entry, and the direction of the packet.
struct Found {
    direction: Direction,
    tracking: Tracking,
}

/// The entry of the packet that is asked about; its ports and its state become the packet's.
pub(super) fn find(host: &HostSource, asked: &mut AskedPacket) -> Result<Tracking> {
    let found = match host {
        HostSource::Live { netns } => live(netns.as_deref(), asked)?,
        HostSource::Recording { source, .. } => {
            let report = source.report(&source.inputs()?, 0..=u64::MAX)?;
            if report.header.folded {
                bail!("flows were folded where they were recorded: record with --no-fold");
            }
            let entries = report.flows.iter().filter(|flow| flow.key.entry);
            entries.filter_map(|flow| recorded(flow, asked)).collect()
        }
        HostSource::None => bail!("--flow needs a host: its flows, or those of a recording"),
    };
    let mut found = found.into_iter();
    let Found { direction, tracking } =
        found.next().context("conntrack has no flow with these ends")?;
    if let (others @ 1.., _) = found.size_hint() {
        bail!("{} flows have these ends: give both ports", others + 1);
    }
    let tuple = match direction {
        Direction::Original => tracking.original,
        Direction::Reply => tracking.reply,
    };
    if let Ok(Tuple { l4: L4::Ports { src, dst }, .. }) = tuple {
        asked.ports = [Some(src), Some(dst)];
    }
    asked.state = tracking.state.unwrap_or(CtState::Established);
    Ok(tracking)
}

/// Entries of a namespace's table.
fn live(netns: Option<&str>, asked: &AskedPacket) -> Result<Vec<Found>> {
    let netns = match netns {
        Some(name) => Netns::named(name)?,
        None => Netns::current()?,
    };
    let mut found = Vec::new();
    let read = netns.enter(|| {
        let mut conntrack = Conntrack::connect().map_err(io::Error::other)?;
        let take = |entry: Entry<'_>| found.extend(current(&entry, asked));
        conntrack.dump_with(&DumpRequest::default(), take).map_err(io::Error::other)
    });
    read.context("cannot read conntrack's table")?;
    Ok(found)
}

/// The direction in which a packet of a flow has the addresses and ports that are asked about.
pub(super) fn direction(
    asked: &AskedPacket,
    orig: &Tuple,
    reply: Option<&Tuple>,
) -> Option<Direction> {
    let [source, destination] = asked.addresses;
    let fits = |tuple: &Tuple| {
        let ports = match tuple.l4 {
            L4::Ports { src, dst } => [Some(src), Some(dst)],
            _ => [None; 2],
        };
        (tuple.proto, tuple.src, tuple.dst) == (asked.proto, source, destination)
            && asked.ports.iter().zip(ports).all(|(asked, port)| asked.is_none() || *asked == port)
    };
    if fits(orig) {
        Some(Direction::Original)
    } else {
        reply.filter(|reply| fits(reply)).map(|_| Direction::Reply)
    }
}

fn current(entry: &Entry<'_>, asked: &AskedPacket) -> Option<Found> {
    let direction = direction(asked, &entry.orig, entry.reply.as_ref())?;
    let mut labels = [0; 16];
    for (to, from) in labels.iter_mut().zip(entry.labels.unwrap_or_default()) {
        *to = *from;
    }
    let helper = String::from_utf8_lossy(entry.helper.unwrap_or_default()).into_owned();
    let tracking = Tracking {
        state: Ok(state(entry.status.0, direction)),
        direction: Ok(direction),
        status: Word::new(entry.status.0, Attribute::CtStatus.into()),
        mark: Word::new(entry.mark.unwrap_or_default().0, Attribute::CtMark.into()),
        zone: Ok(entry.zone),
        original: Ok(entry.orig),
        reply: entry.reply.ok_or(Attribute::CtTuple.into()),
        helper: Ok(helper),
        labels: Ok(labels),
    };
    Some(Found { direction, tracking })
}

fn recorded(flow: &Flow, asked: &AskedPacket) -> Option<Found> {
    let direction = direction(asked, &flow.key.orig, flow.reply.as_ref())?;
    let unknown = Tracking::unknown();
    let tracking = Tracking {
        state: Ok(state(flow.status.0, direction)),
        direction: Ok(direction),
        status: Word::new(flow.status.0, Attribute::CtStatus.into()),
        mark: flow.mark.map_or(unknown.mark, |mark| Word::new(mark.0, Attribute::CtMark.into())),
        zone: Ok(flow.key.zone),
        original: Ok(flow.key.orig),
        reply: flow.reply.ok_or(Attribute::CtTuple.into()),
        ..unknown
    };
    Some(Found { direction, tracking })
}

/// The state of a packet of a flow (`resolve_normal_ct` of net/netfilter/nf_conntrack_core.c).
fn state(status: u32, direction: Direction) -> CtState {
    match direction {
        Direction::Reply => CtState::Established,
        Direction::Original if status & IPS_SEEN_REPLY != 0 => CtState::Established,
        Direction::Original if status & IPS_EXPECTED != 0 => CtState::Related,
        Direction::Original => CtState::New,
    }
}
