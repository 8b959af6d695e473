//! Dumps run in threads of their own, so that the ring is drained meanwhile.

use std::{io, ops::RangeInclusive, sync::Arc};

use anyhow::{Context, Result};
use ipnet::IpNet;
use tokio::sync::mpsc;

use crate::{
    conntrack::{DumpRequest, DumpStats, TupleFilter},
    model::{
        Mark, NetnsId,
        event::Entry,
        filter::{AnyOf, Family, Filter},
    },
    netlink::{Socket, ctnetlink},
    os::{netns::Netns, threads},
};

/// Entries per message.
const BATCH: usize = 512;

/// Messages in the channel; a dump waits for the loop when it is full, so that memory stays bounded.
pub(crate) const CHANNEL: usize = 8;

/// From a dump's thread to the loop.
pub(crate) enum DumpMessage {
    /// Some entries.
    Entries(NetnsId, Vec<Entry>),
    /// The end.
    Done(NetnsId, Result<DumpStats>),
}

/// The part of the filter that the kernel applies to dumps of a trace: only on values that never change, because an
/// entry that a dump lacks counts as ended.
pub(crate) fn lasting(filter: &Filter) -> DumpRequest {
    DumpRequest { mark: None, status: None, ..request(filter) }
}

/// The part of the filter that the kernel can apply. It may ignore conditions that it does not know, so flows are
/// filtered again here.
pub(crate) fn request(filter: &Filter) -> DumpRequest {
    let host = |nets: &AnyOf<IpNet>| {
        nets.single().filter(|net| net.prefix_len() == net.max_prefix_len()).map(IpNet::addr)
    };
    let port = |ports: &AnyOf<RangeInclusive<u16>>| {
        ports.single().filter(|ports| ports.start() == ports.end()).map(|ports| *ports.start())
    };
    DumpRequest {
        family: filter.family.single().map(|family| match family {
            Family::Ipv4 => libc::AF_INET as u8,
            Family::Ipv6 => libc::AF_INET6 as u8,
        }),
        mark: filter.mark.single().map(|mark| (Mark(mark.value & mark.mask), mark.mask)),
        status: filter.status.single().map(|status| status.bits()),
        zone: filter.zone.single().copied(),
        orig: TupleFilter {
            src: host(&filter.src),
            dst: host(&filter.dst),
            proto: filter.proto.single().copied(),
            sport: port(&filter.sport),
            dport: port(&filter.dport),
            ..TupleFilter::default()
        },
        reply: TupleFilter {
            src: host(&filter.reply_src),
            dst: host(&filter.reply_dst),
            sport: port(&filter.reply_sport),
            dport: port(&filter.reply_dport),
            ..TupleFilter::default()
        },
    }
}

/// Starts a dump.
///
/// # Errors The kernel refuses a thread.
pub(crate) fn spawn(
    netns: Arc<Netns>,
    id: NetnsId,
    request: DumpRequest,
    sender: mpsc::Sender<DumpMessage>,
) -> io::Result<()> {
    threads::spawn("dump", move || {
        let result = run(&netns, id, &request, &sender);
        // A closed channel means that the loop has ended.
        let _ = sender.blocking_send(DumpMessage::Done(id, result));
    })
    .map(drop)
}

fn run(
    netns: &Netns,
    id: NetnsId,
    request: &DumpRequest,
    sender: &mpsc::Sender<DumpMessage>,
) -> Result<DumpStats> {
    let mut batch = Vec::with_capacity(BATCH);
    let stats = for_each(netns, request, |entry| {
        batch.push(entry);
        if batch.len() == BATCH {
            let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
            let _ = sender.blocking_send(DumpMessage::Entries(id, full));
        }
    })?;
    let _ = sender.blocking_send(DumpMessage::Entries(id, batch));
    Ok(stats)
}

/// Dumps the conntrack table of a namespace. Entries that cannot be decoded are counted.
pub(crate) fn for_each(
    netns: &Netns,
    request: &DumpRequest,
    mut each: impl FnMut(Entry),
) -> Result<DumpStats> {
    let what = || format!("cannot dump the conntrack table of namespace `{}`", netns.name);
    let mut socket =
        netns.enter(|| Socket::netfilter().map_err(io::Error::other)).with_context(what)?;
    ctnetlink::dump(&mut socket, request, |entry| each(Entry::from(&entry))).with_context(what)
}
