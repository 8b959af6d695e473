//! Runs the suites in kernels, and tells what came out.

use std::fs::File;
use std::io::{LineWriter, Write};

use anyhow::{Context, Result, ensure};
use conntracker_tests::is_quick;

use super::boot::Lost;
use super::initramfs::{self, Payload};
use super::kernels::{Kernel, Run};
use super::machine::Accel;
use super::protocol::{Ended, Job, Line};
use super::results::{self, RunResult, SuiteResult};
use super::session::Session;
use super::suites::{self, DOCTOR, EMULATED_RULESETS, SUITES, Suite};
use crate::counts::Counts;

/// What is asked for.
pub struct Order {
    pub kernels: Vec<&'static Kernel>,
    /// Only these suites; none is all.
    pub suites: Vec<String>,
    /// Only this backend.
    pub backend: Option<String>,
    pub no_kvm: bool,
    pub refresh: bool,
    /// What else stands on the kernels' command line.
    pub append: String,
}

/// Runs everything. A kernel that fails is counted and does not keep the others from running.
pub fn all(order: &Order) -> Result<Counts> {
    let tests = suites::build()?;
    let payload = Payload { program: super::program()?, tests, files: Vec::new() };
    let mut session = Session::new(&payload, order.no_kvm, order.refresh, &order.append)?;
    let mut sum = Counts::default();
    if let Some(kernel) = order.kernels.first() {
        session.try_kvm(kernel)?;
    }
    let [first, later] =
        [true, false].map(|first| suites::choose(session.accel, first, &order.suites));
    let (first, later) = (first?, later?);
    let quick = session.accel == Accel::Tcg && order.suites.is_empty() && is_quick();
    if quick {
        println!(
            "vm: CONNTRACKER_TESTS=quick: each suite in one run or two (xtask/src/vm/suites.rs)"
        );
    } else if session.accel == Accel::Tcg {
        say_what_is_less(&first, &later, order);
    }
    for kernel in &order.kernels {
        let runs: Vec<_> = kernel
            .runs
            .iter()
            .filter(|run| order.backend.as_ref().is_none_or(|backend| run.backend == backend))
            .collect();
        if runs.is_empty() {
            eprintln!("vm: {}: no run is asked for", kernel.name);
        }
        for (number, run) in runs.into_iter().enumerate() {
            let few = quick.then(|| suites::quick(kernel.name, *run));
            let suites = few.as_ref().unwrap_or(if number == 0 { &first } else { &later });
            let mut result = RunResult::new(kernel, *run, session.accel.name());
            if let Err(error) = one(&mut session, kernel, *run, suites, &mut result) {
                eprintln!("vm: {}: {error:#}", result.title());
                if error.downcast_ref::<Lost>().is_some_and(|lost| lost.emulator) {
                    again(&mut session, kernel, *run, suites, &mut result);
                }
            }
            missing(&mut result, suites);
            println!("vm: {} ({}): {}", result.title(), result.release, result.counts());
            sum.add(&result.counts());
            // Some suites only, or another command line, are no picture of a kernel.
            if order.suites.is_empty() && order.append.is_empty() && !quick {
                results::keep(&results::file()?, result)?;
            }
        }
    }
    Ok(sum)
}

/// Boots once more for the suites that have no result.
fn again(
    session: &mut Session,
    kernel: &Kernel,
    run: Run,
    suites: &[&'static Suite],
    result: &mut RunResult,
) {
    let done = |suite: &&&Suite| !result.suites.iter().any(|done| done.name == suite.name);
    let left: Vec<&Suite> = suites.iter().filter(done).copied().collect();
    println!("vm: {}: no BPF program is executed there: booted once more", result.title());
    if let Err(error) = one(session, kernel, run, &left, result) {
        eprintln!("vm: {}: {error:#}", result.title());
    }
}

/// Suites that have not even begun have failed.
fn missing(result: &mut RunResult, suites: &[&Suite]) {
    for suite in suites {
        if !result.suites.iter().any(|done| done.name == suite.name) {
            eprintln!("vm: {}: {} has no result", result.title(), suite.name);
            result.suites.push(SuiteResult {
                name: suite.name.to_owned(),
                counts: Counts { failed: 1, ..Counts::default() },
                ..SuiteResult::default()
            });
        }
    }
}

fn say_what_is_less(first: &[&Suite], later: &[&Suite], order: &Order) {
    if order.suites.is_empty() {
        let without = |suites: &[&Suite]| {
            let left = SUITES.iter().filter(|suite| !suites.iter().any(|s| s.name == suite.name));
            left.map(|suite| suite.name).collect::<Vec<_>>().join(", ")
        };
        println!("vm: the CPU is emulated: left out are {}", without(first));
        println!("vm: … and in all but the first run of a kernel {}", without(later));
    }
    if std::env::var_os("CONNTRACKER_RULESETS").is_none() {
        println!(
            "vm: the CPU is emulated: attribution with rulesets {EMULATED_RULESETS} of each kind"
        );
    }
}

/// One run; what it gives is in the result also if it breaks off.
fn one(
    session: &mut Session,
    kernel: &Kernel,
    run: Run,
    suites: &[&Suite],
    result: &mut RunResult,
) -> Result<()> {
    let cached = session.kernel(kernel)?;
    result.packages = cached.packages;
    let accel = session.accel;
    let job: Job = suites::job(run, accel, suites)?;
    let path = initramfs::directory()?.join(format!("{}.log", result.title().replace(' ', "-")));
    let log = File::create(&path).with_context(|| path.display().to_string())?;
    let mut log = LineWriter::new(log);
    println!("vm: {}: {}", result.title(), path.display());
    let mut step = String::new();
    let mut output: Vec<String> = Vec::new();
    session.boot(kernel, &job, |line| {
        // The log is for people; what counts is in memory.
        let _ = writeln!(log, "{line}");
        match line {
            Line::Ready(release) => result.release = release,
            Line::Start(name) => {
                step = name;
                output.clear();
            }
            Line::Text(text) => output.push(text),
            Line::End(ended, seconds) if step == DOCTOR => {
                if ended != Ended::Exit(0) {
                    println!("vm: doctor: {ended:?} after {seconds} s");
                }
                result.doctor = output.join("\n");
            }
            Line::End(ended, seconds) => {
                let suite = SuiteResult::new(
                    &step,
                    &output,
                    &ended,
                    seconds,
                    suites::left_out(&step, accel),
                );
                tell(&suite, &output, &ended);
                if step == "attribution" {
                    result.attribution = totals(&output);
                }
                result.suites.push(suite);
            }
            Line::Done | Line::Broken(_) => {}
        }
    })?;
    ensure!(result.release == cached.release, "the guest is not {}", cached.release);
    Ok(())
}

/// One line for a suite; all that it said if it failed.
fn tell(suite: &SuiteResult, output: &[String], ended: &Ended) {
    let SuiteResult { name, counts, skips, seconds } = suite;
    println!("vm:   {name:<12} {counts}, {seconds:.0} s");
    for skip in skips {
        println!("vm:     skipped: {skip}");
    }
    if counts.failed > 0 {
        for line in output {
            println!("    | {line}");
        }
        if let Ended::Otherwise(how) = ended {
            println!("vm:   {name}: {how}");
        }
    }
}

/// The lines of the suite `attribution` that sum a kind of rulesets up.
fn totals(output: &[String]) -> Vec<String> {
    let total = |line: &&String| line.contains(" rulesets, ") && line.ends_with("s)");
    output.iter().filter(total).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_that_never_ran_have_failed() {
        let suites: Vec<&Suite> = SUITES.iter().take(2).collect();
        let done = SuiteResult {
            name: SUITES[0].name.to_owned(),
            counts: Counts { passed: 3, ..Counts::default() },
            ..SuiteResult::default()
        };
        let mut result = RunResult { suites: vec![done], ..RunResult::default() };
        missing(&mut result, &suites);
        assert_eq!(result.counts(), Counts { passed: 3, failed: 1, skipped: 0 });
    }
}
