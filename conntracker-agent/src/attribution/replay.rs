//! Replay: from the rules that probes saw a packet match, in order, to steps. Nothing must be solved: a chain ends
//! where the next rule belongs to another one.

use super::{
    ChainId, Finding, Program, Solution, Solved, SolvedVerdict, Spot,
    program::{ProgramChain, RuleOutcome},
};
use crate::{firewall::model::Policy, model::path::Provenance};

/// A rule that a packet matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Match {
    /// The rule.
    pub spot: Spot,
    /// Its verdict; `None`: the only one that it can give.
    pub verdict: Option<SolvedVerdict>,
}

/// The steps of a packet in one base chain. `end`: the verdict that the kernel's function returned
/// ([`SolvedVerdict::Unknown`] if it was not seen).
#[must_use]
pub fn replay(program: &Program, base: ChainId, met: &[Match], end: SolvedVerdict) -> Solution {
    let mut replay =
        Replay { program, base, at: (base, 0), stack: Vec::new(), steps: Vec::new(), end: None };
    let went = met.iter().try_for_each(|one| replay.meet(one)).and_then(|()| replay.finish());
    let agrees = went.is_some_and(|()| {
        let last = replay.end.unwrap_or(SolvedVerdict::Unknown);
        [last, end].contains(&SolvedVerdict::Unknown) || kind(last) == kind(end)
    });
    if agrees {
        return Solution { steps: replay.steps, finding: Finding::Agrees };
    }
    let only = Solved {
        chain: base,
        index: None,
        verdict: end,
        provenance: Provenance::Chain,
        placed: true,
    };
    // An extension that cannot read or change a packet drops it without a verdict of the rule.
    let sudden = end == SolvedVerdict::Drop && went.is_some();
    let finding = if sudden { Finding::Unexplained } else { Finding::Contradiction };
    let mut steps = Vec::new();
    if sudden {
        let without_policy = replay.steps.len() - usize::from(replay.ended_by_policy());
        steps.extend(replay.steps.into_iter().take(without_policy));
    }
    steps.push(only);
    Solution { steps, finding }
}

/// The verdict of the kernel's function after a verdict of a rule.
fn kind(verdict: SolvedVerdict) -> SolvedVerdict {
    match verdict {
        SolvedVerdict::Reject => SolvedVerdict::Drop,
        other => other,
    }
}

struct Replay<'a> {
    program: &'a Program,
    base: ChainId,
    /// The chain, and the next rule of it that can match.
    at: (ChainId, u32),
    /// Where jumps come back to.
    stack: Vec<(ChainId, u32)>,
    steps: Vec<Solved>,
    /// How the base chain was left.
    end: Option<SolvedVerdict>,
}

impl<'a> Replay<'a> {
    fn chain(&self, id: ChainId) -> Option<&'a ProgramChain> {
        self.program.chain(id)
    }

    fn step(&mut self, spot: Spot, verdict: SolvedVerdict) {
        let Spot { chain, index } = spot;
        let (index, provenance, placed) = (Some(index), Provenance::Exact, true);
        self.steps.push(Solved { chain, index, verdict, provenance, placed });
    }

    /// `None`: these rules do not allow it.
    fn meet(&mut self, met: &Match) -> Option<()> {
        let Match { spot, verdict } = *met;
        while self.at.0 != spot.chain || spot.index < self.at.1 {
            self.leave()?;
        }
        if self.end.is_some() {
            return None;
        }
        let rule = self.chain(spot.chain)?.rules.get(spot.index as usize)?;
        let outcomes = self.program.outcomes(rule);
        let verdict = match verdict {
            Some(SolvedVerdict::Drop) if outcomes.contains(&RuleOutcome::Reject) => {
                SolvedVerdict::Reject
            }
            Some(verdict) => verdict,
            None => only(outcomes)?,
        };
        self.step(spot, verdict);
        match verdict {
            SolvedVerdict::Continue => self.at = (spot.chain, spot.index + 1),
            SolvedVerdict::Jump(to) => {
                self.stack.push((spot.chain, spot.index + 1));
                self.at = (to, 0);
            }
            SolvedVerdict::Goto(to) => self.at = (to, 0),
            SolvedVerdict::Return => self.back()?,
            other => self.end = Some(other),
        }
        Some(())
    }

    /// Returns to the rule behind the jump, or to the policy.
    fn back(&mut self) -> Option<()> {
        let end = self.chain(self.base)?.end();
        self.at = self.stack.pop().unwrap_or((self.base, end));
        Some(())
    }

    /// Leaves a chain at its end; a base chain is left by its policy alone.
    fn leave(&mut self) -> Option<()> {
        let (id, _) = self.at;
        let chain = self.chain(id)?;
        if chain.base.is_some() || self.end.is_some() {
            return None;
        }
        self.step(Spot { chain: id, index: chain.end() }, SolvedVerdict::Return);
        self.back()
    }

    /// Comes to the end.
    fn finish(&mut self) -> Option<()> {
        while self.end.is_none() {
            let chain = self.chain(self.at.0)?;
            let Some((policy, _)) = chain.base else {
                self.leave()?;
                continue;
            };
            let verdict = match policy {
                Policy::Accept => SolvedVerdict::Accept,
                Policy::Drop => SolvedVerdict::Drop,
            };
            self.step(Spot { chain: self.at.0, index: chain.end() }, verdict);
            self.end = Some(verdict);
        }
        Some(())
    }

    fn ended_by_policy(&self) -> bool {
        let end = self.chain(self.base).map(ProgramChain::end);
        self.steps.last().is_some_and(|step| step.chain == self.base && step.index == end)
    }
}

/// The verdict of a rule that can give only one.
fn only(outcomes: &[RuleOutcome]) -> Option<SolvedVerdict> {
    match *outcomes {
        [outcome] => outcome.verdict(),
        _ => None,
    }
}
