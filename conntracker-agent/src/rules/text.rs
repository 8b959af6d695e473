//! The ruleset for people.

use std::{
    borrow::Cow,
    fmt::Display,
    io::{self, Write},
};

use super::select::Selected;
use crate::ruleset::model::{Backend, Base, Chain, Counter, Table};

/// Writes the tables. `out` should be buffered.
pub(super) fn render(tables: &[Selected<'_>], out: &mut dyn Write) -> io::Result<()> {
    for (number, Selected { table, chains }) in tables.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        writeln!(out, "table {} ({})", clean(&table.label()), origin(table))?;
        for chain in chains {
            render_chain(chain, out)?;
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

fn render_chain(chain: &Chain, out: &mut dyn Write) -> io::Result<()> {
    let Chain { name, handle, base, rules } = chain;
    write!(out, "  chain {}", clean(name))?;
    if let Some(Base { kind, hook, priority, policy, devices, counter: _ }) = base {
        write!(out, ": {} hook {}", kind.name(), hook.name())?;
        if !devices.is_empty() {
            write!(out, " device {}", clean(&devices.join(",")))?;
        }
        write!(out, " priority {priority}, policy {}", policy.name())?;
    }
    match handle {
        Some(handle) => writeln!(out, " (handle {handle})")?,
        None => writeln!(out)?,
    }
    row(out, &"pos", &"handle", &"packets", &"bytes", "rule")?;
    for rule in rules {
        let text = clean(&rule.text);
        counted(out, rule.position, rule.handle, rule.counter.as_ref(), &text)?;
    }
    let (end, counter) = match base {
        Some(base) => (format!("policy {}", base.policy.name()), base.counter.as_ref()),
        None => ("return".to_owned(), None),
    };
    counted(out, chain.end_position(), None, counter, &end)
}

fn counted(
    out: &mut dyn Write,
    position: u32,
    handle: Option<u64>,
    counter: Option<&Counter>,
    text: &str,
) -> io::Result<()> {
    let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
    row(
        out,
        &position,
        &number(handle),
        &number(counter.map(|counter| counter.packets)),
        &number(counter.map(|counter| counter.bytes)),
        text,
    )
}

fn row(
    out: &mut dyn Write,
    position: &dyn Display,
    handle: &dyn Display,
    packets: &dyn Display,
    bytes: &dyn Display,
    text: &str,
) -> io::Result<()> {
    writeln!(out, "    {position:>5} {handle:>7} {packets:>10} {bytes:>13}  {text}")
}

/// One line, and nothing that a terminal would obey: comments may hold any bytes.
fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    // The block of a rule is easier to read in one line than with its line breaks spelled out.
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut clean = String::with_capacity(text.len());
    for c in lines.join(" ").chars() {
        if c.is_control() {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn a_rule_takes_one_line_and_cannot_play_with_the_terminal() {
        assert_eq!(clean("jump {\n\t\t\tdrop\n\t\t}"), "jump { drop }");
        assert_eq!(clean("accept comment \"\u{1b}[2J\""), "accept comment \"\\u{1b}[2J\"");
        assert_eq!(clean("drop"), "drop");
    }
}
