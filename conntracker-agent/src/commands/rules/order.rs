//! `conntracker rules order`: an order in which fewer rules are evaluated, compared with the present one.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::{
    Format,
    listed::{Listed, RuleObject, named},
    origin::{Loaded, Origin},
};
use crate::{
    firewall::analyse::{
        difference::{Comparison, boundaries},
        order::{ChainOrder, Move, order, reordered},
        reading::RuleAt,
    },
    model::{harmless, path::Site},
    os::{messages, output::Destination},
};

/// Name and version of the format.
const SCHEMA: &str = "conntracker-rules-order/1";

/// What to look at.
pub struct RuleOrder {
    /// Where the rules come from.
    pub origin: Origin,
    /// Only this table, or only this chain of it.
    pub only: Option<String>,
    /// Packets by which the new order is compared, at most.
    pub packets: usize,
    /// Format.
    pub format: Format,
}

/// Writes the moves, with what they save.
///
/// # Errors
/// The rules cannot be read; there is no such table or chain; a packet is treated otherwise in the new order.
pub fn run(asked: &RuleOrder) -> Result<ExitCode> {
    messages::to_stderr();
    let loaded = asked.origin.load()?;
    let Loaded { rules, firewall, routes, .. } = &loaded;
    let only = asked.only.as_deref();
    let listed = Listed::new(rules, firewall, only)
        .with_context(|| format!("no table or chain `{}`", only.unwrap_or_default()))?;
    let counter = |at: RuleAt| listed.rule(at).and_then(super::unused::counted);
    let orders = order(firewall, &counter);
    let mut proof = Comparison::default();
    let after = reordered(rules, &orders);
    boundaries([firewall, &after], [routes, routes], asked.packets, &mut proof);
    if let Some(difference) = proof.differences.first() {
        bail!(
            "no order is proposed, because packets would be treated otherwise: {}",
            super::packet::PacketObject::of(&difference.packet).text()
        );
    }
    let answer = Answer { loaded: &loaded, listed: &listed, orders: &orders, proof: &proof };
    Destination::Stdout.write(|out| match asked.format {
        Format::Text => answer.text(out),
        Format::Json => answer.json(out),
    })?;
    Ok(ExitCode::SUCCESS)
}

struct Answer<'a> {
    loaded: &'a Loaded,
    listed: &'a Listed<'a>,
    orders: &'a [ChainOrder],
    proof: &'a Comparison,
}

/// Rules for each packet, before and after.
fn per_packet(order: &ChainOrder) -> [f64; 2] {
    let packets = order.packets.max(1) as f64;
    order.evaluations.map(|evaluations| evaluations as f64 / packets)
}

impl Answer<'_> {
    /// The rule that moves, and the one before which it goes.
    fn sites(&self, order: &ChainOrder, Move { rule, before }: Move) -> Option<[Site; 2]> {
        let site = |index| self.listed.site((order.chain, index));
        Some([site(rule)?, site(before)?])
    }

    fn limits(&self) -> String {
        let Comparison { packets, undecided, .. } = self.proof;
        format!(
            "counters until now; packets that left a chain at a rule with a counter; rules without a counter, with limits, \
             jumps or changes stay, and no rule passes them. Compared by {packets} packets at and beside the constants of \
             the rules, {undecided} of them undecided in the same manner: none is treated otherwise"
        )
    }

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for order in self.orders {
            let [before, after] = per_packet(order);
            let name = order.moves.first().and_then(|first| self.sites(order, *first));
            let Some([site, _]) = name else { continue };
            writeln!(
                out,
                "{}/{}: {before:.2} rules for each packet, {after:.2} after the moves ({} packets)",
                harmless::OneLine(&site.label()),
                harmless::OneLine(&site.chain),
                order.packets
            )?;
            for of in &order.moves {
                if let Some([rule, before]) = self.sites(order, *of) {
                    writeln!(out, "  move {}", named(&rule))?;
                    writeln!(out, "    before {}", named(&before))?;
                }
            }
        }
        writeln!(out, "# rules of {}", harmless::OneLine(&self.loaded.name))?;
        writeln!(out, "# chains with a better order: {}", self.orders.len())?;
        writeln!(out, "# limits: {}", self.limits())?;
        let mut notes = self.loaded.notes.iter();
        notes.try_for_each(|note| writeln!(out, "# note: {}", harmless::one_line(note)))
    }

    fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        let sites: Vec<Vec<[Site; 2]>> = self
            .orders
            .iter()
            .map(|order| order.moves.iter().filter_map(|of| self.sites(order, *of)).collect())
            .collect();
        let chains = self.orders.iter().zip(&sites).filter_map(|(order, sites)| {
            let [first, _] = sites.first()?;
            Some(ChainObject {
                table: first.label().into_owned(),
                chain: &first.chain,
                packets: order.packets,
                evaluations: order.evaluations,
                per_packet: per_packet(order),
                order: order.order.iter().map(|index| index + 1).collect(),
                moves: sites
                    .iter()
                    .map(|[rule, before]| MoveObject {
                        rule: RuleObject::of(rule),
                        before: RuleObject::of(before),
                    })
                    .collect(),
            })
        });
        let document = Document {
            schema: SCHEMA,
            origin: &self.loaded.name,
            chains: chains.collect(),
            compared: self.proof.packets,
            different: self.proof.different,
            undecided: self.proof.undecided,
            limits: self.limits(),
            notes: &self.loaded.notes,
        };
        harmless::json(&mut *out, &document)?;
        out.write_all(b"\n")
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    origin: &'a str,
    chains: Vec<ChainObject<'a>>,
    compared: usize,
    different: usize,
    undecided: usize,
    limits: String,
    notes: &'a [String],
}

#[derive(Serialize)]
struct ChainObject<'a> {
    table: String,
    chain: &'a str,
    packets: u128,
    /// Rules that were evaluated for these packets, and in the new order.
    evaluations: [u128; 2],
    per_packet: [f64; 2],
    /// Positions now, in the new order.
    order: Vec<usize>,
    moves: Vec<MoveObject<'a>>,
}

#[derive(Serialize)]
struct MoveObject<'a> {
    #[serde(flatten)]
    rule: RuleObject<'a>,
    before: RuleObject<'a>,
}
