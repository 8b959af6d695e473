//! The first rulesets, read before the user is told that packets are observed.

use std::sync::Arc;

use anyhow::Result;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Listed, RuleTracer};
use crate::{bpf::object::Programs, capture::Hurry, model::NetnsId, os::netns::Netns};

/// Attempts to list a ruleset that keeps changing, before the trace begins without it.
const ATTEMPTS: usize = 5;

impl RuleTracer {
    /// Begins to trace the present rules in all namespaces. Rulesets that take too long to list arrive later, by
    /// `listed`.
    ///
    /// # Errors This backend cannot trace rules.
    pub async fn start(
        &mut self,
        programs: &mut Programs,
        namespaces: &[Arc<Netns>],
        listed: &mut UnboundedReceiver<Listed>,
        hurry: &Hurry,
    ) -> Result<()> {
        hurry.begin();
        for (id, netns) in (0..).map(NetnsId).zip(namespaces) {
            self.add(programs, id, netns)?;
            for attempt in 1..=ATTEMPTS {
                if hurry.is_up() || self.namespaces.get(id)?.gone {
                    break;
                }
                let before = self.index(programs, id)?.fingerprint();
                self.list(id, before.clone())?;
                let Some(result) = self.wait_for(programs, id, listed, hurry).await else { break };
                self.namespaces.get(id)?.listing = None;
                match result {
                    Ok(ruleset) => {
                        if self.begin(programs, id, ruleset, &before)? || attempt == ATTEMPTS {
                            break;
                        }
                    }
                    Err(error) => {
                        self.fail(id, &error);
                        break;
                    }
                }
            }
        }
        self.wait_no_longer();
        self.starting = false;
        Ok(())
    }

    /// Ends the wait. The rulesets that are missing are read while packets are observed, which are not traced until
    /// then.
    pub fn wait_no_longer(&mut self) {
        for namespace in self.namespaces.all_mut().filter(|of| !of.gone) {
            if namespace.current.is_none() && namespace.failed.is_none() {
                let why = "the ruleset is still being read";
                log::warn!(
                    "namespace {}: {why}; rules are not traced until then",
                    namespace.netns.name
                );
                namespace.failed = Some(why.to_owned());
                self.tally.failed += 1;
            }
        }
    }

    /// Waits for the ruleset of one namespace; `None` if it takes too long.
    async fn wait_for(
        &mut self,
        programs: &mut Programs,
        id: NetnsId,
        listed: &mut UnboundedReceiver<Listed>,
        hurry: &Hurry,
    ) -> Option<Result<crate::firewall::Ruleset>> {
        loop {
            tokio::select! {
                Some(listed) = listed.recv() => {
                    if listed.netns == id {
                        return Some(listed.result);
                    }
                    self.on_listed(programs, listed);
                }
                () = hurry.up() => return None,
            }
        }
    }

    /// Whether the rules of all namespaces were read, or failed to be.
    pub fn have_been_read(&self) -> bool {
        self.namespaces
            .traced()
            .all(|(_, namespace)| namespace.current.is_some() || namespace.failed.is_some())
    }
}
