//! The steps of a path, each with the chains that it is in: a jump leads into a chain, a return out of it.

use crate::model::path::{Site, SiteKind, Step, Verdict};

/// A step in its chain.
#[derive(Debug)]
pub(in crate::report) struct Row<'a> {
    pub step: &'a Step,
    /// Chains around the step's own: 0 in a base chain.
    pub depth: usize,
    /// A step of the outermost chain.
    pub base: &'a Site,
}

/// A row for each of these steps, which stand in the order of evaluation.
pub(super) fn rows<'a>(steps: impl Iterator<Item = &'a Step>) -> Vec<Row<'a>> {
    let mut chains = Chains::default();
    steps
        .map(|step| {
            let base = chains.enter(&step.site);
            let depth = chains.entered.len().saturating_sub(1);
            chains.leave(step);
            Row { step, depth, base }
        })
        .collect()
}

/// Whether two sites are in one chain.
pub(super) fn same_chain(a: &Site, b: &Site) -> bool {
    same_table(a, b) && a.chain == b.chain
}

fn same_table(a: &Site, b: &Site) -> bool {
    (a.backend, a.family, &a.table) == (b.backend, b.family, &b.table)
}

/// The chains that a packet is in.
#[derive(Default)]
struct Chains<'a> {
    entered: Vec<Entered<'a>>,
    /// The verdict of the last step, if it leads to a chain.
    leads: Option<&'a Verdict>,
    /// The last step left the outermost chain, or may have.
    left: bool,
}

struct Entered<'a> {
    /// A step in the chain.
    site: &'a Site,
    /// The chain before does not go on when this one is left.
    by_goto: bool,
}

impl<'a> Chains<'a> {
    /// Finds the chain of the next step, and returns a step of its base chain. Not every jump is a step that is known:
    /// rules without counters may be missing.
    fn enter(&mut self, site: &'a Site) -> &'a Site {
        let leads = self.leads.take();
        let within = self.entered.last().is_some_and(|last| same_table(last.site, site));
        let led = leads.and_then(Verdict::target) == Some(site.chain.as_str());
        let is_base = matches!(site.kind, SiteKind::Policy | SiteKind::Chain);
        let entered = || self.entered.iter().rposition(|chain| same_chain(chain.site, site));
        let by_goto = matches!(leads, Some(Verdict::Goto(_)));
        if within && led {
            self.entered.push(Entered { site, by_goto });
        } else if let Some(at) = entered() {
            self.entered.truncate(at + 1);
        } else {
            if !within || is_base || self.left {
                self.entered.clear();
            }
            self.entered.push(Entered { site, by_goto: false });
        }
        self.left = false;
        self.entered.first().map_or(site, |base| base.site)
    }

    /// Goes on as the verdict says.
    fn leave(&mut self, step: &'a Step) {
        match &step.verdict {
            leads @ (Verdict::Jump(_) | Verdict::Goto(_)) => self.leads = Some(leads),
            Verdict::Return => {
                self.left = self.entered.len() <= 1;
                while self.entered.len() > 1 {
                    let left = self.entered.pop();
                    if left.is_none_or(|left| !left.by_goto) {
                        break;
                    }
                }
            }
            Verdict::Continue | Verdict::Unknown => {}
            // The next step is of another base chain.
            _ => self.entered.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::{path::Provenance::Exact, table::Family},
        report::fixtures::{nft, step},
    };

    /// Depths of steps `chain kind verdict`, as text.
    fn depths(steps: &[(&str, SiteKind, Verdict)]) -> Vec<usize> {
        let steps: Vec<Step> = steps
            .iter()
            .map(|(chain, kind, verdict)| {
                let (table, chain) = chain.split_once('/').unwrap_or(("fw", chain));
                step(nft(Family::Inet, table, chain, *kind, 1), verdict.clone(), Exact)
            })
            .collect();
        rows(steps.iter()).iter().map(|row| row.depth).collect()
    }

    fn jump(chain: &str) -> Verdict {
        Verdict::Jump(chain.to_owned())
    }

    fn goto(chain: &str) -> Verdict {
        Verdict::Goto(chain.to_owned())
    }

    #[test]
    fn jumps_lead_in_and_returns_lead_out() {
        use SiteKind::{Policy, Return, Rule};
        let steps = [
            ("forward", Rule, Verdict::Continue),
            ("forward", Rule, jump("a")),
            ("a", Rule, jump("b")),
            ("b", Return, Verdict::Return),
            ("a", Rule, jump("b")),
            ("b", Rule, Verdict::Return),
            ("a", Return, Verdict::Return),
            ("forward", Rule, jump("b")),
            ("b", Rule, Verdict::Continue),
            ("forward", Policy, Verdict::Accept),
            ("nat/forward", Policy, Verdict::Accept),
        ];
        assert_eq!(depths(&steps), [0, 0, 1, 2, 1, 2, 1, 0, 1, 0, 0]);
    }

    #[test]
    fn a_return_from_a_chain_behind_a_goto_leads_to_the_last_jump() {
        use SiteKind::{Policy, Return, Rule};
        let steps = [
            ("forward", Rule, jump("a")),
            ("a", Rule, goto("b")),
            ("b", Rule, goto("c")),
            ("c", Return, Verdict::Return),
            // The jump to it is not known, but it is not from a.
            ("d", Rule, Verdict::Continue),
            ("forward", Rule, goto("a")),
            ("a", Return, Verdict::Return),
            ("forward", Policy, Verdict::Accept),
        ];
        assert_eq!(depths(&steps), [0, 1, 2, 3, 1, 0, 1, 0]);
    }

    #[test]
    fn what_ends_a_base_chain_in_a_sub_chain_leads_to_the_next_base_chain() {
        use SiteKind::{Policy, Rule};
        let steps = [
            ("early", Rule, jump("a")),
            ("a", Rule, Verdict::Accept),
            ("late", Rule, jump("a")),
            ("a", Rule, Verdict::Accept),
            ("nat/late", Policy, Verdict::Accept),
        ];
        assert_eq!(depths(&steps), [0, 1, 0, 1, 0]);
    }

    #[test]
    fn a_jump_that_is_not_known_still_leads_in() {
        use SiteKind::{Chain, Policy, Return, Rule};
        let steps = [
            ("forward", Rule, Verdict::Continue),
            ("a", Rule, Verdict::Continue),
            ("forward", Policy, Verdict::Accept),
        ];
        assert_eq!(depths(&steps), [0, 1, 0]);
        // The base chain comes after the user chain that it jumped to.
        let steps = [("a", Return, Verdict::Return), ("forward", Rule, Verdict::Continue)];
        assert_eq!(depths(&steps), [0, 0]);
        let steps = [
            ("forward", Rule, Verdict::Unknown),
            ("other", Chain, Verdict::Accept),
            ("other", Rule, Verdict::Accept),
        ];
        assert_eq!(depths(&steps), [0, 0, 0]);
    }

    /// Evaluates rules of a chain by chance, and notes each step with its depth. Returns whether the packet goes on.
    fn evaluate(
        chain: &str,
        depth: usize,
        choices: &mut impl Iterator<Item = u8>,
        steps: &mut Vec<(Step, usize)>,
    ) -> bool {
        let of = |kind, verdict: &Verdict| {
            step(nft(Family::Inet, "fw", chain, kind, 1), verdict.clone(), Exact)
        };
        let mut left = false;
        while !left && let Some(choice) = choices.next() {
            // No chain has the name of another one, nor is entered twice.
            let name = format!("{chain}.{}", steps.len());
            let verdict = match choice % 8 {
                0 | 1 => jump(&name),
                2 => goto(&name),
                3 => Verdict::Return,
                4 => Verdict::Accept,
                _ => Verdict::Continue,
            };
            steps.push((of(SiteKind::Rule, &verdict), depth));
            let led = verdict.target().is_some();
            if verdict == Verdict::Accept || (led && !evaluate(&name, depth + 1, choices, steps)) {
                return false;
            }
            left = matches!(verdict, Verdict::Return | Verdict::Goto(_));
        }
        if depth == 0 {
            steps.push((of(SiteKind::Policy, &Verdict::Accept), 0));
            return false;
        }
        // What a rule has left, the end of the chain does not leave.
        if !left {
            steps.push((of(SiteKind::Return, &Verdict::Return), depth));
        }
        true
    }

    proptest! {
        #[test]
        fn each_step_is_as_deep_as_its_evaluation(choices in prop::collection::vec(0..8_u8, 0..60)) {
            let mut choices = choices.into_iter();
            let mut steps = Vec::new();
            for base in ["first", "second", "third"] {
                evaluate(base, 0, &mut choices, &mut steps);
            }
            let (steps, depths): (Vec<Step>, Vec<usize>) = steps.into_iter().unzip();
            let found: Vec<usize> = rows(steps.iter()).iter().map(|row| row.depth).collect();
            prop_assert_eq!(found, depths, "{:#?}", steps);
        }
    }
}
