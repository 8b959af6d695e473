//! Rulesets from what programs have printed, for tests and for the fuzzer.

use super::{
    Ruleset,
    legacy::{self, save},
    nft::{self, Listing, Saved, Texts},
};
use crate::model::table::Family;

/// What the programs printed that list rules.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listings<'a> {
    /// `nft -j -a list ruleset`.
    pub json: &'a str,
    /// `nft -a -s list ruleset`.
    pub text: &'a str,
    /// `iptables-nft-save`.
    pub iptables_nft: &'a str,
    /// `iptables-legacy-save -c`.
    pub iptables_legacy: &'a str,
}

impl Listings<'_> {
    /// The ruleset.
    ///
    /// # Errors
    /// nft's JSON is none.
    pub fn ruleset(&self) -> serde_json::Result<Ruleset> {
        let Self { json, text, iptables_nft, iptables_legacy } = self;
        let loaded = nft::join(Listing::parse(json)?, Texts::parse(text));
        let saved = Saved::of(Family::Ip, iptables_nft);
        let mut legacy = legacy::Loaded::default();
        legacy.tables = save::parse(Family::Ip, iptables_legacy, &mut legacy.skipped);
        Ok(Ruleset::of(Some(nft::finish(loaded, Some(saved), true)), legacy))
    }
}
