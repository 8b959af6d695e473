//! Listings of nf_tables, behind one another with a NUL byte between: `nft -j -a list ruleset`, `nft -a -s list
//! ruleset`, `iptables-nft-save`. What comes of them is a ruleset, and a program of it.

#![no_main]

use conntracker::firewall::listings::Listings;
use libfuzzer_sys::fuzz_target;

mod ruleset;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split('\0');
    let mut next = || parts.next().unwrap_or_default();
    let (json, text, iptables_nft) = (next(), next(), next());
    let listings = Listings { json, text, iptables_nft, ..Listings::default() };
    if let Ok(ruleset) = listings.ruleset() {
        ruleset::look_at(&ruleset);
    }
});
