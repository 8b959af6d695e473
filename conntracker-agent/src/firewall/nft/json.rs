//! nft's JSON (libnftables-json(5)), parsed object by object, so that an object which some version of nft writes
//! differently is lost alone.

use std::{borrow::Cow, collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

use super::{
    named::{Named, Sets},
    statement::{self, Effects, Verdicts},
};
use crate::{
    firewall::{
        Skipped,
        action::Action,
        model::{Base, Chain, ChainType, Policy, Rule, Table},
    },
    model::{
        hook::Hook,
        table::{Backend, Family},
    },
};

/// Objects that have no effect on where packets go.
const IGNORED: &[&str] = &[
    "metainfo",
    "element",
    "flowtable",
    "counter",
    "quota",
    "limit",
    "ct helper",
    "ct timeout",
    "ct expectation",
    "secmark",
    "synproxy",
    "tunnel",
];

/// The tables of a listing.
#[derive(Debug)]
pub(in crate::firewall) struct Listing {
    /// Tables, with the chains and rules in nft's order; rules have their JSON as text.
    pub tables: Vec<Table>,
    /// Objects that could not be read, by kind.
    pub skipped: Skipped,
}

impl Listing {
    /// Reads `nft -j -a list ruleset`.
    ///
    /// # Errors
    /// It is no JSON, or no list of objects.
    pub fn parse(json: &str) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Document {
            nftables: Vec<Object>,
        }
        let Document { nftables } = serde_json::from_str(json)?;
        let mut build = Build::default();
        // Tables, then chains, then rules, whatever their order in the listing.
        let (mut chains, mut rules) = (Vec::new(), Vec::new());
        for object in nftables {
            match object {
                Object::Table(value) => build.table(&value),
                Object::Set(named) => build.set(*named),
                Object::Chain(value) => chains.push(value),
                Object::Rule(rule) => {
                    for name in &rule.updates {
                        build.sets.update(rule.family, &rule.table, name.clone());
                    }
                    rules.push(*rule);
                }
                Object::Ignored => {}
                Object::Skipped(kind) => build.skip(&kind),
            }
        }
        for chain in &chains {
            build.chain(chain);
        }
        for rule in rules {
            build.rule(rule);
        }
        let Build { tables, skipped, .. } = build;
        Ok(Self { tables, skipped })
    }
}

/// An object of the list, `{"KIND": {…}}`. Rules are converted at once, so that the JSON of a whole ruleset is never
/// in memory; large sets keep only some of their elements.
enum Object {
    Table(Value),
    Chain(Value),
    Set(Box<Named>),
    Rule(Box<RuleObject>),
    Ignored,
    Skipped(String),
}

/// A rule, and where it belongs.
struct RuleObject {
    family: Family,
    table: String,
    chain: String,
    rule: Rule,
    maps: Vec<String>,
    updates: Vec<String>,
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Objects;
        impl<'de> Visitor<'de> for Objects {
            type Value = Object;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let Some(kind) = map.next_key::<Cow<'de, str>>()? else {
                    return Ok(Object::Skipped("nothing".to_owned()));
                };
                let object = match &*kind {
                    "table" => Object::Table(map.next_value()?),
                    "chain" => Object::Chain(map.next_value()?),
                    "set" | "map" => Object::Set(map.next_value()?),
                    "rule" => match rule(&map.next_value()?) {
                        Some(rule) => Object::Rule(Box::new(rule)),
                        None => Object::Skipped("rule".to_owned()),
                    },
                    kind => {
                        map.next_value::<IgnoredAny>()?;
                        if IGNORED.contains(&kind) {
                            Object::Ignored
                        } else {
                            Object::Skipped(kind.to_owned())
                        }
                    }
                };
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(object)
            }
        }
        deserializer.deserialize_map(Objects)
    }
}

/// Members of an object.
fn text<'a>(object: &'a Value, member: &str) -> Option<&'a str> {
    object.get(member)?.as_str()
}

fn family(object: &Value) -> Option<Family> {
    Family::parse(text(object, "family")?)
}

/// Reads a rule. One whose statements cannot be parsed still counts, because the positions after it would be wrong
/// otherwise.
fn rule(object: &Value) -> Option<RuleObject> {
    let expr = object.get("expr").unwrap_or(&Value::Null);
    let Effects { kinds, counter, counts_matches, verdicts, nat_family, maps, updates, clauses } =
        statement::effects(expr);
    Some(RuleObject {
        family: family(object)?,
        table: text(object, "table")?.to_owned(),
        chain: text(object, "chain")?.to_owned(),
        rule: Rule {
            position: 0,
            handle: object.get("handle").and_then(Value::as_u64),
            text: expr.to_string(),
            kinds,
            counter,
            counts_matches,
            actions: verdicts.actions,
            targets: verdicts.targets,
            nat_family,
            clauses,
        },
        maps,
        updates,
    })
}

/// Puts objects where they belong.
#[derive(Default)]
struct Build {
    tables: Vec<Table>,
    table_at: HashMap<(Family, String), usize>,
    /// Indices of a table and of its chain.
    chain_at: HashMap<(Family, String, String), (usize, usize)>,
    maps: HashMap<(Family, String, String), Verdicts>,
    sets: Sets,
    skipped: Skipped,
}

impl Build {
    fn skip(&mut self, kind: &str) {
        *self.skipped.entry(kind.to_owned()).or_default() += 1;
    }

    fn table(&mut self, object: &Value) {
        let (Some(family), Some(name)) = (family(object), text(object, "name")) else {
            return self.skip("table");
        };
        self.table_at.insert((family, name.to_owned()), self.tables.len());
        self.tables.push(Table {
            family,
            name: name.to_owned(),
            backend: Backend::Nft,
            handle: object.get("handle").and_then(Value::as_u64),
            iptables: false,
            dormant: false,
            chains: Vec::new(),
        });
    }

    /// A named set or verdict map; other maps are not needed.
    fn set(&mut self, named: Named) {
        let Some(key) = named.key() else { return self.skip("set") };
        if let Some(data) = named.data() {
            if data != "verdict" {
                return;
            }
            let mut verdicts = Verdicts::default();
            verdicts.add_elements(named.values());
            verdicts.settle();
            if named.has_more() {
                verdicts.actions.push(Action::Unknown);
            }
            self.maps.insert(key.clone(), verdicts);
        }
        self.sets.add(key, named);
    }

    fn chain(&mut self, object: &Value) {
        let (Some(family), Some(table), Some(name)) =
            (family(object), text(object, "table"), text(object, "name"))
        else {
            return self.skip("chain");
        };
        let base = match object.get("hook") {
            None => None,
            Some(_) => match base(object) {
                Some(base) => Some(base),
                None => return self.skip("chain"),
            },
        };
        let table = table.to_owned();
        let Some(&at) = self.table_at.get(&(family, table.clone())) else {
            return self.skip("chain");
        };
        let Some(chains) = self.tables.get_mut(at).map(|table| &mut table.chains) else { return };
        self.chain_at.insert((family, table, name.to_owned()), (at, chains.len()));
        chains.push(Chain {
            name: name.to_owned(),
            handle: object.get("handle").and_then(Value::as_u64),
            base,
            rules: Vec::new(),
        });
    }

    fn rule(&mut self, object: RuleObject) {
        let RuleObject { family, table, chain, mut rule, maps, .. } = object;
        self.sets.resolve(family, &table, &mut rule.clauses);
        if !maps.is_empty() {
            self.add_map_verdicts(family, &table, maps, &mut rule);
        }
        let chain = self
            .chain_at
            .get(&(family, table, chain))
            .and_then(|(table, chain)| self.tables.get_mut(*table)?.chains.get_mut(*chain));
        match chain {
            Some(chain) => {
                rule.position = chain.end_position();
                chain.rules.push(rule);
            }
            None => self.skip("rule"),
        }
    }

    /// Adds the verdicts of named verdict maps to the actions of a rule.
    fn add_map_verdicts(&self, family: Family, table: &str, maps: Vec<String>, rule: &mut Rule) {
        let mut verdicts = Verdicts {
            actions: std::mem::take(&mut rule.actions),
            targets: std::mem::take(&mut rule.targets),
        };
        for map in maps {
            match self.maps.get(&(family, table.to_owned(), map)) {
                Some(Verdicts { actions, targets }) => {
                    verdicts.actions.extend(actions);
                    verdicts.targets.extend_from_slice(targets);
                }
                None => verdicts.actions.push(Action::Unknown),
            }
        }
        verdicts.settle();
        Verdicts { actions: rule.actions, targets: rule.targets } = verdicts;
    }
}

fn base(object: &Value) -> Option<Base> {
    Some(Base {
        kind: ChainType::parse(text(object, "type")?)?,
        hook: Hook::parse(text(object, "hook")?)?,
        priority: object.get("prio")?.as_i64()?.try_into().ok()?,
        // nft(8): the default policy is accept.
        policy: match text(object, "policy") {
            Some(policy) => Policy::parse(policy)?,
            None => Policy::Accept,
        },
        counter: None,
        devices: match object.get("dev") {
            Some(Value::String(device)) => vec![device.clone()],
            Some(Value::Array(devices)) => {
                devices.iter().filter_map(|device| Some(device.as_str()?.to_owned())).collect()
            }
            _ => Vec::new(),
        },
    })
}
