//! The ruleset for people.

use std::{
    fmt::Display,
    io::{self, Write},
};

use super::select::Selected;
use crate::{
    firewall::model::{Base, Chain, Counter, Rule, Table},
    model::{harmless::one_line, table::Backend},
};

/// Two numbers for each rule, and for the end of each chain.
pub(super) trait CounterColumns {
    /// What they are.
    fn heads(&self) -> [&'static str; 2];
    fn of_rule(&self, table: &Table, chain: &Chain, rule: &Rule) -> [String; 2];
    fn of_end(&self, table: &Table, chain: &Chain) -> [String; 2];
}

/// The kernel's counters.
struct Counters;

impl CounterColumns for Counters {
    fn heads(&self) -> [&'static str; 2] {
        ["packets", "bytes"]
    }

    fn of_rule(&self, _: &Table, _: &Chain, rule: &Rule) -> [String; 2] {
        counted(rule.counter.as_ref())
    }

    fn of_end(&self, _: &Table, chain: &Chain) -> [String; 2] {
        counted(chain.base.as_ref().and_then(|base| base.counter.as_ref()))
    }
}

fn counted(counter: Option<&Counter>) -> [String; 2] {
    let number = |value: fn(&Counter) -> u64| {
        counter.map_or("-".to_owned(), |counter| value(counter).to_string())
    };
    [number(|counter| counter.packets), number(|counter| counter.bytes)]
}

/// Writes the tables with their counters. `out` should be buffered.
pub(super) fn render(tables: &[Selected<'_>], out: &mut dyn Write) -> io::Result<()> {
    render_tables(tables, &Counters, out)
}

/// Writes the tables. `out` should be buffered.
pub(super) fn render_tables(
    tables: &[Selected<'_>],
    numbers: &dyn CounterColumns,
    out: &mut dyn Write,
) -> io::Result<()> {
    for (number, Selected { table, chains }) in tables.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        writeln!(out, "table {} ({})", one_line(&table.label()), origin(table))?;
        for chain in chains {
            render_chain(table, chain, numbers, out)?;
        }
    }
    Ok(())
}

/// Family (unless the label has it), program, handle, flags.
fn origin(table: &Table) -> String {
    let mut parts = Vec::new();
    if table.iptables {
        parts.push(table.family.name().to_owned());
    }
    parts.push(
        match (table.backend, table.iptables) {
            (Backend::Legacy, _) => "iptables-legacy",
            (Backend::Nft, true) => "iptables-nft",
            (Backend::Nft, false) => "nft",
        }
        .to_owned(),
    );
    parts.extend(table.handle.map(|handle| format!("handle {handle}")));
    if table.dormant {
        parts.push("dormant: not hooked".to_owned());
    }
    parts.join(", ")
}

fn render_chain(
    table: &Table,
    chain: &Chain,
    numbers: &dyn CounterColumns,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Chain { name, handle, base, rules } = chain;
    write!(out, "  chain {}", one_line(name))?;
    if let Some(Base { kind, hook, priority, policy, devices, counter: _ }) = base {
        write!(out, ": {} hook {}", kind.name(), hook.name())?;
        if !devices.is_empty() {
            write!(out, " device {}", one_line(&devices.join(",")))?;
        }
        write!(out, " priority {priority}, policy {}", policy.name())?;
    }
    match handle {
        Some(handle) => writeln!(out, " (handle {handle})")?,
        None => writeln!(out)?,
    }
    row(out, &"pos", &"handle", &numbers.heads(), "rule")?;
    for rule in rules {
        let values = numbers.of_rule(table, chain, rule);
        let handle = rule.handle.map_or("-".to_owned(), |handle| handle.to_string());
        row(out, &rule.position, &handle, &values, &one_line(&rule.text))?;
    }
    let end = match base {
        Some(base) => format!("policy {}", base.policy.name()),
        None => "return".to_owned(),
    };
    row(out, &chain.end_position(), &"-", &numbers.of_end(table, chain), &end)
}

fn row<T: Display>(
    out: &mut dyn Write,
    position: &dyn Display,
    handle: &dyn Display,
    [first, second]: &[T; 2],
    text: &str,
) -> io::Result<()> {
    writeln!(out, "    {position:>5} {handle:>7} {first:>10} {second:>13}  {text}")
}

#[cfg(test)]
mod tests {
    use crate::model::harmless::one_line;

    #[test]
    fn a_rule_takes_one_line_and_cannot_play_with_the_terminal() {
        assert_eq!(one_line("jump {\n\t\t\tdrop\n\t\t}"), "jump { drop }");
        assert_eq!(one_line("accept comment \"\u{1b}[2J\""), "accept comment \"\\u{1b}[2J\"");
        assert_eq!(one_line("drop"), "drop");
    }
}
