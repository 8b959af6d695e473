use std::collections::BTreeSet;

use super::*;
use crate::lab::Lab;

#[test]
fn a_number_always_gives_the_same_ruleset() {
    for kind in Kind::ALL {
        let text = |number| Ruleset::generate(kind, number).to_string();
        assert_eq!(text(3), text(3));
        assert_ne!(text(3), text(4));
    }
}

#[test]
fn kinds_of_nft_differ_in_their_counters_only() {
    let without = |kind| {
        let text = Ruleset::generate(kind, 5).loads.remove(0).1;
        let words: Vec<_> = text.split_whitespace().filter(|word| *word != "counter").collect();
        (text.matches("counter").count(), words.join(" "))
    };
    let [full, mixed, bare] = [Kind::Nft, Kind::NftMixed, Kind::NftBare].map(without);
    assert!(full.0 > mixed.0 && mixed.0 > 0 && bare.0 == 0);
    assert_eq!(full.1, mixed.1);
    assert_eq!(full.1, bare.1);
}

#[test]
fn all_features_are_written_by_the_kinds_that_have_them() {
    let nft_only =
        ["named set", "concatenation", "verdict map", "named verdict map", "dnat by map"];
    for kind in [Kind::Nft, Kind::IptablesNft, Kind::IptablesLegacy] {
        let rulesets = (0..50).map(|number| Ruleset::generate(kind, number));
        let found: BTreeSet<_> = rulesets
            .flat_map(|ruleset| ruleset.chains)
            .flat_map(|chain| chain.rules)
            .flat_map(|rule| features(&rule).collect::<Vec<_>>())
            .collect();
        for (name, _) in FEATURES {
            let possible = kind == Kind::Nft || !nft_only.contains(&name);
            assert_eq!(found.contains(name), possible, "{kind}: {name}");
        }
    }
}

#[test]
fn the_kernel_takes_them() {
    let lab = Lab::new().unwrap();
    for kind in Kind::ALL {
        for number in 0..20 {
            Ruleset::generate(kind, number).load(&lab.router).unwrap();
        }
    }
}
