//! Rulesets as iptables-save writes them, for both of the kernel's backends: up to five tables for
//! each family, with user chains three deep.

mod rule;

use std::fmt::Write;

use super::{Begin, Chain, Kind, Random, Ruleset, oracle_table};

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// A table, or of nat the part that belongs to one kind of translation: chains that can share user
/// chains.
#[derive(Clone, Copy, Debug)]
struct Group {
    table: &'static str,
    /// In how many rulesets of a hundred it has rules.
    percent: usize,
    /// How names of user chains start.
    prefix: &'static str,
    builtin: &'static [&'static str],
    /// In how many of a hundred chains the policy is DROP.
    dropping: usize,
}

const GROUPS: [Group; 7] = [
    Group {
        table: "raw",
        percent: 50,
        prefix: "early",
        builtin: &["PREROUTING", "OUTPUT"],
        dropping: 1,
    },
    Group {
        table: "mangle",
        percent: 75,
        prefix: "marks",
        builtin: &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
        dropping: 2,
    },
    Group {
        table: "nat",
        percent: 70,
        prefix: "dst",
        builtin: &["PREROUTING", "OUTPUT"],
        dropping: 0,
    },
    Group { table: "nat", percent: 70, prefix: "src", builtin: &["POSTROUTING"], dropping: 0 },
    Group { table: "nat", percent: 40, prefix: "in", builtin: &["INPUT"], dropping: 0 },
    Group {
        table: "filter",
        percent: 95,
        prefix: "fw",
        builtin: &["INPUT", "FORWARD", "OUTPUT"],
        dropping: 12,
    },
    Group {
        table: "security",
        percent: 40,
        prefix: "sec",
        builtin: &["INPUT", "FORWARD", "OUTPUT"],
        dropping: 2,
    },
];

/// User chains call only those one level deeper.
const LEVELS: usize = 3;

/// Chains of a group and level, so that there is a choice.
const TWINS: [char; 2] = ['A', 'B'];

fn user_chain(group: &Group, level: usize, twin: char) -> String {
    format!("{}{level}{twin}", group.prefix)
}

pub(super) fn generate(kind: Kind, number: u32) -> Ruleset {
    let legacy = kind == Kind::IptablesLegacy;
    let (seed, restore) = if legacy {
        (2_000_000, ["iptables-legacy-restore", "ip6tables-legacy-restore"])
    } else {
        (1_000_000, ["iptables-nft-restore", "ip6tables-nft-restore"])
    };
    let mut random = Random::new(seed + u64::from(number));
    let mut chains = Vec::new();
    let mut saves = Vec::new();
    for (family, restore) in [Family::V4, Family::V6].into_iter().zip(restore) {
        let before = chains.len();
        for table in ["raw", "mangle", "nat", "filter", "security"] {
            table_of(family, table, legacy, &mut random, &mut chains);
        }
        saves.push((restore, save(&chains[before..])));
    }
    let early = chains.iter().any(|chain| chain.table == "raw");
    let begin = if early || random.chance(20) { Begin::First } else { Begin::AfterConntrack };
    let mut loads = vec![("nft", format!("flush ruleset\n{}", oracle_table(begin)))];
    loads.extend(saves);
    Ruleset { kind, number, loads, chains }
}

/// Adds the chains of a table. Tables of ip_tables stay: one without rules is restored all the same.
fn table_of(
    family: Family,
    table: &str,
    legacy: bool,
    random: &mut Random,
    chains: &mut Vec<Chain>,
) {
    let groups: Vec<(&Group, bool)> = GROUPS
        .iter()
        .filter(|group| group.table == table)
        .map(|group| (group, random.chance(group.percent)))
        .collect();
    if !legacy && groups.iter().all(|(_, ruled)| !ruled) {
        return;
    }
    for (group, ruled) in groups {
        let mut add = |name: String, base: Option<&str>, level, most, random: &mut Random| {
            let length = if ruled && !random.chance(10) { 1 + random.below(most) } else { 0 };
            let rules = (0..length).map(|_| rule::rule(family, group, &name, level, random));
            chains.push(Chain {
                family: if family == Family::V4 { "ip" } else { "ip6" },
                table: table.to_owned(),
                rules: rules.collect(),
                base: base.map(str::to_owned),
                name,
            });
        };
        for builtin in group.builtin {
            let policy = if random.chance(group.dropping) { "DROP" } else { "ACCEPT" };
            add((*builtin).to_owned(), Some(policy), 0, 5, random);
        }
        if ruled {
            for level in 1..=LEVELS {
                for twin in TWINS {
                    add(user_chain(group, level, twin), None, level, 4, random);
                }
            }
        }
    }
}

/// What iptables-restore reads.
fn save(chains: &[Chain]) -> String {
    let mut text = String::new();
    for table in chains.chunk_by(|a, b| a.table == b.table) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "*{}", table[0].table);
        for chain in table {
            let _ = writeln!(text, ":{} {}", chain.name, chain.base.as_deref().unwrap_or("-"));
        }
        for chain in table {
            for rule in &chain.rules {
                let _ = writeln!(text, "-A {} {rule}", chain.name);
            }
        }
        text.push_str("COMMIT\n");
    }
    text
}
