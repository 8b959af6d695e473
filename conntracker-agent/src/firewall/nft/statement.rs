//! The effects of a rule's statements (libnftables-json(5), "STATEMENTS").

use serde_json::Value;

use super::clause;
use super::value::single;
use crate::{
    firewall::{
        action::{Action, Target, Via},
        clause::Clause,
        extension,
        model::Counter,
    },
    model::table::Family,
};

/// What a rule's statements amount to.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub kinds: Vec<String>,
    pub counter: Option<Counter>,
    pub counts_matches: bool,
    pub verdicts: Verdicts,
    /// Family whose addresses it translates, if the rule has one.
    pub nat_family: Option<Family>,
    /// Named verdict maps that it looks into.
    pub maps: Vec<String>,
    /// Named sets and maps that packets change.
    pub updates: Vec<String>,
    /// The statements that decide whether the rule matches.
    pub clauses: Vec<Clause>,
}

/// What can become of a packet.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    pub actions: Vec<Action>,
    pub targets: Vec<Target>,
}

impl Verdicts {
    /// Sorts, and removes what is there twice.
    pub fn settle(&mut self) {
        let Self { actions, targets } = self;
        actions.sort_unstable();
        actions.dedup();
        targets.sort_unstable();
        targets.dedup();
    }

    /// Adds the verdicts of a map's elements, `[[KEY, VERDICT], …]`.
    pub fn add_elements(&mut self, elements: &[Value]) {
        for element in elements {
            match element.get(1).and_then(single) {
                Some((name, value)) if self.add(name, value) => {}
                _ => self.actions.push(Action::Unknown),
            }
            if self.actions.len() + self.targets.len() >= 4096 {
                // Maps are long and verdicts few.
                self.settle();
            }
        }
    }

    /// Adds a verdict; `false` if it is none.
    fn add(&mut self, name: &str, value: &Value) -> bool {
        let action = match name {
            "accept" => Action::Accept,
            "drop" => Action::Drop,
            "return" => Action::Return,
            "queue" => Action::Queue,
            "continue" => return true,
            "jump" | "goto" => {
                let Some(chain) = value.get("target").and_then(Value::as_str) else { return false };
                let (action, via) = match name {
                    "jump" => (Action::Jump, Via::Jump),
                    _ => (Action::Goto, Via::Goto),
                };
                self.targets.push(Target { via, chain: chain.to_owned() });
                action
            }
            _ => return false,
        };
        self.actions.push(action);
        true
    }
}

/// Goes through the statements in the order in which the kernel does.
pub(super) fn effects(expr: &Value) -> Effects {
    let mut effects = Effects::default();
    match expr.as_array() {
        Some(statements) => statements.iter().for_each(|statement| effects.add(statement)),
        None => effects.unknown("unknown"),
    }
    // A rule without a counter of its own counts nothing.
    effects.counts_matches &= effects.counter.is_some();
    effects.verdicts.settle();
    effects
}

impl Effects {
    fn kind(&mut self, kind: &str) {
        self.kinds.push(kind.to_owned());
    }

    /// Adds an unknown statement: it may be a condition, and it may give a verdict.
    fn unknown(&mut self, kind: &str) {
        self.kind(kind);
        self.counts_matches = false;
        self.clauses.extend([Clause::Unknown, Clause::Verdict]);
        self.verdicts.actions.push(Action::Unknown);
    }

    fn add(&mut self, statement: &Value) {
        let Some((name, value)) = single(statement) else {
            // nft writes text where it has no JSON: for blocks of rules within a rule (`jump { … }`), for one.
            return self.unknown("text");
        };
        if self.verdicts.add(name, value) {
            self.clauses.push(Clause::Verdict);
            return self.kind(name);
        }
        match name {
            "counter" => self.counter(value),
            "match" => self.condition(value),
            "vmap" => self.vmap(value),
            "xt" => self.extension(value),
            "reject" => {
                self.clauses.extend(clause::reject(value));
                self.act(name, Action::Reject);
            }
            "masquerade" | "snat" | "dnat" | "redirect" => {
                // A map may lack the address that is looked up.
                if value.to_string().contains("\"map\"") {
                    self.fallible();
                }
                self.clauses.push(Clause::Translate(clause::translate(name, value)));
                self.nat_family =
                    value.get("family").and_then(Value::as_str).and_then(Family::parse);
                self.act(name, Action::Nat);
            }
            "synproxy" => self.act(name, Action::Synproxy),
            "fwd" => self.act(name, Action::Forward),
            // These let every packet go on.
            "log" | "notrack" | "ct helper" | "ct timeout" | "ct expectation" => self.kind(name),
            "mangle" => {
                // Setting a mark to a number always works, but another value may be missing in the packet.
                let mark =
                    value.get("key").and_then(single).is_some_and(|(key, _)| key != "payload");
                let literal = value.get("value").is_some_and(|v| v.is_number() || v.is_string());
                if !(mark && literal) {
                    self.fallible();
                }
                self.clauses.extend(clause::mangle(value));
                if clause::mangles_headers(value) {
                    self.clauses.push(Clause::Headers);
                }
                self.kind(name);
            }
            // These statements may end the rule for some packets.
            "limit" | "quota" | "ct count" | "set" | "map" | "tproxy" | "dup" | "last"
            | "meter" | "flow" | "secmark" => {
                let set = value.get("set").or_else(|| value.get("map")).and_then(Value::as_str);
                self.updates.extend(set.and_then(|set| set.strip_prefix('@')).map(str::to_owned));
                self.fallible();
                self.kind(name);
            }
            _ => self.unknown(name),
        }
    }

    fn act(&mut self, name: &str, action: Action) {
        self.kind(name);
        self.clauses.push(Clause::Verdict);
        self.verdicts.actions.push(action);
    }

    /// A statement that ends the rule for some packets, and the listing does not say which.
    fn fallible(&mut self) {
        self.counts_matches = false;
        self.clauses.push(Clause::Unknown);
    }

    fn counter(&mut self, value: &Value) {
        let number = |member: &str| value.get(member).and_then(Value::as_u64);
        if let (Some(packets), Some(bytes)) = (number("packets"), number("bytes")) {
            self.kind("counter");
            self.counter = Some(Counter { packets, bytes });
            // The counter does not see packets that got a verdict before it.
            self.counts_matches = !self.clauses.iter().any(Clause::gives_verdict);
            self.clauses.push(Clause::Counter);
        } else {
            // A named one: shared with other rules.
            self.kind("counter object");
        }
    }

    fn condition(&mut self, value: &Value) {
        self.counts_matches = false;
        self.clauses.push(clause::condition(value));
        self.kinds.push(format!("match {}", value.get("left").map_or("unknown", subject)));
        if value.get("right").is_some_and(is_set) {
            self.kind("lookup");
        }
    }

    fn vmap(&mut self, value: &Value) {
        self.counts_matches = false;
        self.clauses.push(clause::map(value));
        self.kind("vmap");
        let data = value.get("data").unwrap_or(&Value::Null);
        if let Some(name) = data.as_str().and_then(|data| data.strip_prefix('@')) {
            self.maps.push(name.to_owned());
        } else if let Some(elements) = data.get("set").and_then(Value::as_array) {
            self.verdicts.add_elements(elements);
        } else {
            self.verdicts.actions.push(Action::Unknown);
        }
    }

    /// An extension of xtables in a rule of iptables-nft. nft before 1.0.6 does not say which.
    fn extension(&mut self, value: &Value) {
        let member = |name: &str| value.get(name).and_then(Value::as_str);
        match (member("type"), member("name")) {
            (Some("match"), Some(name)) => {
                self.fallible();
                self.kinds.push(format!("xt match {name}"));
            }
            (Some("target"), Some(name)) => {
                self.kinds.push(format!("xt target {name}"));
                self.clauses.push(Clause::Verdict);
                self.verdicts.actions.extend(extension::actions(name));
            }
            _ => self.unknown("xt"),
        }
    }
}

/// The kind of expression that a match compares, without the arithmetic around it.
fn subject(expression: &Value) -> &str {
    match single(expression) {
        Some(("&" | "|" | "^" | "<<" | ">>", operands)) => {
            operands.get(0).map_or("unknown", subject)
        }
        Some((kind, _)) => kind,
        None => "value",
    }
}

/// Whether something is compared with a set: elements in place, or a named one.
fn is_set(value: &Value) -> bool {
    value.get("set").is_some() || value.as_str().is_some_and(|text| text.starts_with('@'))
}
