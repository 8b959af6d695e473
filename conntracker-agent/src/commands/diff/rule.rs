//! Which rule: by table, chain and what it says, because positions and handles change with every reload.

use std::fmt;

use crate::model::{
    harmless::one_line,
    path::{Site, SiteKind, Step, Verdict},
    table::{Backend, Family},
};

/// What tells a rule, policy or chain from all others, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct RuleName {
    backend: Backend,
    family: Family,
    table: String,
    chain: String,
    kind: SiteKind,
    /// Text of a rule; its handle if it has none.
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
                (SiteKind::Rule, Some(text)) => Ok(text.clone()),
                (SiteKind::Rule, None) => Err(*handle),
                _ => Err(None),
            },
        }
    }
}

/// What a packet met there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Met {
    pub rule: RuleName,
    verdict: (&'static str, Option<String>),
}

impl Met {
    pub fn of(step: &Step) -> Self {
        let target = step.verdict.target().map(str::to_owned);
        Self { rule: RuleName::of(&step.site), verdict: (step.verdict.name(), target) }
    }
}

/// A step in a sentence: `inet fw/forward 3 (drop): tcp dport 81 counter drop`.
pub(super) fn sentence(step: &Step) -> String {
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
