//! Named sets and maps: their elements, if packets cannot change them.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use super::{clause, value};
use crate::{
    firewall::clause::{Clause, Elements, Field, MapElements, Operand},
    model::table::Family,
};

/// The most elements of one set that are kept. Conditions on larger sets stay open.
const LIMIT: usize = 1 << 18;

/// A set or a verdict map, as it was listed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Named {
    family: Value,
    table: Value,
    name: Value,
    map: Value,
    flags: Value,
    timeout: Value,
    stmt: Value,
    elem: Listed,
}

/// The elements that are listed.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Up to the limit.
    values: Vec<Value>,
    /// There are more.
    more: bool,
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Listed;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list of elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Listed, A::Error> {
                let mut listed = Listed::default();
                while listed.values.len() < LIMIT {
                    match all.next_element()? {
                        Some(value) => listed.values.push(value),
                        None => return Ok(listed),
                    }
                }
                while all.next_element::<IgnoredAny>()?.is_some() {
                    listed.more = true;
                }
                Ok(listed)
            }

            // What is no list says nothing.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Listed, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Listed { values: Vec::new(), more: true })
            }

            fn visit_str<E>(self, _: &str) -> Result<Listed, E> {
                Ok(Listed { values: Vec::new(), more: true })
            }

            fn visit_unit<E>(self) -> Result<Listed, E> {
                Ok(Listed::default())
            }
        }
        deserializer.deserialize_any(All)
    }
}

impl Named {
    /// Whether its elements change only with the ruleset. (Packets add elements to dynamic sets, and elements with a
    /// timeout expire; neither changes the generation of nf_tables.)
    fn is_constant(&self) -> bool {
        let flag = |value: &Value| value == "dynamic" || value == "timeout";
        let flags = self.flags.as_array();
        let changes = flag(&self.flags) || flags.is_some_and(|flags| flags.iter().any(flag));
        // The kernel evaluates the statements of the element that it finds, and a limit among them may end the rule.
        let counts = |value: &Value| value.get("counter").is_some();
        let statements = self.stmt.as_array();
        let harmless = self.stmt.is_null() || statements.is_some_and(|all| all.iter().all(counts));
        !changes && harmless && self.timeout.is_null() && !self.elem.more
    }

    /// Family, table and name.
    pub fn key(&self) -> Option<Key> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let family = Family::parse(self.family.as_str()?)?;
        Some((family, text(&self.table)?, text(&self.name)?))
    }

    /// Type of the values, if it is a map.
    pub fn data(&self) -> Option<&str> {
        if self.map.is_null() { None } else { Some(self.map.as_str().unwrap_or_default()) }
    }

    /// There are more elements than those of [`Self::values`].
    pub fn has_more(&self) -> bool {
        self.elem.more
    }

    /// Its elements.
    pub fn values(&self) -> &[Value] {
        &self.elem.values
    }
}

pub(super) type Key = (Family, String, String);

/// All sets and maps of a listing.
#[derive(Debug, Default)]
pub(super) struct Sets {
    named: HashMap<Key, Named>,
    /// Sets that rules let packets change.
    updated: HashSet<Key>,
    elements: HashMap<(Key, Vec<Field>), Elements>,
    verdicts: HashMap<(Key, Vec<Field>), MapElements>,
}

impl Sets {
    /// Adds one.
    pub fn add(&mut self, key: Key, named: Named) {
        self.named.insert(key, named);
    }

    /// Packets change it.
    pub fn update(&mut self, family: Family, table: &str, name: String) {
        self.updated.insert((family, table.to_owned(), name));
    }

    /// Puts elements in the place of names.
    pub fn resolve(&mut self, family: Family, table: &str, clauses: &mut [Clause]) {
        for clause in clauses {
            match clause {
                Clause::Condition(condition) => {
                    if let Elements::Named(name) = &condition.set {
                        let key = (family, table.to_owned(), name.clone());
                        condition.set = self.set(key, &condition.operands);
                    }
                }
                Clause::Map(map) => {
                    if let MapElements::Named(name) = &map.elements {
                        let key = (family, table.to_owned(), name.clone());
                        map.elements = self.map(key, &map.operands);
                    }
                }
                _ => {}
            }
        }
    }

    fn constant<'a>(
        named: &'a HashMap<Key, Named>,
        updated: &HashSet<Key>,
        key: &Key,
    ) -> Option<&'a Named> {
        named.get(key).filter(|named| named.is_constant() && !updated.contains(key))
    }

    fn set(&mut self, key: Key, operands: &[Operand]) -> Elements {
        let Some(named) = Self::constant(&self.named, &self.updated, &key) else {
            return Elements::Unknown;
        };
        let fields = operands.iter().map(|operand| operand.field).collect();
        let elements = || value::elements(operands, named.values());
        self.elements.entry((key, fields)).or_insert_with(elements).clone()
    }

    fn map(&mut self, key: Key, operands: &[Operand]) -> MapElements {
        let Some(named) = Self::constant(&self.named, &self.updated, &key) else {
            return MapElements::Unknown;
        };
        let fields = operands.iter().map(|operand| operand.field).collect();
        let elements = || clause::map_elements(operands, named.values());
        self.verdicts.entry((key, fields)).or_insert_with(elements).clone()
    }
}
