//! One rule alone: what it may do with a packet that reaches it.

use std::collections::HashMap;

use super::{
    code::ChainNumber,
    context::Context,
    packet::Packet,
    rule::{self, Possibility, RuleEnd},
    ruleset::Firewall,
    state::StepVerdict,
};
use crate::model::table::{Backend, Family};

/// How a rule may end for a packet.
#[derive(Debug, Default)]
pub struct RuleEnds {
    /// It may not match; the packet as it is behind it then.
    pub misses: Vec<Packet>,
    /// It may match, with a verdict; the packet as it is behind it. A translation is [`None`]: it accepts, or drops.
    pub matches: Vec<(Option<StepVerdict>, Packet)>,
}

impl Firewall {
    /// The numbers of all chains, by backend, family, table and name.
    #[must_use]
    pub fn numbers(&self) -> HashMap<(Backend, Family, &str, &str), ChainNumber> {
        let named = |number| {
            let chain = self.chain(number)?;
            let name = (chain.backend, chain.family, chain.table.as_str(), chain.name.as_str());
            Some((name, number))
        };
        self.chains().filter_map(named).collect()
    }

    /// The handles of a chain's rules; rules of ip_tables have none.
    pub fn handles(&self, chain: ChainNumber) -> impl Iterator<Item = Option<u64>> {
        self.chain(chain).into_iter().flat_map(|chain| &chain.rules).map(|rule| rule.handle)
    }

    /// What a rule may do with a packet; `None` if that is not known, or there is no such rule.
    #[must_use]
    pub fn rule_ends(
        &self,
        (chain, index): (ChainNumber, usize),
        packet: Packet,
        context: &Context<'_>,
    ) -> Option<RuleEnds> {
        let rule = self.chain(chain)?.rules.get(index)?;
        let (last, others) = rule::evaluate(&rule.operations, Box::new(packet), self, context);
        let mut ends = RuleEnds::default();
        for Possibility { end, packet, .. } in others.into_iter().chain([last]) {
            let verdict = match end {
                RuleEnd::NoMatch => {
                    ends.misses.push(*packet);
                    continue;
                }
                RuleEnd::Unknown => return None,
                RuleEnd::Verdict(code) => Some(StepVerdict::Code(code)),
                RuleEnd::Reject => Some(StepVerdict::Reject),
                RuleEnd::Translate(_) => None,
            };
            ends.matches.push((verdict, *packet));
        }
        Some(ends)
    }
}
