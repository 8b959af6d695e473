//! The firewall and the routing of a namespace as the kernel has them: what the evaluator needs, in bytes that a
//! recording can keep.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{
    evaluate::{Firewall, routing_tables::RoutingTables},
    legacy::{
        entries::XtTable,
        raw::{self, RawTable},
    },
};
use crate::netlink::{
    nftables::{
        dump::Dump,
        ruleset::{self, Table},
    },
    routing::{dump::RoutingDump, objects::RoutingObjects},
};

/// Everything that a packet's way through a host hangs on, as the kernel tells it. As JSON it has `missing` alone: a
/// recording keeps the bytes apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelObjects {
    /// Messages of nf_tables ([`Dump::bytes`]).
    #[serde(skip)]
    pub nf_tables: Vec<u8>,
    /// Tables of ip_tables and ip6_tables ([`raw::to_bytes`]).
    #[serde(skip)]
    pub ip_tables: Vec<u8>,
    /// Messages of rtnetlink: interfaces, addresses, routes and their rules ([`RoutingDump::bytes`]).
    #[serde(skip)]
    pub routing: Vec<u8>,
    /// What could not be read, and why.
    pub missing: Vec<String>,
}

impl KernelObjects {
    /// Reads those of the calling thread's namespace.
    #[must_use]
    pub fn read() -> Self {
        let mut read = Self::read_rules();
        read.routing = match RoutingDump::read() {
            Ok(Some(dump)) => dump.into_bytes(),
            Ok(None) => {
                read.missing.push("routes are too many to be kept".to_owned());
                Vec::new()
            }
            Err(error) => {
                read.missing
                    .push(format!("routes cannot be read: {:#}", anyhow::Error::from(error)));
                Vec::new()
            }
        };
        read
    }

    /// Reads the rules of the calling thread's namespace alone.
    #[must_use]
    pub fn read_rules() -> Self {
        let mut missing = Vec::new();
        let mut part = |name: &str, read: Result<Vec<u8>>| {
            read.unwrap_or_else(|error| {
                missing.push(format!("{name} cannot be read: {error:#}"));
                Vec::new()
            })
        };
        let nf_tables = Dump::read().map(Dump::into_bytes).map_err(Into::into);
        let ip_tables = raw::read().map(|tables| raw::to_bytes(&tables));
        let (nf_tables, ip_tables) =
            (part("the rules of nf_tables", nf_tables), part("the rules of ip_tables", ip_tables));
        Self { nf_tables, ip_tables, routing: Vec::new(), missing }
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nf_tables.is_empty() && self.ip_tables.is_empty() && self.routing.is_empty()
    }

    /// The tables of nf_tables and of ip_tables.
    ///
    /// # Errors
    /// The bytes make no sense.
    pub fn tables(&self) -> Result<(Vec<Table>, Vec<XtTable>)> {
        let tables = ruleset::tables(&Dump::of(self.nf_tables.clone()))
            .context("the rules of nf_tables make no sense")?;
        let legacy: Vec<RawTable> =
            raw::of_bytes(&self.ip_tables).context("the rules of ip_tables make no sense")?;
        let legacy: Result<Vec<_>, _> = legacy.iter().map(RawTable::decode).collect();
        Ok((tables, legacy?))
    }

    /// The rules, ready to be evaluated.
    ///
    /// # Errors
    /// The bytes make no sense.
    pub fn firewall(&self) -> Result<Firewall> {
        let (nft, legacy) = self.tables()?;
        Ok(Firewall::new(&nft, &legacy))
    }

    /// The routes.
    ///
    /// # Errors
    /// The bytes make no sense.
    pub fn routes(&self) -> Result<RoutingTables> {
        let objects = RoutingObjects::decode(&self.routing).context("the routes make no sense")?;
        Ok(RoutingTables::new(objects))
    }
}
