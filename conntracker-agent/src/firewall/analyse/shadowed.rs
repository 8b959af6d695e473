//! Rules that no packet can meet, because rules before them take every packet that they match.

use super::{
    cover::{Cover, cover, open_part},
    field::{FieldNumber, Source},
    index::Index,
    reading::{RuleAt, TableRules, tables},
    region::Region,
    values::Values,
    witness, writes,
};
use crate::{
    firewall::evaluate::{
        Firewall, Packet, UnknownSet, code::ChainNumber, evaluate_chain, routes::Routes,
    },
    model::table::Family,
    netlink::nftables::key::ct,
};

/// Comparisons of two regions for one rule.
const BUDGET: usize = 200_000;

/// Packets that are tried as witnesses of one rule.
const TRIES: usize = 24;

/// Chains that call each other (NFT_JUMP_STACK_SIZE), and ways to a chain that are tried.
const DEPTH: usize = 16;
const ENTRIES: usize = 16;

/// `ct state new` and `related`: of the packets that come to chains of type nat.
const FIRST_PACKETS: [u128; 2] = [8, 4];

/// Why no packet can meet a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// These rules of its chain take all packets that it matches.
    Covered(Vec<usize>),
    /// No packet that comes to its chain fulfils all its conditions.
    NoPacket,
    /// No rule and no element of a map leads to its chain now.
    NotCalled,
}

/// Why nothing is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproved {
    /// The number of comparisons for one rule was used up.
    Budget,
    /// Rules before it leave packets over, but none that was tried meets it when it is evaluated.
    NoWitness,
    /// Its chain is at no hook that packets of IP come to.
    NoHook,
}

/// A packet that meets a rule, as the evaluator says.
#[derive(Clone, Debug)]
pub struct Witness {
    /// The packet, as it comes to the base chain.
    pub packet: Box<Packet>,
    /// The base chain.
    pub base: ChainNumber,
    /// What decides besides whether it meets the rule: a rate limit, a dynamic set.
    pub open: UnknownSet,
}

/// What is said of a rule.
#[derive(Clone, Debug)]
pub enum Finding {
    /// No packet can meet it.
    Proved(Proof),
    /// This packet does.
    Reachable(Witness),
    /// Neither is known.
    NotProved(Unproved),
}

/// The finding for each rule of each chain, in order.
#[must_use]
pub fn shadowed(firewall: &Firewall, routes: &dyn Routes) -> Vec<(RuleAt, Finding)> {
    let tracked = writes::tracked(firewall);
    let mut found = Vec::new();
    for mut table in tables(firewall) {
        let [state, fragment] =
            [Source::Ct(ct::STATE, None), Source::LaterFragment].map(|source| {
                let field = table.fields.load(source);
                table.fields.number(field)
            });
        let whole = match table.family {
            Family::Ip => tracked[0],
            Family::Ip6 => tracked[1],
            Family::Inet => tracked == [true; 2],
            Family::Arp | Family::Bridge | Family::Netdev => false,
        };
        let search = Search { firewall, routes, table, state, fragment, whole };
        found.extend(search.table.chains.iter().flat_map(|number| search.chain(*number)));
    }
    found
}

/// What is looked for in a table.
struct Search<'a> {
    firewall: &'a Firewall,
    routes: &'a dyn Routes,
    table: TableRules,
    /// The fields `ct state` and whether it is a later fragment.
    state: FieldNumber,
    fragment: FieldNumber,
    /// Fragments are put together before packets come to the chains behind conntrack.
    whole: bool,
}

/// How packets come to a chain: those of a region, without those that rules take before.
#[derive(Clone)]
struct ChainEntry<'a> {
    base: ChainNumber,
    region: Region,
    taken: Vec<&'a Region>,
}

impl Search<'_> {
    /// The packets that a base chain may see.
    fn base_region(&self, chain: ChainNumber) -> Region {
        let Some(base) = self.firewall.base_hook(chain) else { return Region::ALL };
        let mut region = Region::ALL;
        let mut narrow = |field, values: &Values| {
            if let Some(narrowed) = region.narrowed(field, values) {
                region = narrowed;
            }
        };
        if base.nat {
            let first = FIRST_PACKETS.map(|state| (state, state));
            narrow(self.state, &Values::of(first.to_vec()));
        }
        if self.whole && !base.before_conntrack {
            narrow(self.fragment, &Values::one(0));
        }
        region
    }

    /// The packets that a chain may see, as far as that is the same for all ways to it.
    fn region(&self, chain: ChainNumber, entries: &[ChainEntry<'_>]) -> Region {
        if self.firewall.is_base(chain) {
            return self.base_region(chain);
        }
        let all = !entries.is_empty() && entries.len() < ENTRIES;
        let whole =
            |entry: &ChainEntry<'_>| entry.region.get(self.fragment) == Some(&Values::one(0));
        let narrowed = Region::ALL.narrowed(self.fragment, &Values::one(0));
        narrowed.filter(|_| all && entries.iter().all(whole)).unwrap_or(Region::ALL)
    }

    fn chain(&self, number: ChainNumber) -> Vec<(RuleAt, Finding)> {
        let mut entries = Vec::new();
        self.entries(number, Region::ALL, &mut Vec::new(), &mut vec![number], &mut entries);
        let own = self.region(number, &entries);
        let called = self.firewall.is_base(number) || self.is_called(number);
        let mut before = Index::default();
        let mut found = Vec::new();
        for (index, condition) in self.table.rules(number).iter().enumerate() {
            let finding = if called {
                let bound: Vec<Region> =
                    condition.bound.iter().filter_map(|of| of.intersection(&own)).collect();
                self.rule((number, index), &bound, &before, &entries)
            } else {
                Finding::Proved(Proof::NotCalled)
            };
            // What is taken already adds nothing.
            if !matches!(finding, Finding::Proved(_)) {
                for region in &condition.takes {
                    before.add(index, region.clone(), &self.table.fields);
                }
            }
            found.push(((number, index), finding));
        }
        found
    }

    /// Whether a rule or an element leads to a chain.
    fn is_called(&self, number: ChainNumber) -> bool {
        let mut rules = self.table.conditions.values().flatten();
        rules.any(|rule| rule.calls.iter().any(|(to, _)| *to == number))
    }

    /// The ways to a chain, from the base chains that lead there.
    fn entries<'b>(
        &'b self,
        chain: ChainNumber,
        region: Region,
        taken: &mut Vec<&'b Region>,
        path: &mut Vec<ChainNumber>,
        found: &mut Vec<ChainEntry<'b>>,
    ) {
        if found.len() >= ENTRIES || path.len() > DEPTH {
            return;
        }
        if self.firewall.is_base(chain) {
            if let Some(region) = region.intersection(&self.base_region(chain)) {
                found.push(ChainEntry { base: chain, region, taken: taken.clone() });
            }
            return;
        }
        for caller in &self.table.chains {
            let rules = self.table.rules(*caller);
            for (index, rule) in rules.iter().enumerate() {
                let calls = rule.calls.iter().filter(|(to, _)| *to == chain);
                for both in calls.filter_map(|(_, of)| of.intersection(&region)) {
                    if path.contains(caller) {
                        continue;
                    }
                    let length = taken.len();
                    taken.extend(rules[..index].iter().flat_map(|rule| &rule.takes));
                    path.push(*caller);
                    self.entries(*caller, both, taken, path, found);
                    path.pop();
                    taken.truncate(length);
                }
            }
        }
    }

    fn rule(
        &self,
        at: RuleAt,
        bound: &[Region],
        before: &Index,
        entries: &[ChainEntry<'_>],
    ) -> Finding {
        let mut budget = BUDGET;
        let mut covering = Vec::new();
        let mut unknown = false;
        let mut open = Vec::new();
        for region in bound {
            if let Some(one) = before.containing(region, &self.table.fields) {
                covering.push(before.get(one).0);
                continue;
            }
            let met: Vec<(usize, &Region)> =
                before.meeting(region).into_iter().map(|of| before.get(of)).collect();
            let by: Vec<&Region> = met.iter().map(|(_, region)| *region).collect();
            if let Some(part) = open_part(region, &by, &self.table.fields) {
                open.push((region, part));
                continue;
            }
            match cover(region, &by, &self.table.fields, &mut budget) {
                Cover::Whole(used) => covering.extend(used.into_iter().map(|of| met[of].0)),
                Cover::Open(part) => open.push((region, part)),
                Cover::Unknown => unknown = true,
            }
        }
        if open.is_empty() && !unknown {
            covering.sort_unstable();
            covering.dedup();
            let contradicts = covering.is_empty();
            return Finding::Proved(if contradicts {
                Proof::NoPacket
            } else {
                Proof::Covered(covering)
            });
        }
        if unknown && open.is_empty() {
            return Finding::NotProved(Unproved::Budget);
        }
        if entries.iter().all(|entry| self.firewall.base_hook(entry.base).is_none()) {
            return Finding::NotProved(Unproved::NoHook);
        }
        let mut tries = TRIES;
        for (region, part) in open {
            for entry in entries {
                if let Some(witness) = self.witness(at, region, &part, before, entry, &mut tries) {
                    return Finding::Reachable(witness);
                }
            }
        }
        Finding::NotProved(Unproved::NoWitness)
    }

    /// A packet of a region that comes to a rule and meets it.
    fn witness(
        &self,
        at: RuleAt,
        region: &Region,
        part: &Region,
        before: &Index,
        entry: &ChainEntry<'_>,
        tries: &mut usize,
    ) -> Option<Witness> {
        // The part that is open in the chain itself, where packets come there at once.
        let direct = part.intersection(&entry.region).filter(|_| entry.taken.is_empty());
        if let Some(found) = direct.and_then(|part| self.confirmed(at, &part, entry, tries)) {
            return Some(found);
        }
        let whole = region.intersection(&entry.region)?;
        let mut taken: Vec<&Region> =
            entry.taken.iter().copied().filter(|of| of.meets(&whole)).collect();
        taken.extend(before.meeting(&whole).into_iter().map(|of| before.get(of).1));
        if let Some(part) = open_part(&whole, &taken, &self.table.fields)
            && let Some(found) = self.confirmed(at, &part, entry, tries)
        {
            return Some(found);
        }
        // Parts that differ from those that did not do, value by value.
        let mut refused: Vec<Region> = Vec::new();
        let mut budget = BUDGET;
        while *tries > 0 {
            let by: Vec<&Region> = taken.iter().copied().chain(&refused).collect();
            let Cover::Open(part) = cover(&whole, &by, &self.table.fields, &mut budget) else {
                return None;
            };
            if let Some(found) = self.confirmed(at, &part, entry, tries) {
                return Some(found);
            }
            refused.push(part);
        }
        None
    }

    /// A packet of a part that is left over, if the evaluator confirms that it meets the rule.
    fn confirmed(
        &self,
        (chain, index): RuleAt,
        part: &Region,
        entry: &ChainEntry<'_>,
        tries: &mut usize,
    ) -> Option<Witness> {
        *tries = tries.checked_sub(1)?;
        let base = self.firewall.base_hook(entry.base)?;
        let point = witness::point(part, &self.table.fields)?;
        let packet = witness::packet(&point, self.table.family, base)?;
        let endings = evaluate_chain(self.firewall, entry.base, packet.clone(), self.routes);
        let open = endings.iter().fold(UnknownSet::NONE, |all, end| all.union(end.why));
        let met = endings.iter().filter_map(|end| {
            end.steps.iter().find(|step| (step.chain, step.index) == (chain, index))
        });
        let met: Vec<UnknownSet> = met.map(|step| step.why).collect();
        let first = met.first()?;
        let certain = met.len() == endings.len() && met.iter().any(|why| why.is_empty());
        let open = if certain { UnknownSet::NONE } else { open.union(*first) };
        Some(Witness { packet: Box::new(packet), base: entry.base, open })
    }
}

#[cfg(test)]
mod tests;
