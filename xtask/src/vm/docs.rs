//! Writes docs/compatibility.md from the results of runs: nothing in it is from belief.

use std::fmt::Write;
use std::fs;

use anyhow::{Result, ensure};

use super::results::{self, RunResult};
use super::suites::SUITES;
use crate::workspace;

const HEAD: &str = "\
# Compatibility

<!-- Written by `cargo xtask test-vm --docs` from the results of its runs. Do not edit. -->

Kernels of distributions, unchanged, booted under QEMU by `cargo xtask test-vm`, and what came out of
running the suites in them. A run forces one backend, and for `probes` one way of attaching. What no
run has shown is not claimed here.
";

/// Writes it.
pub fn write() -> Result<()> {
    let file = results::file()?;
    let runs = results::read(&file)?;
    ensure!(
        !runs.is_empty(),
        "{} has no results: run `cargo xtask test-vm --kernel all` first",
        file.display()
    );
    let path = workspace::root()?.join("docs/compatibility.md");
    fs::write(&path, page(&runs))?;
    eprintln!("vm: {} written from {} runs", path.display(), runs.len());
    Ok(())
}

fn page(runs: &[RunResult]) -> String {
    let mut text = HEAD.to_owned();
    // Writing to a string cannot fail.
    let _ = overview(&mut text, runs);
    let _ = features(&mut text, runs);
    let _ = attribution(&mut text, runs);
    let _ = skips(&mut text, runs);
    let _ = doctors(&mut text, runs);
    text
}

fn overview(text: &mut String, runs: &[RunResult]) -> std::fmt::Result {
    writeln!(text, "\n## Runs\n")?;
    writeln!(text, "| run | kernel | distribution | packages | CPU | tests |")?;
    writeln!(text, "|---|---|---|---|---|---|")?;
    for (number, run) in runs.iter().enumerate() {
        let cpu = if run.accel == "tcg" { "emulated, fewer suites" } else { "KVM" };
        let RunResult { release, distribution, packages, .. } = run;
        let (number, way, counts) = (number + 1, way(run), run.counts());
        writeln!(
            text,
            "| {number}: {way} | {release} | {distribution} | {packages} | {cpu} | {counts} |"
        )?;
    }
    Ok(())
}

/// Backend and way of attaching.
fn way(run: &RunResult) -> String {
    let attach = run.attach.as_ref().map(|attach| format!(" by {attach}")).unwrap_or_default();
    format!("`{}`{attach}", run.backend)
}

fn features(text: &mut String, runs: &[RunResult]) -> std::fmt::Result {
    writeln!(text, "\n## What was shown\n")?;
    write!(text, "| suite | of")?;
    for number in 1..=runs.len() {
        write!(text, " | {number}")?;
    }
    writeln!(text, " |\n|---|---{}|", "|---".repeat(runs.len()))?;
    for suite in SUITES {
        write!(text, "| {} | {}", suite.name, suite.proves)?;
        for run in runs {
            let cell = match run.suites.iter().find(|result| result.name == suite.name) {
                None => "not run".to_owned(),
                Some(result) if result.counts.failed > 0 => {
                    format!(
                        "**{} of {} fail**",
                        result.counts.failed,
                        result.counts.failed + result.counts.passed
                    )
                }
                Some(result) if result.counts.passed == 0 => "skipped".to_owned(),
                Some(result) if result.counts.skipped > 0 => {
                    format!("yes, {} skipped", result.counts.skipped)
                }
                Some(_) => "yes".to_owned(),
            };
            write!(text, " | {cell}")?;
        }
        writeln!(text, " |")?;
    }
    Ok(())
}

fn attribution(text: &mut String, runs: &[RunResult]) -> std::fmt::Result {
    writeln!(text, "\n## Attribution compared with the kernel's traces\n")?;
    for (number, run) in runs.iter().enumerate().filter(|(_, run)| !run.attribution.is_empty()) {
        writeln!(text, "Run {} ({} on {}):\n\n```", number + 1, way(run), run.release)?;
        for line in &run.attribution {
            writeln!(text, "{line}")?;
        }
        writeln!(text, "```\n")?;
    }
    Ok(())
}

fn skips(text: &mut String, runs: &[RunResult]) -> std::fmt::Result {
    writeln!(text, "## Tests that were skipped, and why\n")?;
    let mut none = true;
    for (number, run) in runs.iter().enumerate() {
        for suite in &run.suites {
            for skip in &suite.skips {
                none = false;
                writeln!(text, "- run {}, {}: {skip}", number + 1, suite.name)?;
            }
        }
    }
    if none { writeln!(text, "None.") } else { Ok(()) }
}

fn doctors(text: &mut String, runs: &[RunResult]) -> std::fmt::Result {
    writeln!(text, "\n## What `conntracker doctor` says there\n")?;
    let mut told: Vec<&str> = Vec::new();
    for run in runs {
        if !told.contains(&run.release.as_str()) {
            told.push(&run.release);
            writeln!(
                text,
                "{} ({}):\n\n```\n{}\n```\n",
                run.release, run.distribution, run.doctor
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::results::SuiteResult;
    use super::*;
    use crate::counts::Counts;

    #[test]
    fn a_feature_is_shown_only_by_a_suite_that_passed() {
        let suite = |name: &str, passed, failed, skipped| SuiteResult {
            name: name.into(),
            counts: Counts { passed, failed, skipped },
            ..SuiteResult::default()
        };
        let run = RunResult {
            release: "6.1.0".into(),
            backend: "probes".into(),
            attach: Some("kprobe".into()),
            suites: vec![suite("flows", 3, 0, 0), suite("steps", 2, 1, 0), suite("storm", 0, 0, 4)],
            doctor: "links no".into(),
            ..RunResult::default()
        };
        let text = page(&[run]);
        let cell = |suite: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("| {suite} |"))).unwrap();
            line.trim_end_matches(" |").rsplit_once("| ").unwrap().1.to_owned()
        };
        assert_eq!(cell("flows"), "yes");
        assert_eq!(cell("steps"), "**1 of 3 fail**");
        assert_eq!(cell("storm"), "skipped");
        assert_eq!(cell("marks"), "not run");
        assert!(text.contains("1: `probes` by kprobe | 6.1.0") && text.contains("links no"));
    }
}
