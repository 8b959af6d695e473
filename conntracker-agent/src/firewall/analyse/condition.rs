//! Which packets a rule matches, as regions of their fields: those that bound it from outside, and those of which it
//! surely takes every packet.

mod comparison;
mod symbols;
mod xt;

use self::symbols::Symbols;
use super::{
    field::{Field, Fields, Source, Writes},
    region::Region,
    values::Values,
    writes,
};
use crate::{
    firewall::evaluate::{
        Firewall, Unknown, UnknownSet,
        code::{ChainNumber, Code},
        compiled::{CompiledRule, Operation},
        elements::{Elements, Entry, Mapped},
        xt::Target,
    },
    model::table::Family,
    netlink::nftables::{
        expression::{Destination, Expression, Register},
        key::meta,
    },
};

/// NFPROTO_IPV6.
const IPV6: u128 = 10;

/// Regions of one rule that are told apart; of more only what bounds them is kept.
const REGIONS: usize = 1024;

/// What is known of the packets that a rule matches.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// Every packet that it matches is in one of these.
    pub bound: Vec<Region>,
    /// Every packet of these is matched, and does not come to the rules behind in its chain.
    pub takes: Vec<Region>,
    /// What else decides whether it matches; none: `bound` is exactly what it matches.
    pub open: UnknownSet,
    /// Chains that it calls, each with what bounds the packets that go there.
    pub calls: Vec<(ChainNumber, Region)>,
}

/// Reads one rule. `written` has what each chain writes; `fields` is behind it as the next rule finds them.
pub fn read(
    rule: &CompiledRule,
    firewall: &Firewall,
    written: &[Writes],
    fields: &mut Fields,
) -> Condition {
    let (symbols, live) = (Symbols::default(), vec![Region::ALL]);
    let condition = Condition::default();
    let mut reader = Reader { firewall, fields, symbols, live, condition };
    let ended = rule.operations.iter().any(|operation| {
        let ended = reader.operation(operation);
        reader.fields.write(writes::written(operation));
        ended
    });
    if !ended {
        reader.condition.bound.append(&mut reader.live);
    }
    for callee in writes::called(rule, firewall) {
        reader.fields.write(written.get(callee as usize).copied().unwrap_or(Writes::ALL));
    }
    reader.condition
}

/// A rule that is being read.
struct Reader<'a> {
    firewall: &'a Firewall,
    fields: &'a mut Fields,
    symbols: Symbols,
    /// Packets that come so far.
    live: Vec<Region>,
    condition: Condition,
}

impl Reader<'_> {
    /// Takes an operation in, and says whether the rule ends with it.
    fn operation(&mut self, operation: &Operation) -> bool {
        match operation {
            Operation::Verdict(code) => {
                let live = std::mem::take(&mut self.live);
                self.verdict(*code, live, true);
                return true;
            }
            Operation::Lookup { set, from, to, invert } => {
                return self.lookup(*set, *from, *to, *invert);
            }
            Operation::ObjectMap { .. } => self.hangs_on(Unknown::Expression),
            Operation::Header(header) => self.header(header),
            Operation::Match(of) => self.xt_match(of),
            Operation::Target(target) => return self.target(target),
            Operation::Plain(expression) => return self.expression(expression),
        }
        false
    }

    /// Something else decides, too.
    fn hangs_on(&mut self, why: impl Into<UnknownSet>) {
        self.condition.open = self.condition.open.union(why.into());
    }

    /// Only packets go on in which a field has these values.
    fn admit(&mut self, field: Field, values: &Values) {
        let v6 = self.is_v6();
        let (field, values) = comparison::pulled_back(field, values.clone(), v6, self.fields);
        let number = self.fields.number(field);
        self.live = self.live.iter().filter_map(|of| of.narrowed(number, &values)).collect();
    }

    /// Whether all packets that come so far are of IPv6.
    fn is_v6(&mut self) -> bool {
        let family = self.fields.load(Source::Meta(meta::NFPROTO));
        let family = self.fields.number(family);
        let only = |region: &Region| region.get(family).and_then(Values::single) == Some(IPV6);
        self.fields.family() == Family::Ip6 || !self.live.is_empty() && self.live.iter().all(only)
    }

    /// Only packets go on for which one of several conditions holds.
    fn admit_any(&mut self, alternatives: &[Vec<(Field, Values)>]) {
        if self.live.len() * alternatives.len() > REGIONS {
            return self.hangs_on(Unknown::Branches);
        }
        let before = std::mem::take(&mut self.live);
        let mut admitted = Vec::new();
        for conditions in alternatives {
            self.live.clone_from(&before);
            for (field, values) in conditions {
                self.admit(field.clone(), values);
            }
            admitted.append(&mut self.live);
        }
        self.live = admitted;
    }

    /// Packets get a verdict.
    fn verdict(&mut self, code: Code, of: Vec<Region>, certain: bool) {
        let leaves = match code {
            Code::Accept | Code::Drop | Code::Stolen | Code::Queue | Code::Return => true,
            Code::Goto(chain) | Code::Jump(chain) => {
                let called = of.iter().map(|region| (chain, region.clone()));
                self.condition.calls.extend(called);
                matches!(code, Code::Goto(_))
            }
            Code::Continue => false,
            Code::Break => return,
        };
        if leaves && certain && self.condition.open.is_empty() {
            self.condition.takes.extend(of.iter().cloned());
        }
        self.condition.bound.extend(of);
    }

    fn expression(&mut self, expression: &Expression) -> bool {
        use Expression as E;
        match expression {
            E::Verdict(_)
            | E::Unknown(_)
            | E::Inner { .. }
            | E::Match { .. }
            | E::Target { .. } => {
                self.hangs_on(Unknown::Expression);
            }
            E::Limit { .. } => self.hangs_on(Unknown::Limit),
            E::Quota { .. } => self.hangs_on(Unknown::Quota),
            E::Connlimit { .. } => self.hangs_on(Unknown::ConnLimit),
            // A counter or a helper does not end the rule; which kind it is does not matter here.
            E::ObjectRef { kind: 1 | 3 | 7 | 8 | 9, .. } => {}
            E::ObjectRef { .. } => self.hangs_on(Unknown::Limit),
            E::Dynset { .. } => self.hangs_on(Unknown::DynamicSet),
            E::Nat { family, .. } => return self.nat(Some(*family)),
            E::Masq { .. } | E::Redir { .. } => return self.nat(None),
            E::Reject { .. } | E::Fwd { .. } | E::Queue { .. } => {
                let live = std::mem::take(&mut self.live);
                let code =
                    if matches!(expression, E::Queue { .. }) { Code::Queue } else { Code::Drop };
                let certain = matches!(expression, E::Reject { .. });
                self.verdict(code, live, certain);
                return true;
            }
            E::PayloadSet { .. } | E::ExthdrSet { .. } | E::FlowOffload { .. } => {
                // They end the rule where the packet lacks what they change.
                self.hangs_on(Unknown::Expression);
            }
            E::Tproxy { .. } | E::Synproxy { .. } => self.hangs_on(Unknown::Synproxy),
            E::Counter { .. }
            | E::Log { .. }
            | E::Last
            | E::Dup { .. }
            | E::Notrack
            | E::MetaSet { .. }
            | E::CtSet { .. } => {}
            _ => self.load_or_compare(expression),
        }
        false
    }

    /// A translation, which accepts packets of its family.
    fn nat(&mut self, family: Option<u32>) -> bool {
        let live = std::mem::take(&mut self.live);
        // In tables of inet packets of the other family go on.
        let both = family.is_some() && self.fields.family() == Family::Inet;
        self.verdict(Code::Accept, live, !both);
        true
    }

    fn target(&mut self, target: &Target) -> bool {
        let code = match target {
            Target::Queue => Code::Queue,
            Target::Reject(_) => Code::Drop,
            Target::Nat(..) | Target::Netmap(_) => Code::Accept,
            Target::Unknown(why) => {
                self.hangs_on(*why);
                return false;
            }
            _ => return false,
        };
        let live = std::mem::take(&mut self.live);
        self.verdict(code, live, true);
        true
    }

    fn lookup(
        &mut self,
        set: usize,
        from: Register,
        to: Option<Destination>,
        invert: bool,
    ) -> bool {
        let firewall = self.firewall;
        let known = firewall.set(set).filter(|set| !set.dynamic && !set.expires);
        let Some(keys) = known.and_then(|set| self.keys(set, from)) else {
            self.hangs_on(Unknown::DynamicSet);
            return self.any_of(set, to);
        };
        // An element that counts or limits may end the rule.
        if keys.iter().any(|key| key.limited) {
            self.hangs_on(Unknown::Limit);
        }
        if to == Some(Destination::Verdict) {
            let before = std::mem::take(&mut self.live);
            for Key { conditions, verdict, limited } in keys {
                self.live.clone_from(&before);
                conditions.iter().for_each(|(field, values)| self.admit(field.clone(), values));
                let live = std::mem::take(&mut self.live);
                self.verdict(
                    verdict.unwrap_or(Code::Continue),
                    live,
                    verdict.is_some() && !limited,
                );
            }
            return true;
        }
        let conditions: Vec<_> = keys.into_iter().map(|key| key.conditions).collect();
        match &conditions[..] {
            [] if invert => {}
            [] => self.live.clear(),
            [one] if invert && one.len() == 1 => {
                for (field, values) in one {
                    self.refuse(field.clone(), values);
                }
            }
            // What is not in a set of concatenations is no region.
            _ if invert => self.hangs_on(Unknown::Branches),
            _ => self.admit_any(&conditions),
        }
        if let Some(Destination::Register(to)) = to {
            self.symbols.forget(to, 16);
        }
        false
    }

    /// A lookup that may find any element, or none.
    fn any_of(&mut self, set: usize, to: Option<Destination>) -> bool {
        match to {
            Some(Destination::Verdict) => {
                let codes: Vec<_> =
                    self.firewall.set(set).map(writes::mapped).into_iter().flatten().collect();
                let live = std::mem::take(&mut self.live);
                for code in codes {
                    self.verdict(code, live.clone(), false);
                }
                // An element that is added later may have any verdict.
                self.condition.bound.extend(live);
                true
            }
            Some(Destination::Register(to)) => {
                self.symbols.forget(to, 16);
                false
            }
            None => false,
        }
    }

    /// Only packets go on that have a field, with other values.
    fn refuse(&mut self, field: Field, values: &Values) {
        let all = Values::range(0, super::field::highest(field.bits()));
        self.admit(field, &all.without(values));
    }

    /// The keys of a set as conditions, as one with those that lead to the same; `None` if they are none.
    fn keys(&self, set: &Elements, from: Register) -> Option<Vec<Key>> {
        let parts = self.symbols.fields(from, set.key_len)?;
        let ranges = set.ranges()?;
        let key = |(first, last, entry): &(Vec<u8>, Vec<u8>, &Entry)| {
            let part = |(at, field): &(usize, Field)| {
                let (bytes, _) = field.source.layout()?;
                let number = |key: &[u8]| Some(number_of(key.get(*at..at + bytes)?));
                Some((field.clone(), Values::range(number(first)?, number(last)?)))
            };
            let verdict = match entry.data {
                Mapped::Verdict(code) => Some(code),
                _ => None,
            };
            let conditions = parts.iter().map(part).collect::<Option<Vec<_>>>()?;
            Some(Key { conditions, verdict, limited: !entry.only_counts() })
        };
        let mut keys = Vec::new();
        for range in &ranges {
            let key = key(range)?;
            keys.push(key);
        }
        if parts.len() > 1 {
            return (keys.len() <= REGIONS).then_some(keys);
        }
        // Of one field alone: all values with the same verdict are one condition.
        let mut joined: Vec<(Option<Code>, bool, Vec<(u128, u128)>)> = Vec::new();
        for Key { conditions, verdict, limited } in keys {
            let ranges = conditions.into_iter().flat_map(|(_, values)| values.ranges().to_vec());
            match joined.iter_mut().find(|(of, own, _)| (*of, *own) == (verdict, limited)) {
                Some((.., all)) => all.extend(ranges),
                None => joined.push((verdict, limited, ranges.collect())),
            }
        }
        let (_, field) = parts.into_iter().next()?;
        let key = |(verdict, limited, ranges)| Key {
            conditions: vec![(field.clone(), Values::of(ranges))],
            verdict,
            limited,
        };
        Some(joined.into_iter().map(key).collect())
    }
}

/// A key of a set, or several that lead to the same.
struct Key {
    conditions: Vec<(Field, Values)>,
    verdict: Option<Code>,
    /// Something else decides whether it is found, too.
    limited: bool,
}

/// Bytes as a number, in network byte order.
fn number_of(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}
