//! The rules of a host: as the kernel has them, to be evaluated, and as programs list them, to be read.

use anyhow::Result;

use super::{Ruleset, evaluate::Firewall, legacy::entries::XtTable, model};
use crate::netlink::nftables::ruleset::Table;

/// Rules, decoded.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Tables of nf_tables.
    pub nft: Vec<Table>,
    /// Tables of ip_tables.
    pub legacy: Vec<XtTable>,
    /// All of them with the text of rules.
    pub listed: Vec<model::Table>,
}

impl Rules {
    /// Those of a ruleset that was read with its [`super::objects::KernelObjects`].
    ///
    /// # Errors
    /// The bytes make no sense.
    pub fn of(ruleset: &Ruleset) -> Result<Self> {
        let (nft, legacy) = ruleset.objects.tables()?;
        Ok(Self { nft, legacy, listed: ruleset.tables.clone() })
    }

    /// Ready to be evaluated.
    #[must_use]
    pub fn firewall(&self) -> Firewall {
        Firewall::new(&self.nft, &self.legacy)
    }
}
