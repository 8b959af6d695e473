//! The `netlink` source: conntrack events of each namespace.

use std::{collections::BTreeMap, io, sync::Arc};

use anyhow::{Context, Result};
use tokio::io::unix::AsyncFd;

use super::Intake;
use crate::{
    model::{NetnsId, event::EventKind},
    netlink::ctnetlink::Events,
    os::{
        netns::Netns,
        watch::{any_ready, drained as drained_of, watch},
    },
};

/// Event sockets, one per namespace.
pub(crate) struct EventsSource {
    buffer: usize,
    sockets: BTreeMap<NetnsId, AsyncFd<Events>>,
}

impl EventsSource {
    /// Subscribes in every namespace.
    pub fn start(buffer: usize, namespaces: &[Arc<Netns>]) -> Result<Self> {
        let mut source = Self { buffer, sockets: BTreeMap::new() };
        for (id, netns) in (0..).map(NetnsId).zip(namespaces) {
            source.observe(id, netns)?;
        }
        Ok(source)
    }

    /// Subscribes in one more.
    pub fn observe(&mut self, id: NetnsId, netns: &Netns) -> Result<()> {
        let events =
            netns.enter(|| Events::open(self.buffer).map_err(io::Error::other)).with_context(|| {
                format!(
                    "cannot subscribe to the conntrack events of namespace `{}` (CAP_NET_ADMIN is needed)",
                    netns.name
                )
            })?;
        self.sockets.insert(id, watch(events).context("cannot watch the event socket")?);
        Ok(())
    }

    /// A namespace is gone.
    pub fn forget(&mut self, id: NetnsId) {
        self.sockets.remove(&id);
    }

    /// Waits until one of the sockets has something.
    pub async fn ready(&mut self) -> io::Result<()> {
        any_ready(&mut self.sockets).await
    }

    /// Takes a batch of events from each socket; true if there may be more.
    pub fn drain(&mut self, intake: &mut Intake<'_>) -> Result<bool> {
        let mut any_more = false;
        let mut broken = Vec::new();
        for (&netns, socket) in &mut self.sockets {
            let now = intake.clock.since_boot();
            let drained = socket.get_mut().drain(|event| {
                let Ok(event) = event else { return };
                if intake.filter.allows_tuple(&event.entry.orig, event.entry.zone) {
                    let entry = Box::new((&event.entry).into());
                    intake.event(netns, now, EventKind::Entry(event.kind.into(), entry));
                }
            });
            let drained = match drained {
                Ok(drained) => drained,
                Err(error) => {
                    broken.push((netns, error));
                    continue;
                }
            };
            intake.tally.events += drained.messages - drained.rejected;
            intake.tally.events_rejected += drained.rejected;
            intake.tally.event_overruns += drained.overruns;
            intake.tally.events_foreign += drained.foreign;
            any_more |= drained.more;
            if !drained.more {
                drained_of(socket);
            }
        }
        for (netns, error) in broken {
            // Without its only socket the backend has no source. With several namespaces, dumps still cover the one
            // that failed.
            if self.sockets.len() == 1 {
                return Err(error).context("cannot read conntrack events");
            }
            log::warn!("conntrack events of a namespace are not received any more: {error}");
            intake.tally.event_overruns += 1;
            self.sockets.remove(&netns);
        }
        Ok(any_more)
    }
}
