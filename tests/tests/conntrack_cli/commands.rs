//! Each command line of [`crate::table`] with both programs, in twin namespaces prepared alike: the same
//! exit status, output, summary, and table afterwards.

use conntracker::Conntrack;
use conntracker::conntrack::ConntrackEntry;
use conntracker_tests::lab::{Host, Lab};

use crate::entries::{connect, fill, prepare};
use crate::programs::{Programs, Said, Which, masked, sorted, timeless, words};
use crate::table::{CASES, Case, Want};

/// The table, without what tells two namespaces apart.
fn table(conntrack: &mut Conntrack) -> Vec<String> {
    let entries = conntrack.dump().unwrap().into_iter().map(Result::unwrap);
    let mut lines: Vec<String> = entries.map(|entry| describe(&entry)).collect();
    lines.sort();
    lines
}

fn describe(entry: &ConntrackEntry) -> String {
    // Nobody else makes packets here: seconds pass at the same rate, to within the time that
    // programs take.
    let timeout = entry.timeout.map(|timeout| (timeout + 50) / 100);
    let mut same = entry.clone();
    same.timeout = timeout;
    (same.id, same.start, same.use_count, same.timestamp_event) = (None, None, None, None);
    format!("{same:?}")
}

struct Twin<'h> {
    host: &'h Host,
    which: Which,
    conntrack: Conntrack,
}

impl<'h> Twin<'h> {
    fn new(host: &'h Host, which: Which) -> Self {
        prepare(host);
        host.sysctl("net.netfilter.nf_conntrack_timestamp", "0").unwrap();
        Self { host, which, conntrack: connect(host) }
    }

    fn run(&mut self, programs: &Programs, line: &str) -> (Said, Vec<String>) {
        fill(self.host, &mut self.conntrack);
        let said = programs.run(self.host, self.which, &words(line));
        let output = timeless(&without_ids(&said.stdout));
        let said = Said {
            stdout: sorted(&output).join("\n"),
            // What is said first counts; the rest are hints.
            stderr: said.stderr.lines().next().unwrap_or_default().to_owned(),
            ..said
        };
        (said, table(&mut self.conntrack))
    }
}

/// Identifiers of entries depend on where they lie.
fn without_ids(text: &str) -> String {
    let mut lines = String::new();
    for line in text.lines() {
        let line = masked(line, "<id>", "<");
        let line = match line.split_once(" use=") {
            Some((start, end)) => format!("{start} use={}", masked(end, " id=", " ")),
            None => line,
        };
        lines += &(line + "\n");
    }
    lines
}

fn run(part: usize, parts: usize) {
    let lab = Lab::new().unwrap();
    let programs = Programs::new();
    let mut theirs = Twin::new(&lab.client, Which::Theirs);
    let mut ours = Twin::new(&lab.server, Which::Ours);
    let mut failures = Vec::new();
    for Case { line, want } in CASES.iter().skip(part).step_by(parts) {
        let (mut their, their_table) = theirs.run(&programs, line);
        let (mut our, our_table) = ours.run(&programs, line);
        if *want == Want::SameButLines {
            let all: Vec<&str> = our.stdout.lines().collect();
            if their.stdout.lines().all(|line| all.contains(&line)) {
                (their.stdout, our.stdout) = Default::default();
            }
        }
        let differs = [
            (their.status != our.status, format!("status {:?} {:?}", their.status, our.status)),
            (their.stdout != our.stdout, format!("output\n{}\n---\n{}", their.stdout, our.stdout)),
            (their.stderr != our.stderr, format!("said\n{}\n{}", their.stderr, our.stderr)),
            (their_table != our_table, format!("table\n{}", diff(&their_table, &our_table))),
        ];
        let differs: Vec<String> =
            differs.into_iter().filter(|(differs, _)| *differs).map(|(_, how)| how).collect();
        match want {
            Want::Same | Want::SameButLines if !differs.is_empty() => {
                failures.push(format!("{line}: {}", differs.join("; ")));
            }
            Want::Fixed(_) if differs.is_empty() => {
                failures.push(format!("{line}: does not differ"));
            }
            Want::Fixed(status) if our.status != Some(*status) => {
                failures.push(format!("{line}: status {:?}: {}", our.status, our.stderr));
            }
            _ => {}
        }
    }
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n\n"));
}

fn diff(theirs: &[String], ours: &[String]) -> String {
    let only = |these: &[String], those: &[String], sign: &str| {
        let lines = these.iter().filter(|line| !those.contains(line));
        lines.flat_map(|line| [sign, line, "\n"]).collect::<String>()
    };
    only(theirs, ours, "< ") + &only(ours, theirs, "> ")
}

#[test]
fn the_table_of_command_lines_is_large_enough() {
    let same = CASES.iter().filter(|case| !matches!(case.want, Want::Fixed(_))).count();
    assert!(same >= 150, "{same}");
    let mut lines: Vec<&str> = CASES.iter().map(|case| case.line).collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), CASES.len(), "some stand there twice");
}

#[test]
fn command_lines_do_the_same_first_half() {
    run(0, 2);
}

#[test]
fn command_lines_do_the_same_second_half() {
    run(1, 2);
}
