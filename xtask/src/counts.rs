//! Counts tests by what test programs print.

/// How a test says that it is not run here (`conntracker_tests::skip`): to the program that runs it,
/// it has passed.
const SKIPPED: &str = "test skipped: ";

/// Results of one or of all test programs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

/// Reads the output of test programs, line by line.
#[derive(Debug, Default)]
pub struct Reader {
    /// The sum so far.
    pub counts: Counts,
    /// Tests that were skipped, and why.
    pub skips: Vec<String>,
    /// Test programs that came to their end.
    pub programs: u64,
    /// Tests that an argument of the test program left out.
    pub filtered: u64,
    /// Skipped tests of the program that runs.
    pending: u64,
}

impl Reader {
    pub fn line(&mut self, line: &str) {
        // It may stand in the middle of a line: several threads print.
        if let Some((_, skip)) = line.split_once(SKIPPED) {
            self.skips.push(skip.to_owned());
            self.pending += 1;
        } else if let Some(mut counts) = Counts::of(line) {
            let pending = std::mem::take(&mut self.pending);
            counts.passed = counts.passed.saturating_sub(pending);
            counts.skipped += pending;
            self.counts.add(&counts);
            self.filtered += filtered(line);
            self.programs += 1;
        }
    }
}

/// The number of tests left out, from the line that [`Counts::of`] reads.
fn filtered(line: &str) -> u64 {
    let item = line.split("; ").find_map(|item| item.strip_suffix(" filtered out"));
    item.and_then(|number| number.parse().ok()).unwrap_or_default()
}

impl Counts {
    /// Reads `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; …`.
    fn of(line: &str) -> Option<Self> {
        let (_, list) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let mut counts = Self::default();
        for item in list.split("; ") {
            let Some((number, what)) = item.split_once(' ') else { continue };
            let field = match what {
                "passed" => &mut counts.passed,
                "failed" => &mut counts.failed,
                "ignored" => &mut counts.skipped,
                _ => continue,
            };
            *field = number.parse().ok()?;
        }
        Some(counts)
    }

    pub fn add(&mut self, other: &Self) {
        let Self { passed, failed, skipped } = other;
        self.passed += passed;
        self.failed += failed;
        self.skipped += skipped;
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { passed, failed, skipped } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_summed() {
        let mut reader = Reader::default();
        for line in [
            "running 6 tests",
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.00s",
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s",
        ] {
            reader.line(line);
        }
        assert_eq!(reader.counts, Counts { passed: 7, failed: 3, skipped: 1 });
        assert_eq!((reader.programs, reader.filtered), (2, 7));
    }

    #[test]
    fn a_test_that_skips_itself_has_not_passed() {
        let mut reader = Reader::default();
        for line in [
            "test one ... ok",
            "test test skipped: two: no links",
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            reader.line(line);
        }
        assert_eq!(reader.counts, Counts { passed: 2, failed: 0, skipped: 1 });
        assert_eq!(reader.skips, ["two: no links"]);
    }
}
