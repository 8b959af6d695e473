//! Rulesets of nft: one to three tables of the families ip, ip6 and inet, each with several base
//! chains on most hooks, user chains three deep, sets and verdict maps.

mod condition;
mod rule;

use std::fmt::Write;

use super::{Begin, Chain, Kind, Random, Ruleset, oracle_table};

/// Address family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Ip,
    Ip6,
    Inet,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        }
    }
}

/// What the rules of a chain may do: not every statement works everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// What works everywhere.
    Common,
    /// Reject too: input, forward and output.
    Filter,
    /// Notrack too: before conntrack.
    Raw,
    /// NAT of destinations: prerouting and output.
    Destination,
    /// NAT of sources: postrouting.
    Source,
    /// NAT of sources: input, where there is no masquerade.
    Input,
}

impl Class {
    const ALL: [Self; 6] =
        [Self::Common, Self::Filter, Self::Raw, Self::Destination, Self::Source, Self::Input];

    /// How the names of its user chains start.
    fn prefix(self) -> &'static str {
        match self {
            Self::Common => "common",
            Self::Filter => "filter",
            Self::Raw => "raw",
            Self::Destination => "dnat",
            Self::Source => "snat",
            Self::Input => "insnat",
        }
    }

    fn nat(self) -> bool {
        matches!(self, Self::Destination | Self::Source | Self::Input)
    }
}

/// A base chain that a table may have: how often in a hundred, type, hook, priority, class.
const BASES: [(usize, &str, &str, i32, Class); 22] = [
    (35, "filter", "prerouting", -300, Class::Raw),
    (50, "filter", "prerouting", -150, Class::Common),
    (45, "nat", "prerouting", -100, Class::Destination),
    (20, "filter", "prerouting", -10, Class::Common),
    (20, "filter", "input", -150, Class::Common),
    (75, "filter", "input", 0, Class::Filter),
    (20, "filter", "input", 20, Class::Filter),
    (15, "filter", "input", 50, Class::Common),
    (20, "nat", "input", 100, Class::Input),
    (30, "filter", "forward", -150, Class::Common),
    (80, "filter", "forward", 0, Class::Filter),
    (25, "filter", "forward", 20, Class::Filter),
    (15, "filter", "forward", 50, Class::Common),
    (30, "filter", "output", -300, Class::Raw),
    (40, "route", "output", -150, Class::Common),
    (30, "nat", "output", -100, Class::Destination),
    (60, "filter", "output", 0, Class::Filter),
    (15, "filter", "output", 50, Class::Common),
    (40, "filter", "postrouting", -150, Class::Common),
    (25, "filter", "postrouting", 0, Class::Common),
    (50, "nat", "postrouting", 100, Class::Source),
    (15, "filter", "postrouting", 150, Class::Common),
];

/// User chains call only those one level deeper.
const LEVELS: usize = 3;

/// Where a rule stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    family: Family,
    class: Class,
    /// Level of a user chain, from 1; 0 is a base chain.
    level: usize,
    /// Whether verdict maps are allowed: what they decide no counter tells.
    maps: bool,
}

/// Which rules get a counter. With a generator of its own, so that the kinds have the same rules.
struct Counters {
    kind: Kind,
    random: Random,
}

/// Where the counter of a rule stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counter {
    /// Before the conditions.
    Front,
    /// After all that can fail.
    Exact,
    None,
}

impl Counters {
    fn next(&mut self) -> Counter {
        match self.kind {
            Kind::NftBare => Counter::None,
            Kind::NftMixed => self.random.weighted(&[
                (5, Counter::Exact),
                (3, Counter::None),
                (2, Counter::Front),
            ]),
            _ => Counter::Exact,
        }
    }
}

pub(super) fn generate(kind: Kind, number: u32) -> Ruleset {
    let mut random = Random::new(u64::from(number));
    let mut counters = Counters { kind, random: Random::new(!u64::from(number)) };
    let families = random.weighted(&[
        (5, &[Family::Inet][..]),
        (3, &[Family::Ip, Family::Ip6]),
        (4, &[Family::Ip, Family::Ip6, Family::Inet]),
        (2, &[Family::Inet, Family::Ip]),
    ]);
    // Two chains at the same priority of a hook happen, but are not the rule.
    let spread = i32::from(!random.chance(15));
    let mut text = String::new();
    let mut chains = Vec::new();
    let mut early = false;
    // Without verdict maps counters can tell everything, so that half of the rulesets have none.
    for (index, family) in (0..).zip(families) {
        let name = random.pick(&["fw", "filter", "main", "host"]);
        let (maps, used) = (!number.is_multiple_of(2), Vec::new());
        let mut table = Table { family: *family, name, maps, used, chains: Vec::new() };
        early |= table.base_chains(index * spread, &mut random, &mut counters);
        table.user_chains(&mut random, &mut counters);
        table.render(&mut text);
        chains.append(&mut table.chains);
    }
    let begin = if early || random.chance(20) { Begin::First } else { Begin::AfterConntrack };
    let text = format!("flush ruleset\n{}{text}", oracle_table(begin));
    Ruleset { kind, number, loads: vec![("nft", text)], chains }
}

/// A table that is being made.
struct Table {
    family: Family,
    name: &'static str,
    maps: bool,
    /// Classes whose user chains are called.
    used: Vec<Class>,
    chains: Vec<Chain>,
}

impl Table {
    /// Adds base chains; tells whether one of them is before conntrack.
    fn base_chains(&mut self, shift: i32, random: &mut Random, counters: &mut Counters) -> bool {
        let mut early = false;
        for (percent, kind, hook, priority, class) in BASES {
            if !random.chance(percent) {
                continue;
            }
            early |= class == Class::Raw;
            if !self.used.contains(&class) {
                self.used.push(class);
            }
            let dropped = match class {
                Class::Filter => random.chance(10),
                _ => !class.nat() && random.chance(2),
            };
            let policy = if dropped { "drop" } else { "accept" };
            let priority = priority + shift;
            let base = format!("type {kind} hook {hook} priority {priority}; policy {policy};");
            // `output` and `input` are words of the language, but not when they name a chain.
            let name = format!("{hook}_{}{}", class.prefix(), self.chains.len());
            let place = Place { family: self.family, class, level: 0, maps: self.maps };
            let length = if random.chance(8) { 0 } else { 1 + random.below(5) };
            self.add(name, Some(base), place, length, random, counters);
        }
        early
    }

    fn user_chains(&mut self, random: &mut Random, counters: &mut Counters) {
        let used = self.used.clone();
        for class in Class::ALL.into_iter().filter(|class| used.contains(class)) {
            for level in 1..=LEVELS {
                for twin in TWINS {
                    let place = Place { family: self.family, class, level, maps: self.maps };
                    let name = user_chain(class, level, twin);
                    let length = if random.chance(8) { 0 } else { 1 + random.below(4) };
                    self.add(name, None, place, length, random, counters);
                }
            }
        }
    }

    fn add(
        &mut self,
        name: String,
        base: Option<String>,
        place: Place,
        length: usize,
        random: &mut Random,
        counters: &mut Counters,
    ) {
        let rules = (0..length).map(|_| rule::rule(place, random, counters.next())).collect();
        let (family, table) = (self.family.name(), self.name.to_owned());
        self.chains.push(Chain { family, table, name, base, rules });
    }

    /// The table as nft reads it.
    fn render(&self, text: &mut String) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "table {} {} {{", self.family.name(), self.name);
        text.push_str(&condition::sets(self.family));
        for class in &self.used {
            text.push_str(&rule::verdict_map(*class));
        }
        for Chain { name, base, rules, .. } in &self.chains {
            let _ = writeln!(text, "\tchain {name} {{");
            for line in base.iter().chain(rules) {
                let _ = writeln!(text, "\t\t{line}");
            }
            text.push_str("\t}\n");
        }
        text.push_str("}\n");
    }
}

/// Chains of a class and level, so that there is a choice.
const TWINS: [char; 2] = ['a', 'b'];

fn user_chain(class: Class, level: usize, twin: char) -> String {
    format!("{}_{level}{twin}", class.prefix())
}
