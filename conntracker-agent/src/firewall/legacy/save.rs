//! The format of iptables-save(8) with counters.
//!
//! ```text
//! *filter
//! :INPUT ACCEPT [12:1840]
//! :user - [0:0]
//! [3:180] -A INPUT -p tcp -m tcp --dport 22 -g user
//! COMMIT
//! ```

use std::collections::HashMap;

use crate::{
    firewall::{
        Skipped,
        action::{Action, Target, Via},
        extension, iptables,
        model::{Base, Chain, Counter, Policy, Rule, Table},
    },
    model::table::{Backend, Family},
};

/// Options of matches whose value may be any word, even `-j`.
const FREE_TEXT: &[&str] =
    &["--comment", "--string", "--hex-string", "--name", "--hashlimit-name", "--helper", "--path"];

/// Whether iptables-nft wrote this text; nft lists its rules.
pub(in crate::firewall) fn is_of_nf_tables(saved: &str) -> bool {
    saved.lines().take_while(|line| line.starts_with('#')).any(|line| line.contains("(nf_tables)"))
}

/// Reads the tables; lines that cannot be parsed are counted as skipped.
pub(in crate::firewall) fn parse(family: Family, saved: &str, skipped: &mut Skipped) -> Vec<Table> {
    let mut tables = Vec::new();
    let mut current: Option<Reader> = None;
    let mut rest = saved;
    while let Some(line) = next_line(&mut rest) {
        let known = match (line.as_bytes().first(), &mut current) {
            (None | Some(b'#'), _) => true,
            (Some(b'*'), _) => {
                let before = current.replace(Reader::new(family, &line[1..]));
                tables.extend(before.map(|reader| reader.table));
                true
            }
            (Some(b':'), Some(reader)) => reader.chain(&line[1..]).is_some(),
            (Some(b'[' | b'-'), Some(reader)) => reader.rule(line).is_some(),
            _ => line == "COMMIT",
        };
        if !known {
            *skipped.entry("line".to_owned()).or_default() += 1;
        }
    }
    tables.extend(current.map(|reader| reader.table));
    tables
}

/// The next line; line breaks in quotes (comments may have them) do not end it.
fn next_line<'a>(rest: &mut &'a str) -> Option<&'a str> {
    if rest.is_empty() {
        return None;
    }
    // A quote without an end must not hide the following lines.
    let end = unquoted(rest, b'\n').or_else(|| rest.find('\n'));
    let (line, after) = match end {
        Some(end) => (&rest[..end], &rest[end + 1..]),
        None => (*rest, ""),
    };
    *rest = after;
    Some(line)
}

/// A table that is being read.
struct Reader {
    table: Table,
    chain_at: HashMap<String, usize>,
}

impl Reader {
    fn new(family: Family, name: &str) -> Self {
        let table = Table {
            family,
            name: name.to_owned(),
            backend: Backend::Legacy,
            handle: None,
            iptables: true,
            dormant: false,
            chains: Vec::new(),
        };
        Self { table, chain_at: HashMap::new() }
    }

    /// `NAME POLICY [PACKETS:BYTES]`; user chains have `-` for a policy.
    fn chain(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let (name, policy) = (words.next()?, words.next()?);
        let base = if policy == "-" {
            None
        } else {
            let (kind, hook, priority) = iptables::built_in(&self.table.name, name)?;
            let policy = Policy::parse(policy)?;
            let counter = words.next().and_then(counter);
            Some(Base { kind, hook, priority, policy, counter, devices: Vec::new() })
        };
        self.chain_at.insert(name.to_owned(), self.table.chains.len());
        self.table.chains.push(Chain {
            name: name.to_owned(),
            handle: None,
            base,
            rules: Vec::new(),
        });
        Some(())
    }

    /// `[PACKETS:BYTES] -A CHAIN …`.
    fn rule(&mut self, line: &str) -> Option<()> {
        let (counter, text) = match line.split_once(' ') {
            Some((brackets, text)) if brackets.starts_with('[') => (counter(brackets), text),
            _ => (None, line),
        };
        let mut words = Words(text);
        if words.next() != Some("-A") {
            return None;
        }
        let at = *self.chain_at.get(words.next()?)?;
        let mut kinds = Vec::new();
        let mut end = None;
        while let Some(word) = words.next() {
            match word {
                "-p" | "-s" | "-d" | "-i" | "-o" | "-f" => kinds.push("match header".to_owned()),
                "-m" => kinds.push(format!("xt match {}", words.next().unwrap_or_default())),
                "-j" | "-g" => {
                    // What follows are the target's own options.
                    end = Some((word, words.next().unwrap_or_default()));
                    break;
                }
                _ if FREE_TEXT.contains(&word) => _ = words.next(),
                _ => {}
            }
        }
        kinds.dedup();
        // ipt_do_table() of net/ipv4/netfilter/ip_tables.c counts once all matches have matched.
        kinds.push("counter".to_owned());
        let (mut actions, mut targets) = (Vec::new(), Vec::new());
        if let Some((option, target)) = end {
            let (kind, action) = self.target(option, target);
            kinds.push(kind);
            match action {
                Some((action, via)) => {
                    actions.push(action);
                    targets.push(Target { via, chain: target.to_owned() });
                }
                None => actions.extend(extension::actions(target)),
            }
        }
        let chain = self.table.chains.get_mut(at)?;
        chain.rules.push(Rule {
            position: chain.end_position(),
            handle: None,
            text: text.to_owned(),
            kinds,
            counter,
            nat_family: None,
            clauses: Vec::new(),
            counts_matches: counter.is_some(),
            actions,
            targets,
        });
        Some(())
    }

    /// What `-j` or `-g` means: `iptcc_map_target` of libiptc has verdicts first, then chains, then
    /// extensions.
    fn target(&self, option: &str, target: &str) -> (String, Option<(Action, Via)>) {
        match target {
            "ACCEPT" | "DROP" | "RETURN" | "QUEUE" => (target.to_ascii_lowercase(), None),
            chain if self.chain_at.contains_key(chain) => match option {
                "-g" => ("goto".to_owned(), Some((Action::Goto, Via::Goto))),
                _ => ("jump".to_owned(), Some((Action::Jump, Via::Jump))),
            },
            extension => (format!("xt target {extension}"), None),
        }
    }
}

/// `[PACKETS:BYTES]`.
fn counter(text: &str) -> Option<Counter> {
    let (packets, bytes) = text.strip_prefix('[')?.strip_suffix(']')?.split_once(':')?;
    Some(Counter { packets: packets.parse().ok()?, bytes: bytes.parse().ok()? })
}

/// Words of a line; a quoted one is one word, its quotes included.
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start_matches(' ');
        if text.is_empty() {
            return None;
        }
        let end = unquoted(text, b' ').unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.0 = rest;
        Some(word)
    }
}

/// Position of the first such byte outside of quotes (`xtables_save_string` of libxtables).
fn unquoted(text: &str, wanted: u8) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.bytes().position(|byte| {
        let found = byte == wanted && !quoted;
        if escaped {
            escaped = false;
        } else {
            escaped = byte == b'\\';
            quoted ^= byte == b'"';
        }
        found
    })
}
