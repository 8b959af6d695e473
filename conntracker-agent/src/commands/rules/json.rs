//! The ruleset as JSON. docs/rules.md describes the objects, so a change here needs one there.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use serde::Serialize;

use super::select::Selected;
use crate::{
    firewall::{
        Ruleset, Skipped,
        model::{Base, Chain, Rule},
    },
    model::{
        harmless,
        table::{Backend, Family},
    },
};

/// Name and version of the format; the version grows as that of the report does (docs/schema.md).
const SCHEMA: &str = "conntracker-rules/1";

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    netns: &'a str,
    tables: Vec<TableObject<'a>>,
    notes: Vec<&'a String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    unread: &'a [String],
    skipped: &'a Skipped,
}

#[derive(Serialize)]
struct TableObject<'a> {
    table: Cow<'a, str>,
    family: Family,
    name: &'a str,
    backend: Backend,
    iptables: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<u64>,
    dormant: bool,
    chains: Vec<ChainObject<'a>>,
}

#[derive(Serialize)]
struct ChainObject<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<&'a Base>,
    rules: &'a [Rule],
    end: End,
}

/// The policy or return after the last rule.
#[derive(Serialize)]
struct End {
    #[serde(rename = "type")]
    kind: &'static str,
    position: u32,
}

/// Writes one document. `out` should be buffered.
pub(super) fn render(
    netns: &str,
    ruleset: &Ruleset,
    selected: &[Selected<'_>],
    out: &mut dyn Write,
) -> io::Result<()> {
    let Ruleset { tables: _, skipped, notes: _, unread, printed: _, objects: _ } = ruleset;
    let notes = ruleset.all_notes().collect();
    let tables = selected
        .iter()
        .map(|Selected { table, chains }| TableObject {
            table: table.label(),
            family: table.family,
            name: &table.name,
            backend: table.backend,
            iptables: table.iptables,
            handle: table.handle,
            dormant: table.dormant,
            chains: chains.iter().map(|chain| chain_object(chain)).collect(),
        })
        .collect();
    let document = Document { schema: SCHEMA, netns, tables, notes, unread, skipped };
    harmless::json(&mut *out, &document)?;
    out.write_all(b"\n")
}

fn chain_object(chain: &Chain) -> ChainObject<'_> {
    let Chain { name, handle, base, rules } = chain;
    ChainObject {
        name,
        handle: *handle,
        base: base.as_ref(),
        rules,
        end: End {
            kind: if base.is_some() { "policy" } else { "return" },
            position: chain.end_position(),
        },
    }
}
