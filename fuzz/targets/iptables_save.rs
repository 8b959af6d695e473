//! What `iptables-legacy-save -c` prints: a ruleset comes of it, and a program.

#![no_main]

use conntracker::firewall::listings::Listings;
use libfuzzer_sys::fuzz_target;

mod ruleset;

const NO_NFT: &str = r#"{"nftables": []}"#;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let listings = Listings { json: NO_NFT, iptables_legacy: &text, ..Listings::default() };
    ruleset::look_at(&listings.ruleset().expect("no rules of nft"));
});
