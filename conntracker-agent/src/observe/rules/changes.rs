//! Waiting for changes of the rules of nf_tables, in each namespace.

use std::{io, sync::Arc};

use anyhow::{Context, Result};
use tokio::io::unix::AsyncFd;

use crate::kernel::{
    netlink::nftables::Changes,
    netns::Netns,
    watch::{any_ready, drained, watch},
};

/// One socket for each namespace.
pub(crate) struct RuleChanges(Vec<AsyncFd<Changes>>);

impl RuleChanges {
    /// Subscribes in every namespace.
    pub fn subscribe(namespaces: &[Arc<Netns>]) -> Result<Self> {
        let sockets = namespaces
            .iter()
            .map(|netns| {
                let changes = netns
                    .enter(|| Changes::open().map_err(io::Error::other))
                    .with_context(|| {
                        format!(
                            "cannot subscribe to the rule changes of namespace `{}` (CAP_NET_ADMIN is needed)",
                            netns.name
                        )
                    })?;
                watch(changes).context("cannot watch the socket of rule changes")
            })
            .collect::<Result<_>>()?;
        Ok(Self(sockets))
    }

    /// Waits for a change.
    pub async fn changed(&mut self) -> Result<()> {
        any_ready(&mut self.0).await?;
        for socket in &mut self.0 {
            if socket.get_mut().drain()? {
                drained(socket);
            }
        }
        Ok(())
    }
}
