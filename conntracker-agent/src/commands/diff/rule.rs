//! Which rule: by table, chain and what it says, because positions and handles change with every reload.

use std::fmt;

use crate::model::{
    harmless::one_line,
    path::{Site, SiteKind, Step, Verdict},
    table::{Backend, Family},
};

/// What tells a rule, policy or chain from all others, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::commands) struct RuleName {
    backend: Backend,
    family: Family,
    table: String,
    chain: String,
    kind: SiteKind,
    /// Text of a rule without its comment, which does nothing; its handle if it has no text.
    text: Result<String, Option<u64>>,
}

impl RuleName {
    pub fn of(site: &Site) -> Self {
        let Site { backend, family, table, chain, kind, handle, text, .. } = site;
        Self {
            backend: *backend,
            family: *family,
            table: table.clone(),
            chain: chain.clone(),
            kind: *kind,
            text: match (kind, text) {
                (SiteKind::Rule, Some(text)) => Ok(without_comment(text)),
                (SiteKind::Rule, None) => Err(*handle),
                _ => Err(None),
            },
        }
    }
}

/// What a packet met there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::commands) struct Met {
    pub rule: RuleName,
    verdict: (&'static str, Option<String>),
}

impl Met {
    pub fn of(step: &Step) -> Self {
        let target = step.verdict.target().map(str::to_owned);
        Self { rule: RuleName::of(&step.site), verdict: (step.verdict.name(), target) }
    }
}

/// The text of a rule of nft (`… comment "…"`) or iptables (`-m comment --comment …`) without its comment.
fn without_comment(text: &str) -> String {
    if let Some((rule, comment)) = text.rsplit_once(" comment \"")
        && comment.ends_with('"')
    {
        return rule.to_owned();
    }
    let Some((rule, rest)) = text.split_once(" -m comment --comment ") else {
        return text.to_owned();
    };
    // Behind a backslash a quote is one of the comment.
    let (mut quoted, mut escaped) = (false, false);
    let end = rest.find(|c: char| {
        let ends = c == ' ' && !quoted;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    format!("{rule}{}", end.map_or("", |end| &rest[end..]))
}

/// A step in a sentence: `inet fw/forward 3 (drop): tcp dport 81 counter drop`.
pub(in crate::commands) fn sentence(step: &Step) -> String {
    let Step { site, verdict, .. } = step;
    let position = site.position.map_or_else(String::new, |position| format!(" {position}"));
    let what = match (site.kind, &site.text) {
        (SiteKind::Rule, Some(text)) => format!(": {}", one_line(text)),
        (SiteKind::Rule, None) => String::new(),
        (kind, _) => format!(", {}", kind.name()),
    };
    format!(
        "{}/{}{position} ({}){what}",
        one_line(&site.label()),
        one_line(&site.chain),
        Shown(verdict)
    )
}

struct Shown<'a>(&'a Verdict);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())?;
        self.0.target().map_or(Ok(()), |chain| write!(f, " {}", one_line(chain)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_no_part_of_a_rule() {
        for (text, wanted) in [
            ("tcp dport 22 accept comment \"admin\"", "tcp dport 22 accept"),
            ("tcp dport 22 accept", "tcp dport 22 accept"),
            ("log prefix \" comment \" accept", "log prefix \" comment \" accept"),
            ("-A F -m comment --comment \"a \\\" b\" -j DROP", "-A F -j DROP"),
            ("-A F -m comment --comment web -j DROP", "-A F -j DROP"),
            ("-A F -j DROP -m comment --comment \"a b\"", "-A F -j DROP"),
        ] {
            assert_eq!(without_comment(text), wanted, "{text}");
        }
    }
}
