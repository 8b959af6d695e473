//! The sources that see packets, `links` and `probes`: records of the BPF programs, and the counts they
//! keep. Which of the two it is matters only where programs are attached.

mod attach;
mod take;

use std::{collections::HashMap, sync::Arc};

use anyhow::{Context, Result, anyhow};
use conntracker_common::{counters::Counter, plan::MAX_NAMESPACES, seen::REPORT_FOLDED};
use tokio::sync::mpsc;

use self::{
    attach::{Attached, RulesWanted},
    take::{allows, take, take_end, take_path},
};
use super::{
    Hurry, Intake, drain_all,
    kernel::Kernel,
    owners::Owners,
    statistics,
    tracing::{Listed, RuleChanges, RuleOptions, RuleTracer},
};
use crate::{
    bpf::{
        activity::Activity,
        counts::Counters,
        end,
        index::{self, layout::IndexLayout},
        links::Links,
        object::Programs,
        path,
        probes::{Method, Probes},
        reasons::Reasons,
        ring::RecordRing,
        sizes::Sizes,
        symbols::Symbols,
    },
    model::{NetnsId, event::EventKind},
    os::netns::Netns,
    recording::statement,
};

/// Lost records of which a dump of conntrack's table makes up: it shows the flows that began or were answered, and not
/// those that ended. Of dropped packets and of paths it shows nothing.
const MENDED_BY_DUMP: [Counter; 3] = [Counter::NewLost, Counter::ReplyLost, Counter::EndLost];

/// How programs see packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PacketBackend {
    /// By netfilter links in each namespace.
    Links,
    /// By probes in functions of the kernel.
    Probes(Method),
}

/// Attached programs and their ring.
pub(crate) struct PacketsSource {
    programs: Programs,
    ring: RecordRing,
    netns_by_cookie: HashMap<u64, NetnsId>,
    owners: Owners,
    /// Names of what dropped packets.
    reasons: Reasons,
    /// What tells conntrack's hook functions, or why nothing does.
    symbols: Result<Symbols>,
    layout: IndexLayout,
    /// Traces rules, if they are wanted.
    rules: Option<RuleTracer>,
    /// Why not, if they were wanted.
    without_rules: Option<String>,
    /// Why ends of flows are not seen; `None` if they are.
    without_ends: Option<String>,
    /// Why new flows are seen without their hook; `None` if they are seen with it.
    without_hooks: Option<String>,
    changes: Option<RuleChanges>,
    /// Rulesets that were listed.
    listed: mpsc::UnboundedReceiver<Listed>,
    /// Keys of dropped packets that had been counted when the counts were taken last, and how many more there
    /// may be before they are taken again.
    drop_keys_taken: u64,
    drop_keys_at_most: u64,
    /// Held only to keep the programs attached.
    links: HashMap<NetnsId, Links>,
    /// Those that flows need.
    probes: Option<Probes>,
}

/// How flows are observed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlowOptions {
    /// Sizes of the kernel side.
    pub sizes: Sizes,
    /// Flows fold as they are seen.
    pub fold: bool,
    /// Packets are told that get lost elsewhere than in netfilter, too.
    pub lost: bool,
}

fn cookie(netns: &Netns) -> Result<u64> {
    netns.cookie.with_context(|| {
        format!("namespace `{}` has no cookie (SO_NETNS_COOKIE needs Linux 5.14)", netns.name)
    })
}

impl PacketsSource {
    /// Starts. If rules cannot be traced, flows are observed all the same.
    pub async fn start(
        kernel: &Kernel,
        eyes: PacketBackend,
        flows: FlowOptions,
        rules: Option<RuleOptions>,
        namespaces: &[Arc<Netns>],
        hurry: &Hurry,
    ) -> Result<Self> {
        let FlowOptions { sizes, .. } = flows;
        let reasons = kernel.reasons();
        let lost = flows.lost.then_some(&reasons);
        let (sender, mut listed) = mpsc::unbounded_channel();
        let attach = async |rules: Option<RulesWanted<'_>>| {
            Attached::new(kernel, eyes, flows, lost, namespaces, rules).await
        };
        // Before the rules are read: no change is missed.
        let mut changes = rules.map(|_| RuleChanges::subscribe(namespaces)).transpose()?;
        let wanted =
            rules.map(|options| RulesWanted { options, sender, listed: &mut listed, hurry });
        let (attached, without_rules) = match (rules, attach(wanted).await) {
            (Some(_), Err(error)) => {
                // Its links are gone by now. What keeps flows from being seen fails again.
                changes = None;
                (attach(None).await?, Some(format!("{error:#}")))
            }
            (_, attached) => (attached?, None),
        };
        let Attached { mut programs, links, probes, rules, without_ends, without_hooks } = attached;
        let ring = RecordRing::new(programs.take_ring()?, sizes.ring_bytes)
            .context("cannot watch the ring buffer")?;
        let netns_by_cookie = (0..)
            .map(NetnsId)
            .zip(namespaces)
            .map(|(id, netns)| Ok((cookie(netns)?, id)))
            .collect::<Result<_>>()?;
        Ok(Self {
            programs,
            ring,
            netns_by_cookie,
            owners: Owners::new(),
            reasons,
            symbols: kernel.symbols(),
            layout: kernel.layout.index.clone(),
            rules,
            without_rules,
            without_ends,
            without_hooks,
            changes,
            listed,
            drop_keys_taken: 0,
            drop_keys_at_most: u64::from(sizes.drop_entries) / 4,
            links: (0..).map(NetnsId).zip(links).collect(),
            probes,
        })
    }

    /// Why rules are not traced although they should be.
    pub fn without_rules(&self) -> Option<&str> {
        self.without_rules.as_deref()
    }

    /// Why ends of flows are not seen; `None` if they are.
    pub fn without_ends(&self) -> Option<&str> {
        self.without_ends.as_deref()
    }

    /// Why hooks, interfaces and replies of new flows are not seen; `None` if they are.
    pub fn without_hooks(&self) -> Option<&str> {
        self.without_hooks.as_deref()
    }

    /// Runs of probes that the kernel left out; `None` with links.
    pub fn missed(&self) -> Result<Option<u64>> {
        let Some(flows) = &self.probes else { return Ok(None) };
        let rules = self.rules.as_ref().map_or(Ok(0), RuleTracer::missed)?;
        Ok(Some(flows.missed()? + rules))
    }

    /// Reads the rules of namespaces that were added, until that has taken long enough: the rest is read meanwhile.
    pub async fn read_rules(&mut self, hurry: &Hurry) -> Result<()> {
        let Self { programs, rules: Some(rules), listed, .. } = self else { return Ok(()) };
        hurry.begin();
        loop {
            rules.poll(programs, true);
            if rules.have_been_read() {
                return Ok(());
            }
            tokio::select! {
                Some(listed) = listed.recv() => rules.on_listed(programs, listed),
                () = hurry.up() => {
                    rules.wait_no_longer();
                    return Ok(());
                }
            }
        }
    }

    /// Nothing is to be known any more of a namespace that is gone.
    pub fn forget_all_of(&mut self, id: NetnsId) {
        self.netns_by_cookie.retain(|_, of| *of != id);
        if let Some(rules) = &mut self.rules {
            rules.forget_all_of(id);
        }
    }

    /// Observes one more namespace.
    pub fn observe(&mut self, id: NetnsId, netns: &Arc<Netns>) -> Result<()> {
        let Self { programs, rules, changes, links, netns_by_cookie, .. } = self;
        let cookie = cookie(netns)?;
        if let Some(program) = programs.flow_end() {
            links.insert(id, Links::attach(program, netns)?);
        }
        let number = match (rules, changes) {
            (Some(rules), Some(changes)) => {
                changes.add(id, netns)?;
                rules.add(programs, id, netns)?
            }
            _ => MAX_NAMESPACES,
        };
        netns_by_cookie.insert(cookie, id);
        let stats = statistics::of(netns);
        programs.trace_netns(cookie, number, &stats).context("too many namespaces")
    }

    /// A namespace is gone. What its packets have left in the ring is still taken.
    pub fn forget(&mut self, id: NetnsId, netns: &Netns) -> Result<()> {
        let Self { programs, rules, changes, links, .. } = self;
        links.remove(&id);
        if let (Some(rules), Some(changes)) = (rules, changes) {
            changes.remove(id);
            rules.forget(programs, id)?;
        }
        programs.forget_netns(cookie(netns)?)
    }

    /// Who has the sockets at the ends of flows.
    pub fn owners(&mut self) -> &mut Owners {
        &mut self.owners
    }

    /// From now on a folded key has one record and then a count.
    pub fn fold_from_now_on(&mut self) -> Result<()> {
        self.programs.report(REPORT_FOLDED, true)
    }

    /// Waits until there is something to drain, or a ruleset was listed.
    pub async fn ready(&mut self) -> Result<()> {
        let Self { ring, listed, rules, changes, programs, .. } = self;
        let (Some(rules), Some(changes)) = (rules, changes) else {
            return Ok(ring.ready().await?);
        };
        tokio::select! {
            ready = ring.ready() => Ok(ready?),
            Some(listed) = listed.recv() => {
                rules.on_listed(programs, listed);
                Ok(())
            }
            changed = changes.changed() => {
                changed?;
                rules.poll(programs, true);
                Ok(())
            }
        }
    }

    /// Looks whether the rules have changed.
    pub fn watch_rules(&mut self) {
        if let Some(rules) = &mut self.rules {
            rules.poll(&mut self.programs, false);
        }
    }

    /// The tracer of rules.
    pub fn rules(&self) -> Option<&RuleTracer> {
        self.rules.as_ref()
    }

    /// Rulesets of epochs that have begun since the last call, if they are recorded.
    pub fn take_rulesets(&mut self) -> Vec<statement::Ruleset> {
        self.rules.as_mut().map(RuleTracer::take_unrecorded).unwrap_or_default()
    }

    /// Takes a batch of records; true if there may be more.
    pub fn drain(&mut self, intake: &mut Intake<'_>) -> bool {
        #[cfg(feature = "bpf-log")]
        self.programs.print_log();
        let Self { ring, netns_by_cookie, rules, owners, reasons, .. } = self;
        owners.poll();
        if owners.are_many() {
            owners.keep(intake.table.processes());
        }
        ring.drain(|bytes| match rules {
            Some(rules) if path::is_path(bytes) => take_path(bytes, netns_by_cookie, rules, intake),
            _ if end::is_end(bytes) => take_end(bytes, netns_by_cookie, intake),
            _ => take(bytes, netns_by_cookie, (owners, reasons), intake),
        })
    }

    /// Takes the kernel's counts of flows that have changed.
    pub fn take_flow_counts(&self, intake: &mut Intake<'_>) -> Result<()> {
        for seen in self.programs.seen()? {
            let netns = self.netns_by_cookie.get(&seen.netns_cookie);
            if let Some(&netns) =
                netns.filter(|_| intake.filter.allows_tuple(&seen.orig, seen.zone))
                && !intake.table.has_count(netns, &seen.flows())
            {
                intake.event(netns, seen.last_ns, EventKind::Counted(seen.flows()));
            }
        }
        Ok(())
    }

    /// Takes the kernel's counts of dropped packets, if a map of them is getting full or `all` are wanted.
    pub fn take_drops(&mut self, intake: &mut Intake<'_>, all: bool) -> Result<()> {
        let counters = self.counters()?;
        let keys = counters.get(Counter::DropKeys);
        if !all && keys - self.drop_keys_taken < self.drop_keys_at_most {
            return Ok(());
        }
        let packets = (counters.get(Counter::DropPackets), counters.get(Counter::LostPackets));
        if packets == (intake.tally.drop_packets, intake.tally.lost_packets) {
            return Ok(());
        }
        self.drop_keys_taken = keys;
        (intake.tally.drop_packets, intake.tally.lost_packets) = packets;
        // What is not taken is said to be missing: `drops_uncounted`.
        let taken = self.programs.take_drops().unwrap_or_else(|error| {
            log::error!("{error:#}");
            Vec::new()
        });
        // What dropped them is told by records that came before.
        drain_all(|| Ok(self.drain(intake)))?;
        for drops in taken {
            let Some(&netns) = self.netns_by_cookie.get(&drops.netns_cookie) else { continue };
            if allows(intake.filter, &drops.orig, drops.zone, !drops.from_headers) {
                let Some(cause) = self.reasons.cause(drops.cause) else {
                    intake.tally.not_lost += drops.packets;
                    continue;
                };
                let number = |index| intake.interfaces.number(netns, index);
                let event = drops.event(cause, number);
                intake.event(netns, drops.seen_ns.1, event);
            }
        }
        let now = intake.clock.since_boot();
        intake.event(NetnsId::default(), now, EventKind::DropCountsTaken);
        Ok(())
    }

    /// Whether conntrack is active in a namespace.
    pub fn activity(&mut self, netns: &Netns) -> Result<Activity> {
        let symbols = self.symbols.as_mut().map_err(|error| anyhow!("{error:#}"))?;
        let net = self.programs.kernel_memory().net(netns)?;
        Ok(Activity::of(&index::hooks_of(
            self.programs.kernel_memory(),
            &self.layout,
            symbols,
            net,
        )?))
    }

    pub fn counters(&self) -> Result<Counters> {
        self.programs.counters()
    }

    /// Records that found the ring full.
    pub fn lost(&self) -> Result<u64> {
        let counters = self.counters()?;
        let others = [Counter::DropLost, Counter::LostUnsent, Counter::PathLost];
        let all = MENDED_BY_DUMP.into_iter().chain(others);
        Ok(all.map(|counter| counters.get(counter)).sum())
    }

    /// Those of them that a dump mends.
    pub fn lost_flows(&self) -> Result<u64> {
        let counters = self.counters()?;
        Ok(MENDED_BY_DUMP.into_iter().map(|counter| counters.get(counter)).sum())
    }
}
