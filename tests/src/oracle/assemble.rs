//! From messages to packets: which messages are of one packet, and what they mean.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};

use super::listing::{Base, Listed, Listing};
use super::nflog;
use super::nftrace::{self, State, What};
use super::packet::{Heads, Print};
use super::step::{Backend, ChainName, Step, StepKind, Verdict};
use crate::rulesets::ORACLE_TABLE;
use crate::tracer::Tuple;

/// A packet and its way.
#[derive(Clone, Debug)]
pub struct Packet {
    /// As it was when its trace began: before any translation.
    pub tuple: Tuple,
    /// As it was on its way, translations included; the first is [`Packet::tuple`].
    pub tuples: Vec<Tuple>,
    /// As it came back, if the router sent it to itself.
    pub looped: Option<Tuple>,
    /// An ICMP error: its tuple says nothing of the flow that it belongs to.
    pub error: bool,
    /// Its headers of IP and above at that moment: all of the first, 20 bytes of the second.
    pub headers: (Vec<u8>, Vec<u8>),
    /// The index of its interface of input, if it has one.
    pub input: Option<u32>,
    /// Made by the router.
    pub local: bool,
    /// What conntrack thought of it, if a chain of the oracle's own table behind conntrack's hook tells.
    pub state: Option<State>,
    /// Base chains in the order in which it met them.
    pub runs: Vec<Run>,
}

/// The way through one base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The base chain.
    pub chain: ChainName,
    /// Where it hangs.
    pub base: Base,
    /// In order.
    pub steps: Vec<Step>,
    /// What conntrack thought of the packet at its beginning, if that is traced.
    pub state: Option<State>,
    /// The packet mark at the end, if that is traced.
    pub mark: Option<u32>,
}

impl Run {
    /// Whether it came to its end.
    fn ended(&self) -> bool {
        self.steps.last().is_some_and(|step| step.kind == StepKind::Policy || step.verdict.ends())
    }

    /// Whether it was the packet's end.
    #[must_use]
    pub fn drops(&self) -> bool {
        let last = self.steps.last().map(|step| &step.verdict);
        matches!(last, Some(Verdict::Drop | Verdict::Reject))
    }

    /// Before conntrack's own hook.
    #[must_use]
    pub fn early(&self) -> bool {
        self.base.early()
    }
}

/// What was traced.
#[derive(Clone, Debug, Default)]
pub struct Collection {
    /// Packets in the order in which their traces began.
    pub packets: Vec<Packet>,
    /// Messages of packets whose trace began before.
    pub strays: usize,
}

/// Puts messages together.
#[derive(Debug)]
pub(super) struct Assembly<'a> {
    listing: &'a Listing,
    collection: Collection,
    /// The packets that are under way, by nftrace's number and by what no translation changes.
    by_id: HashMap<u32, usize>,
    by_print: HashMap<Print, usize>,
}

impl<'a> Assembly<'a> {
    pub(super) fn new(listing: &'a Listing) -> Self {
        Self {
            listing,
            collection: Collection::default(),
            by_id: HashMap::new(),
            by_print: HashMap::new(),
        }
    }

    pub(super) fn finish(self) -> Collection {
        self.collection
    }

    /// Adds a message of nf_tables.
    pub(super) fn nft(&mut self, event: &nftrace::Event<'_>) -> Result<()> {
        if event.table == ORACLE_TABLE {
            self.begin(event);
            if let Some(index) = self.by_id.get(&event.id) {
                let packet = &mut self.collection.packets[*index];
                packet.state = packet.state.or(event.state);
            }
            return Ok(());
        }
        let Some(index) = self.by_id.get(&event.id) else {
            self.collection.strays += 1;
            return Ok(());
        };
        let packet = &mut self.collection.packets[*index];
        packet.is_now(event.heads);
        let chain = ChainName {
            backend: Backend::Nft,
            family: event.family.to_owned(),
            table: event.table.to_owned(),
            name: event.chain.to_owned(),
        };
        let listed = self.listing.chain(&chain).with_context(|| format!("{chain} is unknown"))?;
        if let Some(base) = listed.base {
            packet.enter(&chain, base, event.state);
        }
        let run = packet.runs.last_mut().context("a user chain outside of a base chain")?;
        run.mark = Some(event.mark);
        if let Some(step) = nft_step(chain, listed, &event.what)? {
            run.steps.push(step);
        }
        Ok(())
    }

    /// A packet's trace begins, at the one rule of our own chain.
    fn begin(&mut self, event: &nftrace::Event<'_>) {
        let (What::Rule { handle: Some(_), .. }, Some(heads)) = (&event.what, event.heads) else {
            return;
        };
        if event.looped
            && let Some(index) = self.by_print.get(&heads.print)
        {
            // Sent to itself: the packet goes on, but nftrace gives it another number.
            self.by_id.insert(event.id, *index);
            self.collection.packets[*index].looped = Some(heads.tuple);
            return;
        }
        let index = self.collection.packets.len();
        self.collection.packets.push(Packet {
            tuple: heads.tuple,
            tuples: vec![heads.tuple],
            looped: None,
            error: heads.error,
            headers: event
                .headers
                .map(|(network, transport)| (network.to_vec(), transport.to_vec()))
                .unwrap_or_default(),
            input: event.input,
            local: event.chain == "out",
            state: None,
            runs: Vec::new(),
        });
        self.by_id.insert(event.id, index);
        self.by_print.insert(heads.print, index);
    }

    /// Adds a message of ip_tables.
    pub(super) fn legacy(&mut self, event: &nflog::Event<'_>) -> Result<()> {
        let Some(index) = self.by_print.get(&event.heads.print) else {
            self.collection.strays += 1;
            return Ok(());
        };
        let packet = &mut self.collection.packets[*index];
        packet.is_now(Some(event.heads));
        let name = |name: &str| ChainName {
            backend: Backend::Legacy,
            family: event.family.to_owned(),
            table: event.table.to_owned(),
            name: name.to_owned(),
        };
        let chain = name(event.chain);
        let listed = self.listing.chain(&chain).with_context(|| format!("{chain} is unknown"))?;
        let base = name(&event.hook.name().to_uppercase());
        let hangs = self.listing.chain(&base).and_then(|listed| listed.base);
        packet.enter(&base, hangs.with_context(|| format!("{base} is no base chain"))?, None);
        let run = packet.runs.last_mut().context("just entered")?;
        let step = legacy_step(chain, listed, event.position)?;
        // Targets that go on may change the mark, and are traced before they do.
        run.mark = (step.kind != StepKind::Rule || step.verdict.ends()).then_some(event.mark);
        run.steps.push(step);
        Ok(())
    }
}

impl Packet {
    /// The headers at one place of the way.
    fn is_now(&mut self, heads: Option<Heads>) {
        if let Some(heads) = heads
            && !self.tuples.contains(&heads.tuple)
        {
            self.tuples.push(heads.tuple);
        }
    }

    /// A message of a base chain: the packet is in it already, or enters it.
    fn enter(&mut self, chain: &ChainName, base: Base, state: Option<State>) {
        let inside = self.runs.last().is_some_and(|run| run.chain == *chain && !run.ended());
        if !inside {
            let (chain, steps) = (chain.clone(), Vec::new());
            self.runs.push(Run { chain, base, steps, state, mark: None });
        }
    }
}

fn nft_step(chain: ChainName, listed: &Listed, what: &What) -> Result<Option<Step>> {
    let end = |chain, kind, verdict| {
        let position = listed.end();
        Ok(Some(Step { chain, kind, position, handle: None, verdict }))
    };
    match what {
        What::Policy(verdict) => end(chain, StepKind::Policy, verdict.clone()),
        // The end of a base chain is followed by its policy, and says nothing more.
        What::Rule { handle: None, .. } if listed.base.is_some() => Ok(None),
        What::Rule { handle: None, .. } => end(chain, StepKind::Return, Verdict::Return),
        What::Rule { handle: Some(handle), verdict } => {
            let Some(position) = listed.position(*handle) else {
                bail!("handle {handle} of {chain} is unknown");
            };
            let rejects = listed.at(position).is_some_and(|rule| rule.verdict.is_some());
            let verdict = match verdict {
                // To the trace it is a drop.
                Verdict::Drop if rejects => Verdict::Reject,
                other => other.clone(),
            };
            let (kind, handle) = (StepKind::Rule, Some(*handle));
            Ok(Some(Step { chain, kind, position, handle, verdict }))
        }
    }
}

fn legacy_step(chain: ChainName, listed: &Listed, position: u32) -> Result<Step> {
    ensure!(position <= listed.end(), "{chain} has no position {position}");
    let rule = listed.at(position).and_then(|rule| rule.verdict.clone());
    let (kind, verdict) = match (rule, listed.base) {
        (Some(verdict), _) => (StepKind::Rule, verdict),
        // What the policy is, the trace does not say.
        (None, Some(base)) if base.drops => (StepKind::Policy, Verdict::Drop),
        (None, Some(_)) => (StepKind::Policy, Verdict::Accept),
        (None, None) => (StepKind::Return, Verdict::Return),
    };
    Ok(Step { chain, kind, position, handle: None, verdict })
}
