//! Waits for changes of the rules of nf_tables, in each namespace.

use std::{collections::BTreeMap, io, sync::Arc};

use anyhow::{Context, Result};
use tokio::io::unix::AsyncFd;

use crate::{
    model::NetnsId,
    netlink::nftables::Changes,
    os::{
        netns::Netns,
        watch::{any_ready, drained, watch},
    },
};

/// One socket for each namespace.
#[derive(Default)]
pub(crate) struct RuleChanges(BTreeMap<NetnsId, AsyncFd<Changes>>);

impl RuleChanges {
    /// Subscribes in every namespace.
    pub fn subscribe(namespaces: &[Arc<Netns>]) -> Result<Self> {
        let mut changes = Self::default();
        for (id, netns) in (0..).map(NetnsId).zip(namespaces) {
            changes.add(id, netns)?;
        }
        Ok(changes)
    }

    /// Subscribes in one more.
    pub fn add(&mut self, id: NetnsId, netns: &Netns) -> Result<()> {
        let socket =
            netns.enter(|| Changes::open().map_err(io::Error::other)).with_context(|| {
                format!(
                    "cannot subscribe to the rule changes of namespace `{}` (CAP_NET_ADMIN is needed)",
                    netns.name
                )
            })?;
        let socket = watch(socket).context("cannot watch the socket of rule changes")?;
        self.0.insert(id, socket);
        Ok(())
    }

    /// A namespace is gone.
    pub fn remove(&mut self, id: NetnsId) {
        self.0.remove(&id);
    }

    /// Waits for a change.
    pub async fn changed(&mut self) -> Result<()> {
        any_ready(&mut self.0).await?;
        self.0.retain(|_, socket| match socket.get_mut().drain() {
            Ok(all) => {
                if all {
                    drained(socket);
                }
                true
            }
            // Polling finds changes too, if less often.
            Err(error) => {
                log::warn!("changes of rules in a namespace are not received any more: {error}");
                false
            }
        });
        Ok(())
    }
}
