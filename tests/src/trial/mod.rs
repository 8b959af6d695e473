//! One lab in which rulesets follow each other, each with a burst of packets; and what the tracer
//! claims of them, compared with what the kernel itself says.

mod claim;
pub mod compare;
pub mod surroundings;
pub mod tally;

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use crate::burst::{self, Planned, Services};
use crate::lab::{Host, Lab};
use crate::oracle::{Collection, Listing, Oracle, Step};
use crate::rulesets::{Kind, Ruleset, features};
use crate::tracer::{self, Tracer};

/// Nothing was traced for so long: all packets are through.
const QUIET: Duration = Duration::from_millis(15);

/// What the tracer says when it knows a ruleset, and when that has changed, if it is asked for details.
const EPOCH: &str = "begins";
const CHANGED: &str = "rules have changed";

/// How long it may take for that. It listens for changes of nf_tables and looks every 50 ms for those
/// of ip_tables, of which a ruleset is several. Where CPUs are emulated, attaching probes takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);
const UNCHANGED: Duration = Duration::from_millis(120);
const POLL: Duration = Duration::from_millis(5);

/// Starts a trace whose rulesets can be waited for.
pub fn trace(host: &Host) -> Result<Tracer> {
    let args = ["trace", "--netns", &host.name, "-o", "-", "--no-fold", "--format", "json"];
    let mut command = tracer::command(args)?;
    command.env("CONNTRACKER_LOG", "debug");
    Tracer::spawn(command)
}

/// How many rulesets a tracer knows or has known, and whether the last one is still right.
fn epochs(tracer: &mut Tracer) -> (usize, bool) {
    let (mut epochs, mut current) = (0, false);
    for line in tracer.process().stderr().lines() {
        let begins = line.ends_with(EPOCH);
        if begins || line.ends_with(CHANGED) {
            epochs += usize::from(begins);
            current = begins;
        }
    }
    (epochs, current)
}

/// Waits until a tracer knows another ruleset than that of before, and the last one for now.
fn settle(tracer: &mut Tracer, before: usize) {
    let start = Instant::now();
    let (mut last, mut since) = ((before, true), None);
    let unchanged = |since: Option<Instant>| since.is_some_and(|at| at.elapsed() >= UNCHANGED);
    while start.elapsed() < PATIENCE && !(last.1 && unchanged(since)) {
        let now = epochs(tracer);
        if now != last {
            (last, since) = (now, Some(Instant::now()));
        }
        thread::sleep(POLL);
    }
}

/// A lab with servers, and an oracle on its router.
pub struct Bench {
    /// The lab.
    pub lab: Lab,
    _services: Services,
    oracle: Oracle,
}

/// What became of one ruleset.
pub struct Trial {
    /// What was loaded.
    pub ruleset: Ruleset,
    /// Flows that were begun.
    pub flows: Vec<Planned>,
    /// Since when the kernel's traces are in `traced`. What the router said of itself before is not.
    pub since: SystemTime,
    /// What the kernel said of them.
    pub traced: Collection,
    /// Rules as they were listed.
    pub listing: Listing,
}

impl Trial {
    /// Features of the rule that a step met.
    #[must_use]
    pub fn features(&self, step: &Step) -> Vec<&'static str> {
        let Step { chain, position, .. } = step;
        let rule = self.ruleset.rule(&chain.family, &chain.table, &chain.name, *position);
        rule.map(|rule| features(rule).collect()).unwrap_or_default()
    }
}

impl Bench {
    /// A lab, its servers and an oracle.
    pub fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let services = Services::start(&lab)?;
        let oracle = Oracle::start(&lab.router)?;
        Ok(Self { lab, _services: services, oracle })
    }

    /// Loads a ruleset, waits until the tracer, if there is one, knows it, sends a burst, and collects
    /// its traces.
    pub fn try_ruleset(&mut self, ruleset: Ruleset, tracer: Option<&mut Tracer>) -> Result<Trial> {
        let flows = burst::flows(&self.lab, ruleset.number);
        self.try_flows(ruleset, flows, tracer)
    }

    /// As [`Bench::try_ruleset`], with these flows.
    pub fn try_flows(
        &mut self,
        ruleset: Ruleset,
        flows: Vec<Planned>,
        tracer: Option<&mut Tracer>,
    ) -> Result<Trial> {
        self.try_loaded(ruleset, flows, tracer, |ruleset, lab| ruleset.load(&lab.router))
    }

    /// As [`Bench::try_flows`], with another way to load the ruleset.
    pub fn try_loaded(
        &mut self,
        ruleset: Ruleset,
        flows: Vec<Planned>,
        tracer: Option<&mut Tracer>,
        load: impl FnOnce(&Ruleset, &Lab) -> Result<()>,
    ) -> Result<Trial> {
        load(&ruleset, &self.lab)?;
        let mut tracer = tracer.map(|tracer| (epochs(tracer).0, tracer));
        let listing = self.listing(&ruleset)?;
        if let Some((before, tracer)) = &mut tracer {
            settle(tracer, *before);
        }
        // What the router said of itself meanwhile may have met the ruleset before.
        self.oracle.forget()?;
        let since = SystemTime::now();
        let traced = self.burst(&flows, &listing).with_context(|| ruleset.to_string())?;
        Ok(Trial { ruleset, flows, since, traced, listing })
    }

    /// Sends a burst to its end.
    fn burst(&mut self, flows: &[Planned], listing: &Listing) -> Result<Collection> {
        let open = burst::send(&self.lab, flows)?;
        let mut traced = self.oracle.collect(listing, QUIET)?;
        // Resets of connections are packets too, and may not come in the time of the next ruleset.
        drop(open);
        let late = self.oracle.collect(listing, QUIET)?;
        traced.packets.extend(late.packets);
        traced.strays += late.strays;
        Ok(traced)
    }

    /// What is loaded. Of ip_tables it is what was given to it: there are no handles.
    fn listing(&self, ruleset: &Ruleset) -> Result<Listing> {
        let mut listing = Listing::default();
        listing.add_nft(&self.lab.router)?;
        if ruleset.kind == Kind::IptablesLegacy {
            for (program, text) in &ruleset.loads {
                match *program {
                    "iptables-legacy-restore" => listing.add_legacy("ip", text)?,
                    "ip6tables-legacy-restore" => listing.add_legacy("ip6", text)?,
                    _ => {}
                }
            }
        }
        Ok(listing)
    }
}
