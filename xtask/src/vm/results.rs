//! What came out of a run, and the file that keeps it for the documentation.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::initramfs;
use super::kernels::{Kernel, Run};
use super::protocol::Ended;
use crate::counts::{Counts, Reader};

/// A suite in a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SuiteResult {
    pub name: String,
    pub counts: Counts,
    /// Tests that skipped themselves, and why.
    pub skips: Vec<String>,
    pub seconds: f64,
}

/// A run of suites in a kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunResult {
    pub kernel: String,
    pub distribution: String,
    /// Packages of the kernel.
    pub packages: String,
    /// What `uname -r` says in it.
    pub release: String,
    pub backend: String,
    pub attach: Option<String>,
    /// `kvm`, or `tcg`: emulated.
    pub accel: String,
    pub suites: Vec<SuiteResult>,
    /// What `conntracker doctor` says in it.
    pub doctor: String,
    /// Totals of the suite `attribution`.
    pub attribution: Vec<String>,
}

impl SuiteResult {
    /// From what a test program said. One that does not come to its result has failed, whatever it
    /// said before.
    pub fn new(
        name: &str,
        output: &[String],
        ended: &Ended,
        seconds: f64,
        left_out: Option<(&str, &str)>,
    ) -> Self {
        let mut reader = Reader::default();
        for line in output {
            reader.line(line);
        }
        let Reader { mut counts, mut skips, programs, filtered, .. } = reader;
        if let Some((tests, why)) = left_out {
            skips.push(format!("{tests}* ({filtered} tests): {why}"));
            counts.skipped += filtered;
            // Nobody knows any more what it was that should not be run.
            counts.failed += u64::from(filtered == 0 && programs > 0);
        }
        if programs == 0 || (*ended != Ended::Exit(0) && counts.failed == 0) {
            counts.failed += 1;
        }
        Self { name: name.to_owned(), counts, skips, seconds }
    }
}

impl RunResult {
    pub fn new(kernel: &Kernel, run: Run, accel: &str) -> Self {
        Self {
            kernel: kernel.name.to_owned(),
            distribution: kernel.distribution.to_owned(),
            backend: run.backend.to_owned(),
            attach: run.attach.map(str::to_owned),
            accel: accel.to_owned(),
            ..Self::default()
        }
    }

    /// Sum of all suites.
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for suite in &self.suites {
            sum.add(&suite.counts);
        }
        sum
    }

    /// Kernel, backend and attachment, for people.
    pub fn title(&self) -> String {
        let Self { kernel, backend, attach, .. } = self;
        let attach = attach.as_ref().map(|attach| format!(" by {attach}")).unwrap_or_default();
        format!("{kernel} {backend}{attach}")
    }

    fn to_json(&self) -> Value {
        let counts = |counts: &Counts| {
            let Counts { passed, failed, skipped } = counts;
            json!({"passed": passed, "failed": failed, "skipped": skipped})
        };
        let suites: Vec<_> = self
            .suites
            .iter()
            .map(|SuiteResult { name, counts: of_suite, skips, seconds }| {
                let seconds = seconds.round();
                json!({"name": name, "counts": counts(of_suite), "skips": skips, "seconds": seconds})
            })
            .collect();
        json!({
            "kernel": self.kernel,
            "distribution": self.distribution,
            "packages": self.packages,
            "release": self.release,
            "backend": self.backend,
            "attach": self.attach,
            "accel": self.accel,
            "counts": counts(&self.counts()),
            "suites": suites,
            "attribution": self.attribution,
            "doctor": self.doctor,
        })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let string = |key: &str| Some(value[key].as_str()?.to_owned());
        let strings = |value: &Value| -> Option<Vec<String>> {
            value.as_array()?.iter().map(|one| Some(one.as_str()?.to_owned())).collect()
        };
        let suite = |value: &Value| {
            let number = |key: &str| value["counts"][key].as_u64();
            Some(SuiteResult {
                name: value["name"].as_str()?.to_owned(),
                counts: Counts {
                    passed: number("passed")?,
                    failed: number("failed")?,
                    skipped: number("skipped")?,
                },
                skips: strings(&value["skips"])?,
                seconds: value["seconds"].as_f64()?,
            })
        };
        Some(Self {
            kernel: string("kernel")?,
            distribution: string("distribution")?,
            packages: string("packages")?,
            release: string("release")?,
            backend: string("backend")?,
            attach: string("attach"),
            accel: string("accel")?,
            suites: value["suites"].as_array()?.iter().map(suite).collect::<Option<_>>()?,
            doctor: string("doctor")?,
            attribution: strings(&value["attribution"])?,
        })
    }

    fn same_run(&self, other: &Self) -> bool {
        let key = |run: &Self| (run.kernel.clone(), run.backend.clone(), run.attach.clone());
        key(self) == key(other)
    }
}

/// Where results are: a line of JSON for each run, the newest of its kind.
pub fn file() -> Result<PathBuf> {
    Ok(initramfs::directory()?.join("results.ndjson"))
}

/// Results of before.
pub fn read(path: &Path) -> Result<Vec<RunResult>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let result = |line: &str| {
        let value = serde_json::from_str(line).ok()?;
        RunResult::from_json(&value)
    };
    text.lines()
        .map(|line| result(line).with_context(|| format!("not a result, remove it: {line}")))
        .collect::<Result<_>>()
        .with_context(|| path.display().to_string())
}

/// Adds a result, in the place of the one of before.
pub fn keep(path: &Path, result: RunResult) -> Result<()> {
    let mut all = read(path)?;
    match all.iter_mut().find(|other| other.same_run(&result)) {
        Some(before) => *before = result,
        None => all.push(result),
    }
    let lines: Vec<_> = all.iter().map(|result| result.to_json().to_string()).collect();
    fs::write(path, lines.join("\n") + "\n").with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_without_a_result_has_failed() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let result = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let good = SuiteResult::new("a", &lines(result), &Ended::Exit(0), 1.0, None);
        assert_eq!(good.counts, Counts { passed: 2, failed: 0, skipped: 0 });
        let left_out = Some(("x::", "slow"));
        let nothing = SuiteResult::new("a", &lines(result), &Ended::Exit(0), 1.0, left_out);
        assert_eq!(nothing.counts.failed, 1);
        let fewer = result.replace("0 filtered", "3 filtered");
        let fewer = SuiteResult::new("a", &lines(&fewer), &Ended::Exit(0), 1.0, left_out);
        assert_eq!(fewer.counts, Counts { passed: 2, failed: 0, skipped: 3 });
        assert_eq!(fewer.skips, ["x::* (3 tests): slow"]);
        let late = Ended::Otherwise("killed".into());
        let failed = |output: &str, ended| {
            SuiteResult::new("a", &lines(output), ended, 1.0, None).counts.failed
        };
        assert_eq!(failed(result, &late), 1);
        assert_eq!(failed(result, &Ended::Exit(101)), 1);
        assert_eq!(failed("running 2 tests", &Ended::Exit(0)), 1);
        assert_eq!(failed("", &late), 1);
    }

    #[test]
    fn the_newest_result_of_a_run_is_kept() {
        let path = std::env::temp_dir().join(format!("ct-results-{}", std::process::id()));
        let run = |backend: &str, release: &str| RunResult {
            kernel: "k".into(),
            backend: backend.into(),
            release: release.into(),
            suites: vec![SuiteResult { skips: vec!["t: why".into()], ..SuiteResult::default() }],
            ..RunResult::default()
        };
        for result in [run("links", "1"), run("probes", "1"), run("links", "2")] {
            keep(&path, result).unwrap();
        }
        assert_eq!(read(&path).unwrap(), [run("links", "2"), run("probes", "1")]);
        fs::remove_file(&path).unwrap();
    }
}
