//! `--format html`: pages of recordings in a browser.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod samples;

use std::env;
use std::fs;
use std::path::Path;
use std::time::Instant;

use conntracker_tests::browser::{Browser, Medium};
use conntracker_tests::tracer;
use samples::{COMMENT, HOSTILE, NAMED, SHOWN};
use tempfile::NamedTempFile;

/// The page has shown all.
const SHOWS: &str = "document.documentElement?.dataset.shown";

/// How many flows are listed.
const COUNT: &str = "document.getElementById('count').textContent";

/// The page of a recording, in a browser.
struct Page {
    browser: Browser,
    _file: NamedTempFile,
}

impl std::ops::Deref for Page {
    type Target = Browser;

    fn deref(&self) -> &Browser {
        &self.browser
    }
}

impl Page {
    fn of(recording: &Path, args: &[&str]) -> Self {
        let file = tempfile::Builder::new().suffix(".html").tempfile().unwrap();
        if let Some(d) = env::var_os("KEEP") { fs::copy(recording, Path::new(&d).join("sample.rec")).unwrap(); }
        let output = file.path().to_str().unwrap();
        let all = ["report", recording.to_str().unwrap(), "--format", "html", "-o", output];
        let start = Instant::now();
        tracer::stdout(all.into_iter().chain(args.iter().copied())).unwrap();
        eprintln!("made in {:?}: {} bytes", start.elapsed(), fs::metadata(file.path()).unwrap().len());
        let browser = Browser::start().unwrap();
        browser.open(file.path(), SHOWS).unwrap();
        eprintln!("shown after {} ms", browser.text(SHOWS).unwrap());
        Self { browser, _file: file }
    }

    /// Nothing was asked of anybody, and the browser has nothing to say.
    fn is_quiet(&self) {
        let requests = self.requests().unwrap();
        assert!(matches!(&requests[..], [one] if one.starts_with("file:///")), "{requests:#?}");
        assert_eq!(self.complaints().unwrap(), [] as [String; 0]);
    }

    /// Keeps what the window shows, if somebody wants to see it.
    fn picture(&self, name: &str) {
        if let Some(directory) = env::var_os("CONNTRACKER_SCREENSHOTS") {
            let picture = self.screenshot().unwrap();
            fs::write(Path::new(&directory).join(format!("{name}.png")), picture).unwrap();
        }
    }

    fn number(&self, expression: &str) -> u64 {
        let value = self.eval(expression).unwrap();
        value.as_f64().unwrap_or_else(|| panic!("{expression} is {value}")) as u64
    }
}

#[test]
fn pictures() {
    let page = Page::of(samples::real(), &[]);
    page.picture("light");
    page.click("document.querySelector('.line.bad')").unwrap();
    page.eval("scrollTo(0, document.getElementById('flows').offsetTop - 60)").unwrap();
    page.picture("flow");
    page.eval("scrollTo(0, 0)").unwrap();
    page.picture("flow-top");
    page.medium(Medium::Dark).unwrap();
    page.picture("dark");
    page.eval("scrollTo(0, 10000)").unwrap();
    page.picture("dark-bottom");
    page.is_quiet();
}
