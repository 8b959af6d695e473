//! Rules with conditions on real fields, and packets that have them: the kernel's evaluation, decided by
//! the packet alone.

use std::net::IpAddr;

use super::{
    super::{ChainId, SolvedVerdict, Spot},
    interpreter::{Decide, Fate, Truth},
    language::Named,
};
use crate::firewall::{
    action::{Action, Target, Via},
    clause::{
        Clause, Condition, Elements, Field, MapElements, MapVerdict, Operand, Test, VerdictMap,
    },
    model::{Chain, ChainType, Policy, Rule},
};

/// All that a rule can see of a packet.
#[derive(Clone, Debug)]
pub struct Real {
    pub v6: bool,
    pub proto: u8,
    /// Source, destination, ports at each base chain.
    pub headers: Vec<([IpAddr; 2], [u16; 2])>,
    pub icmp: (u8, u8),
    pub interfaces: [(u32, [u8; 16]); 2],
    pub state: u32,
    /// Original and reply direction of the entry, if it has one.
    pub tuples: Option<[([IpAddr; 2], [u16; 2]); 2]>,
    pub reply: bool,
    pub status: u32,
    pub marks: [u32; 2],
}

#[derive(Clone, Copy, PartialEq)]
enum Seen {
    Number(u128),
    Name([u8; 16]),
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

impl Real {
    /// What an expression loads; `None`: it ends the rule.
    fn load(&self, field: Field, base: usize, marks: [u32; 2], any: u128) -> Option<Seen> {
        let (addresses, ports) = self.headers[base];
        let has_ports = [6, 17].contains(&self.proto);
        let entry = |value: u128| self.tuples.map(|_| value);
        let tuple = |reply: bool| self.tuples.map(|tuples| tuples[usize::from(reply)]);
        let icmp = |v6| self.v6 == v6 && self.proto == if v6 { 58 } else { 1 };
        Some(Seen::Number(match field {
            Field::Nfproto => {
                if self.v6 {
                    10
                } else {
                    2
                }
            }
            Field::L4Proto => self.proto.into(),
            Field::IpProtocol => (!self.v6).then_some(self.proto.into())?,
            Field::Interface { out } => self.interfaces[usize::from(out)].0.into(),
            Field::InterfaceName { out } => {
                return Some(Seen::Name(self.interfaces[usize::from(out)].1));
            }
            Field::Mark => marks[0].into(),
            Field::CtMark => entry(marks[1].into())?,
            Field::CtState => self.state.into(),
            Field::CtDirection => entry(self.reply.into())?,
            Field::CtStatus => entry(self.status.into())?,
            Field::CtFamily => entry(if self.v6 { 10 } else { 2 })?,
            Field::CtProto => entry(self.proto.into())?,
            Field::CtAddress { reply, dst, v6 } => {
                let address = tuple(reply)?.0[usize::from(dst)];
                if v6 != Some(self.v6) {
                    return v6.is_none().then_some(Seen::Number(any));
                }
                number(address)
            }
            Field::CtPort { reply, dst } => {
                let port = tuple(reply)?.1[usize::from(dst)];
                if has_ports { port.into() } else { any }
            }
            Field::Address { dst, v6 } => {
                (v6 == self.v6).then_some(number(addresses[usize::from(dst)]))?
            }
            Field::Port { dst, proto } => match proto {
                Some(proto) if proto != self.proto => return None,
                _ if has_ports => ports[usize::from(dst)].into(),
                // Whatever stands there.
                _ => any,
            },
            Field::Icmp { code, v6 } => {
                icmp(v6).then_some(if code { self.icmp.1 } else { self.icmp.0 })?.into()
            }
            Field::Other { v6, proto } => {
                let is = v6.is_none_or(|v6| v6 == self.v6)
                    && proto.is_none_or(|proto| proto == self.proto);
                is.then_some(any)?
            }
        }))
    }
}

fn passes(test: &Test, seen: Seen, decide: &mut impl Decide) -> bool {
    match (test, seen) {
        (Test::Any, _) => true,
        (Test::Unknown, _) => decide.below(2) == 0,
        (Test::Range(first, last), Seen::Number(value)) => *first <= value && value <= *last,
        (Test::Bits(bits), Seen::Number(value)) => bits & value != 0,
        (Test::Name(name), Seen::Name(value)) => *name == value,
        (Test::NameStart(start), Seen::Name(value)) => value[..start.len()] == **start,
        other => panic!("{other:?}", other = other.0),
    }
}

/// The result of a rule that gives a verdict.
enum Next {
    Base(bool),
    Caller,
}

impl Next {
    fn of(verdict: Option<bool>) -> Self {
        verdict.map_or(Self::Caller, Self::Base)
    }
}

/// Evaluates rules for a packet.
pub struct Kernel<'a, D> {
    pub named: &'a Named,
    pub packet: &'a Real,
    pub decide: &'a mut D,
    pub truth: Truth,
    pub marks: [u32; 2],
    /// Marks before each base chain.
    pub borders: Vec<[u32; 2]>,
    base: usize,
    /// Address and port that a rule of NAT made.
    pub translated: Option<(IpAddr, u16)>,
}

impl<'a, D: Decide> Kernel<'a, D> {
    pub fn run(named: &'a Named, packet: &'a Real, bases: &[ChainId], decide: &'a mut D) -> Self {
        let mut this = Kernel {
            named,
            packet,
            decide,
            truth: Truth::default(),
            marks: packet.marks,
            borders: Vec::new(),
            base: 0,
            translated: None,
        };
        for (at, &base) in bases.iter().enumerate() {
            this.base = at;
            let spec = this.model(base).base.as_ref().unwrap();
            this.borders.push(this.marks);
            if spec.kind == ChainType::Nat && this.translated.is_some() {
                continue;
            }
            let accepted = this.chain(base).unwrap_or_else(|| {
                let accept = spec.policy == Policy::Accept;
                let verdict = if accept { SolvedVerdict::Accept } else { SolvedVerdict::Drop };
                let end = this.model(base).rules.len() as u32;
                this.truth.steps.push((base, end, verdict));
                accept
            });
            let &(chain, index, _) = this.truth.steps.last().unwrap();
            let steps = this.truth.steps.len();
            this.truth.fates.push(Fate { base, accepted, steps, decider: (chain, index) });
            if !accepted {
                break;
            }
        }
        this
    }

    fn model(&self, id: ChainId) -> &'a Chain {
        let (table, chain) = self.named.program.indices(id).unwrap();
        &self.named.ruleset.tables[table].chains[chain]
    }

    fn keys(&mut self, operands: &[Operand]) -> Option<Vec<Seen>> {
        operands
            .iter()
            .map(|operand| {
                let any = self.decide.below(256) as u128;
                let seen = self.packet.load(operand.field, self.base, self.marks, any)?;
                Some(match seen {
                    Seen::Number(value) => Seen::Number(value & operand.mask),
                    name @ Seen::Name(_) => name,
                })
            })
            .collect()
    }

    fn all_pass(&mut self, tests: &[Test], keys: &[Seen]) -> bool {
        tests.iter().zip(keys).all(|(test, key)| passes(test, *key, self.decide))
    }

    fn meets(&mut self, condition: &Condition) -> bool {
        let Some(keys) = self.keys(&condition.operands) else { return false };
        let found = match &condition.set {
            Elements::Sorted(ranges) => ranges
                .iter()
                .any(|&(first, last)| passes(&Test::Range(first, last), keys[0], self.decide)),
            Elements::Listed(all) => all.iter().any(|tests| self.all_pass(tests, &keys)),
            Elements::Named(_) | Elements::Unknown => self.decide.below(2) == 0,
        };
        found != condition.negated
    }

    fn look_up(&mut self, map: &VerdictMap) -> Option<MapVerdict> {
        let keys = self.keys(&map.operands)?;
        let MapElements::Listed(elements) = &map.elements else { panic!("{map:?}") };
        let is_rest = |tests: &[Test]| tests.iter().all(|test| *test == Test::Any);
        let (rest, listed): (Vec<_>, Vec<_>) =
            elements.iter().partition(|element| is_rest(&element.key));
        let found = listed.into_iter().chain(rest).find(|of| self.all_pass(&of.key, &keys));
        found.map(|element| element.verdict.clone())
    }

    /// Whether the packet was accepted; `None` if it goes back to the caller.
    fn chain(&mut self, id: ChainId) -> Option<bool> {
        *self.truth.visits.entry(id).or_default() += 1;
        let chain = self.model(id);
        for (rule, index) in chain.rules.iter().zip(0..) {
            match self.rule(id, rule, index) {
                None => {}
                Some(Next::Base(accepted)) => return Some(accepted),
                Some(Next::Caller) => return None,
            }
        }
        if chain.base.is_none() {
            self.truth.steps.push((id, chain.rules.len() as u32, SolvedVerdict::Return));
        }
        None
    }

    /// The result for the packet; `None`: it goes to the next rule.
    fn rule(&mut self, id: ChainId, rule: &Rule, index: u32) -> Option<Next> {
        for clause in &rule.clauses {
            match clause {
                Clause::Condition(condition) => {
                    if !self.meets(condition) {
                        return None;
                    }
                }
                Clause::Unknown => {
                    if self.decide.below(2) == 0 {
                        return None;
                    }
                }
                Clause::Map(map) => match self.look_up(map) {
                    None => return None,
                    Some(MapVerdict::Continue) => {}
                    Some(MapVerdict::Plain(action)) => {
                        return Some(self.verdict(id, index, action));
                    }
                    Some(MapVerdict::To(target)) => return self.go(id, index, &target),
                },
                Clause::Counter => {
                    *self.truth.moved.entry(Spot { chain: id, index }).or_default() += 1;
                }
                Clause::Mark { connection, value } => {
                    let value = value.unwrap_or_else(|| self.decide.below(4) as u32);
                    if !connection || self.packet.tuples.is_some() {
                        self.marks[usize::from(*connection)] = value;
                    }
                }
                Clause::Translate(translate) => {
                    let mine = self.packet.headers[self.base];
                    let any =
                        [mine.0[1], super::random::address(self.packet.v6, self.decide.below(4))];
                    let address =
                        translate.addresses.map_or(any[self.decide.below(2)], |(first, _)| first);
                    let port = translate.ports.map_or(mine.1[1], |(first, _)| first);
                    self.translated = Some((address, port));
                }
                Clause::Verdict => {
                    return match (rule.actions.first(), rule.targets.first()) {
                        (_, Some(target)) => self.go(id, index, target),
                        (Some(action), None) => Some(self.verdict(id, index, *action)),
                        (None, None) => panic!("{rule:?}"),
                    };
                }
                Clause::Headers => {}
            }
        }
        self.truth.steps.push((id, index, SolvedVerdict::Continue));
        None
    }

    fn verdict(&mut self, id: ChainId, index: u32, action: Action) -> Next {
        let (verdict, next) = match action {
            Action::Accept | Action::Nat => (SolvedVerdict::Accept, Next::Base(true)),
            Action::Drop => (SolvedVerdict::Drop, Next::Base(false)),
            Action::Reject => (SolvedVerdict::Reject, Next::Base(false)),
            Action::Return => (SolvedVerdict::Return, Next::Caller),
            other => panic!("{other:?}"),
        };
        self.truth.steps.push((id, index, verdict));
        next
    }

    fn go(&mut self, id: ChainId, index: u32, target: &Target) -> Option<Next> {
        let to = self.named.chain(&target.chain);
        match target.via {
            Via::Jump => {
                self.truth.steps.push((id, index, SolvedVerdict::Jump(to)));
                self.chain(to).map(Next::Base)
            }
            Via::Goto => {
                self.truth.steps.push((id, index, SolvedVerdict::Goto(to)));
                Some(Next::of(self.chain(to)))
            }
        }
    }
}
