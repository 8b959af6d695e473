//! The recording that each trace of a test makes beside its report: what is reported of it later must be the same, byte
//! for byte.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};

use super::Tracer;
use super::report::Document;
use crate::lab::Host;

/// Options of a trace that ask for something else than its report to be compared: another output, or room for less
/// than all flows, which a report of the recording has.
const OTHERWISE: [&str; 3] = ["-o", "--record", "--max-flows"];

/// Options of a trace that say what its report looks like, and whether a value follows.
const LOOK: [(&str, bool); 6] = [
    ("--format", true),
    ("--explain", false),
    ("--compat", true),
    ("--by", true),
    ("--sort", true),
    ("--top", true),
];

/// A trace of a namespace that records to a file, flows one by one, and writes no report.
pub fn recording(router: &Host, file: &Path, args: &[&str]) -> Result<Tracer> {
    let file = file.to_str().context("a name that is no text")?;
    let args = [&["--backend", super::backend(), "--no-fold", "--record", file], args].concat();
    Tracer::start_without_report(router, &args)
}

/// The report of recordings as JSON.
pub fn report(args: &[&str]) -> Result<Document> {
    let args = [&["report", "--format", "json"], args].concat();
    Document::json(&super::stdout(args)?)
}

/// Source ports of the flows of a report.
#[must_use]
pub fn ports(document: &Document) -> BTreeSet<u64> {
    document.flows.iter().filter_map(|flow| flow["original"]["sport"].as_u64()).collect()
}

/// A recording; removed when dropped.
#[derive(Debug)]
pub struct Recording {
    /// Where it is.
    pub path: String,
    /// How the report looks.
    look: Vec<String>,
}

impl Recording {
    /// For a trace with these options, if its report can be compared.
    pub fn of(args: &[&str]) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if args.iter().any(|arg| OTHERWISE.contains(arg)) {
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("conntracker-test-{}-{number}.rec", process::id());
        let mut look = Vec::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let Some((_, has_value)) = LOOK.iter().find(|(option, _)| option == arg) else {
                continue;
            };
            look.push((*arg).to_owned());
            look.extend(args.next().filter(|_| *has_value).map(|value| (*value).to_owned()));
        }
        Some(Self { path: env::temp_dir().join(name).to_string_lossy().into_owned(), look })
    }

    /// Compares the report of it with the last one that the trace wrote.
    pub fn compare(&self, live: &str) -> Result<()> {
        if live.is_empty() {
            return Ok(());
        }
        self.compare_with(live, &[])?;
        // Nearly all flows are in temporary files.
        self.compare_with(live, &["--memory", "8K"])
    }

    fn compare_with(&self, live: &str, options: &[&str]) -> Result<()> {
        let look = self.look.iter().map(String::as_str);
        let all = ["report", &self.path].into_iter().chain(look).chain(options.iter().copied());
        let offline = super::stdout(all)?;
        let last = live.len().checked_sub(offline.len()).and_then(|at| live.get(at..));
        let (last, offline) = (last.unwrap_or(live).as_bytes(), offline.as_bytes());
        if let Some(at) = last.iter().zip(offline).position(|(a, b)| a != b) {
            let around = |text: &[u8]| {
                let text = &text[at.saturating_sub(400)..text.len().min(at + 200)];
                String::from_utf8_lossy(text).into_owned()
            };
            bail!(
                "the report of the recording {options:?} differs at byte {at}: live …{}… recorded …{}…",
                around(last),
                around(offline)
            );
        }
        ensure!(last.len() == offline.len(), "the report of the recording ends otherwise");
        Ok(())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
