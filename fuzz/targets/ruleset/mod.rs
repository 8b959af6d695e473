//! What holds of every ruleset, whatever it was read from.

use conntracker::{
    attribution::{Counters, Program},
    firewall::{Ruleset, model::ChainItem},
};

/// Every other rule has a counter that is read.
struct EveryOther;

impl Counters for EveryOther {
    fn agrees(&self, _: usize, _: usize) -> bool {
        true
    }

    fn reads(&self, _: usize, _: usize, rule: usize) -> bool {
        rule.is_multiple_of(2)
    }
}

/// Rules are where their positions say, and the program has every chain.
pub fn look_at(ruleset: &Ruleset) {
    let program = Program::new(ruleset, &EveryOther);
    for (t, table) in ruleset.tables.iter().enumerate() {
        for (c, chain) in table.chains.iter().enumerate() {
            for rule in &chain.rules {
                assert_eq!(chain.at(rule.position), Some(ChainItem::Rule(rule)));
            }
            let id = program.id(t, c).expect("a chain of the program");
            assert_eq!(program.indices(id), Some((t, c)));
        }
    }
    assert!(ruleset.all_notes().all(|note| !note.is_empty()));
}
