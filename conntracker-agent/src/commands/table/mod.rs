//! Commands on conntrack's table: `conntracker count`, `stats`, `get`, `create`, `update`, `delete`, `flush`,
//! `events`, and the formats of `dump` that are streams of entries.

pub mod change;
pub mod counts;
pub mod events;
pub mod format;
mod kept;
pub mod list;
pub(crate) mod printer;
pub mod sort;

use std::io;

use anyhow::{Context, Result};

use crate::{conntrack::Conntrack, os::netns::Netns};

/// Connects to the table of a namespace.
fn connect(netns: &Netns) -> Result<Conntrack> {
    netns.enter(|| Conntrack::connect().map_err(io::Error::other)).with_context(|| {
        format!(
            "cannot open the conntrack table of namespace `{}` (CAP_NET_ADMIN is needed)",
            netns.name
        )
    })
}
