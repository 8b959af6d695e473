//! The report as one HTML file: it opens from disk, makes no request, and has the data as columns that the browser
//! inflates.
//!
//! In reading order: [`render`] writes the document; `flows`, `paths` and `rules` make columns of the report; `columns`
//! is how they stand in the document. `page.html`, `style.css` and `script/` are what the browser shows of them.
//!
//! Names of processes, interfaces, rules, hosts and namespaces are chosen by others. None of them stands in the
//! document as text: columns are base64. The script makes elements of them as text alone, and the document's own policy
//! has the browser refuse anything else: other scripts than this one, requests, and HTML made of strings.

mod columns;
mod dictionary;
mod facts;
mod flows;
mod paths;
mod rules;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use self::{
    columns::Columns, dictionary::Words, flows::FlowColumns, paths::PathColumns, rules::Rules,
};
use super::{FlowList, Report, Totals, timeline::Timeline};
use crate::{firewall::Ruleset, model::NetnsId};

/// The document, with marks where style, columns and script stand.
const PAGE: &str = include_str!("page.html");

const STYLE: &str = include_str!("style.css");

/// The script, in the order of its parts: one module.
const SCRIPT: [&str; 10] = [
    include_str!("script/columns.js"),
    include_str!("script/report.js"),
    include_str!("script/selection.js"),
    include_str!("script/elements.js"),
    include_str!("script/summary.js"),
    include_str!("script/hooks.js"),
    include_str!("script/timeline.js"),
    include_str!("script/ruleset.js"),
    include_str!("script/table.js"),
    include_str!("script/main.js"),
];

/// What the page shows besides the report.
#[derive(Clone, Debug, Default)]
pub struct Background {
    /// When flows began and packets were dropped, if that was counted.
    pub timeline: Option<Timeline>,
    /// The last ruleset of each namespace, as far as it is known.
    pub rulesets: Vec<(NetnsId, Ruleset)>,
}

/// Writes the document. `out` should be buffered.
pub fn render<F: FlowList>(
    report: &Report<F>,
    background: &Background,
    out: &mut dyn Write,
) -> io::Result<()> {
    let script = SCRIPT.concat();
    let mut parts = PAGE.split("<!--part-->");
    let mut part = || parts.next().unwrap_or_default();
    out.write_all(part().as_bytes())?;
    write!(
        out,
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src '{}'; style-src '{}'; \
         base-uri 'none'; form-action 'none'; trusted-types 'none'; require-trusted-types-for 'script'\">",
        hash(&script),
        hash(STYLE)
    )?;
    write!(out, "\n<style>{STYLE}</style>")?;
    out.write_all(part().as_bytes())?;
    data(report, background, &mut Columns::new(out))?;
    write!(out, "<script type=\"module\">{script}</script>")?;
    out.write_all(part().as_bytes())
}

/// The hash by which a policy names an inline script or style.
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

fn data<F: FlowList>(
    report: &Report<F>,
    background: &Background,
    columns: &mut Columns<'_>,
) -> io::Result<()> {
    let mut words = Words::default();
    let mut rules = Rules::default();
    let flows = report.flows.whole()?;
    columns.json("report", &facts::ReportObject::new(report, Totals::of(&flows), background))?;
    // Rules that are listed come first, whether packets met them or not.
    let ruleset = rules.listed(background);
    FlowColumns::new(&report.header, &flows).write(&mut words, &mut rules, columns)?;
    PathColumns::new(&report.header, &flows).write(&mut words, &mut rules, columns)?;
    columns.json("ruleset", &ruleset)?;
    columns.json("sites", &rules.sites())?;
    columns.json("words", &words)
}
