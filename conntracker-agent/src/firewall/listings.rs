//! Rulesets from what programs have printed: those of recordings, of tests and of the fuzzer.

use super::{
    Ruleset,
    legacy::{self, save},
    nft::{self, Listing, Saved, Texts},
};
use crate::model::table::Family;

impl Ruleset {
    /// The ruleset of which programs have printed this, as [`Self::printed`] has it.
    ///
    /// # Errors
    /// nft's JSON is none.
    pub fn of_printed(printed: &[(String, String)]) -> serde_json::Result<Self> {
        let (mut json, mut text) = (None, "");
        let (mut saved, mut legacy) = (Saved::default(), legacy::Loaded::default());
        for (command, printed) in printed {
            let mut words = command.split(' ');
            let program = words.next().unwrap_or_default();
            let family = if program.starts_with("ip6") { Family::Ip6 } else { Family::Ip };
            if program == "nft" {
                if words.any(|word| word == "-j") { json = Some(printed) } else { text = printed }
            } else if save::is_of_nf_tables(printed) {
                saved.add(family, printed);
            } else {
                legacy.tables.extend(save::parse(family, printed, &mut legacy.skipped));
            }
        }
        let nft = match json {
            Some(json) => nft::join(Listing::parse(json)?, Texts::parse(text)),
            None => nft::Loaded::default(),
        };
        Ok(Self::of(Some(nft::finish(nft, Some(saved), true)), legacy))
    }
}

/// What the programs printed that list rules, whatever it is.
#[cfg(any(test, feature = "fuzz"))]
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

#[cfg(any(test, feature = "fuzz"))]
impl Listings<'_> {
    /// The ruleset.
    ///
    /// # Errors
    /// nft's JSON is none.
    pub fn ruleset(&self) -> serde_json::Result<Ruleset> {
        let Self { json, text, iptables_nft, iptables_legacy } = self;
        let loaded = nft::join(Listing::parse(json)?, Texts::parse(text));
        let mut saved = Saved::default();
        saved.add(Family::Ip, iptables_nft);
        let mut legacy = legacy::Loaded::default();
        legacy.tables = save::parse(Family::Ip, iptables_legacy, &mut legacy.skipped);
        Ok(Ruleset::of(Some(nft::finish(loaded, Some(saved), true)), legacy))
    }
}
