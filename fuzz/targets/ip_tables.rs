//! Tables of iptables-legacy as the kernel keeps them: decoded, with their matches and targets.

#![no_main]

use conntracker::firewall::evaluate::xt::{Match, Target};
use conntracker::firewall::legacy::{entries::XtTarget, raw::RawTable};
use conntracker::model::table::Family;
use libfuzzer_sys::fuzz_target;

/// Bytes of `struct ipt_getinfo`, which stand before the entries.
const INFO: usize = 84;

fuzz_target!(|bytes: &[u8]| {
    let Some((info, entries)) = bytes.split_at_checked(INFO) else { return };
    for family in [Family::Ip, Family::Ip6] {
        let raw = RawTable { family, info: info.to_vec(), entries: entries.to_vec() };
        let Ok(table) = raw.decode() else { continue };
        for rule in table.chains.iter().flat_map(|chain| &chain.rules) {
            for of in &rule.matches {
                let _ = Match::decode(&of.name, of.revision.into(), &of.info);
            }
            if let XtTarget::Extension(of) = &rule.target {
                let _ = Target::decode(&of.name, of.revision.into(), &of.info);
            }
        }
    }
});
