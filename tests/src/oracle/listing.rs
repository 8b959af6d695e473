//! What a namespace's rulesets are: to say at which position a handle is, where base chains hang,
//! and what the targets of ip_tables do. From `nft -j` and from text as iptables-save writes it.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::step::{Backend, ChainName, Hook, Verdict};
use crate::lab::Host;

/// Where a base chain hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Hook.
    pub hook: Hook,
    /// Priority.
    pub priority: i32,
    /// Whether its policy drops.
    pub drops: bool,
}

impl Base {
    /// Before conntrack's own hook.
    #[must_use]
    pub fn early(&self) -> bool {
        const CONNTRACK: i32 = -200;
        self.priority < CONNTRACK && matches!(self.hook, Hook::Prerouting | Hook::Output)
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// nf_tables' handle.
    pub handle: Option<u64>,
    /// What its target does, where that is not traced; of nf_tables only whether it rejects.
    pub verdict: Option<Verdict>,
    /// Whether it has a counter behind all that can fail: it moves when the rule matches. A lookup
    /// in a map can fail, and so can setting a mark from one that is not there.
    pub counted: bool,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Of base chains. Those of ip_tables hang at several hooks only if they are not built in.
    pub base: Option<Base>,
    /// Rules in order.
    pub rules: Vec<Rule>,
}

impl Listed {
    /// Position of a rule, from 1.
    #[must_use]
    pub fn position(&self, handle: u64) -> Option<u32> {
        let index = self.rules.iter().position(|rule| rule.handle == Some(handle))?;
        Some(index as u32 + 1)
    }

    /// A rule by its position.
    #[must_use]
    pub fn at(&self, position: u32) -> Option<&Rule> {
        self.rules.get(position.checked_sub(1)? as usize)
    }

    /// Position of the policy or of the implicit return.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.rules.len() as u32 + 1
    }
}

/// Chains by their names.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    chains: HashMap<ChainName, Listed>,
}

impl Listing {
    /// A chain.
    #[must_use]
    pub fn chain(&self, name: &ChainName) -> Option<&Listed> {
        self.chains.get(name)
    }

    /// All chains.
    pub fn chains(&self) -> impl Iterator<Item = (&ChainName, &Listed)> {
        self.chains.iter()
    }

    /// Adds what nf_tables has.
    pub fn add_nft(&mut self, host: &Host) -> Result<()> {
        let text = host.run(["nft", "-j", "-a", "list", "ruleset"])?;
        self.add_json(&text).context("output of nft -j")
    }

    fn add_json(&mut self, text: &str) -> Result<()> {
        let document: Value = serde_json::from_str(text)?;
        for object in document["nftables"].as_array().into_iter().flatten() {
            if let Some(chain) = object.get("chain") {
                let base = match (chain["hook"].as_str(), chain["prio"].as_i64()) {
                    (Some(hook), Some(priority)) => Some(Base {
                        hook: Hook::parse(hook).context("a hook that is not tested")?,
                        priority: priority.try_into()?,
                        drops: chain["policy"] == "drop",
                    }),
                    _ => None,
                };
                self.chains.entry(name(chain, "name")?).or_default().base = base;
            } else if let Some(rule) = object.get("rule") {
                let expressions = rule["expr"].as_array().context("a rule without expressions")?;
                let at = |key| expressions.iter().rposition(|e| e.get(key).is_some());
                let fails = ["match", "vmap", "mangle"].map(at).into_iter().max().flatten();
                let by_map = rule["expr"].to_string().contains("\"map\"");
                let counted = !by_map && at("counter").is_some_and(|at| Some(at) > fails);
                let rejects = rule["expr"].to_string().to_lowercase().contains("\"reject\"");
                let verdict = rejects.then_some(Verdict::Reject);
                let chain = self.chains.entry(name(rule, "chain")?).or_default();
                chain.rules.push(Rule { handle: rule["handle"].as_u64(), verdict, counted });
            }
        }
        Ok(())
    }

    /// Adds what ip_tables has, as iptables-save or iptables-restore have it.
    pub fn add_legacy(&mut self, family: &str, save: &str) -> Result<()> {
        let mut table = String::new();
        for line in save.lines() {
            self.add_line(family, &mut table, line).with_context(|| format!("line: {line}"))?;
        }
        Ok(())
    }

    fn add_line(&mut self, family: &str, table: &mut String, line: &str) -> Result<()> {
        let place = |table: &str, name: &str| ChainName {
            backend: Backend::Legacy,
            family: family.to_owned(),
            table: table.to_owned(),
            name: name.to_owned(),
        };
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(table);
        } else if let Some(chain) = line.strip_prefix(':') {
            let (name, policy) = chain.split_once(' ').context("a chain without a policy")?;
            let base = match Hook::parse(name) {
                Some(hook) if !policy.starts_with('-') => {
                    let drops = policy.starts_with("DROP");
                    Some(Base { hook, priority: priority(table, hook)?, drops })
                }
                _ => None,
            };
            self.chains.entry(place(table, name)).or_default().base = base;
        } else if let Some(at) = line.find("-A ") {
            let (name, rule) = line[at + 3..].split_once(' ').unwrap_or((&line[at + 3..], ""));
            let verdict = Some(target(rule));
            let chain = self.chains.entry(place(table, name)).or_default();
            chain.rules.push(Rule { handle: None, verdict, counted: true });
        }
        Ok(())
    }
}

fn name(object: &Value, key: &str) -> Result<ChainName> {
    let text = |key: &str| -> Result<String> {
        Ok(object[key].as_str().with_context(|| format!("no {key}"))?.to_owned())
    };
    Ok(ChainName {
        backend: Backend::Nft,
        family: text("family")?,
        table: text("table")?,
        name: text(key)?,
    })
}

/// `enum nf_ip_hook_priorities`.
fn priority(table: &str, hook: Hook) -> Result<i32> {
    Ok(match (table, hook) {
        ("raw", _) => -300,
        ("mangle", _) => -150,
        ("nat", Hook::Prerouting | Hook::Output) => -100,
        ("nat", _) => 100,
        ("filter", _) => 0,
        ("security", _) => 50,
        _ => bail!("a table called {table}"),
    })
}

/// What a rule does with a packet that meets it.
fn target(rule: &str) -> Verdict {
    let mut words = words(rule);
    let mut found = None;
    // The last one: what comes before may be in a match.
    while let Some(word) = words.next() {
        if matches!(word, "-j" | "-g") {
            found = words.next().map(|target| (word, target));
        }
    }
    match found {
        None => Verdict::Continue,
        Some(("-g", chain)) => Verdict::Goto(chain.to_owned()),
        Some((_, target)) => match target {
            "ACCEPT" | "SNAT" | "DNAT" | "MASQUERADE" | "REDIRECT" | "NETMAP" => Verdict::Accept,
            "DROP" => Verdict::Drop,
            "REJECT" => Verdict::Reject,
            "RETURN" => Verdict::Return,
            "QUEUE" | "NFQUEUE" => Verdict::Queue,
            extension if EXTENSIONS.contains(&extension) => Verdict::Continue,
            chain => Verdict::Jump(chain.to_owned()),
        },
    }
}

/// Targets after which a packet goes on.
const EXTENSIONS: [&str; 7] = ["MARK", "CONNMARK", "CT", "NOTRACK", "LOG", "NFLOG", "TRACE"];

/// Words of a rule; what stands in quotes is none.
fn words(rule: &str) -> impl Iterator<Item = &str> {
    rule.split('"').step_by(2).flat_map(str::split_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn legacy(name: &str) -> ChainName {
        let (family, table) = ("ip".to_owned(), "nat".to_owned());
        ChainName { backend: Backend::Legacy, family, table, name: name.to_owned() }
    }

    #[test]
    fn a_save_is_read() {
        let mut listing = Listing::default();
        let save = "*nat\n:PREROUTING ACCEPT [0:0]\n:user - [0:0]\n\
                    [5:3] -A PREROUTING -m comment --comment \"-j DROP\" -g user\n\
                    -A PREROUTING -j REDIRECT --to-ports 7\n-A user\n-A user -j user2\nCOMMIT\n";
        listing.add_legacy("ip", save).unwrap();
        let prerouting = listing.chain(&legacy("PREROUTING")).unwrap();
        assert_eq!(
            prerouting.base,
            Some(Base { hook: Hook::Prerouting, priority: -100, drops: false })
        );
        let verdict = |chain: &str, position| {
            listing.chain(&legacy(chain)).unwrap().at(position).unwrap().verdict.clone().unwrap()
        };
        assert_eq!(verdict("PREROUTING", 1), Verdict::Goto("user".to_owned()));
        assert_eq!(verdict("PREROUTING", 2), Verdict::Accept);
        assert_eq!(verdict("user", 1), Verdict::Continue);
        assert_eq!(verdict("user", 2), Verdict::Jump("user2".to_owned()));
        assert_eq!((prerouting.end(), listing.chains().count()), (3, 2));
    }

    #[test]
    fn output_of_nft_is_read() {
        let mut listing = Listing::default();
        listing
            .add_json(
                r#"{"nftables": [{"metainfo": {}},
                {"chain": {"family": "inet", "table": "t", "name": "c", "hook": "input",
                           "prio": -5, "policy": "drop"}},
                {"rule": {"family": "inet", "table": "t", "chain": "c", "handle": 7,
                          "expr": [{"match": {}}, {"counter": null}]}},
                {"rule": {"family": "inet", "table": "t", "chain": "c", "handle": 5,
                          "expr": [{"counter": null}, {"match": {}},
                                   {"xt": {"type": "target", "name": "REJECT"}}]}}]}"#,
            )
            .unwrap();
        let (_, chain) = listing.chains().next().unwrap();
        assert_eq!(chain.base, Some(Base { hook: Hook::Input, priority: -5, drops: true }));
        assert_eq!((chain.position(5), chain.position(6), chain.end()), (Some(2), None, 3));
        assert_eq!(chain.at(2).unwrap().verdict, Some(Verdict::Reject));
        assert_eq!(chain.at(1).unwrap().verdict, None);
        assert_eq!([1, 2].map(|position| chain.at(position).unwrap().counted), [true, false]);
    }
}
