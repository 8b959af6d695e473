//! `--format html`: pages of recordings in a browser.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod samples;

use std::env;
use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::time::Instant;

use conntracker_tests::browser::{Browser, Medium};
use conntracker_tests::tracer;
use samples::{COMMENT, NAMED, SHOWN};
use tempfile::NamedTempFile;

/// The page has shown all.
const SHOWS: &str = "document.documentElement?.dataset.shown";

/// A page in a browser.
struct Page {
    browser: Browser,
    _file: NamedTempFile,
}

impl Deref for Page {
    type Target = Browser;

    fn deref(&self) -> &Browser {
        &self.browser
    }
}

impl Page {
    /// That of a recording.
    fn of(recording: &Path) -> Self {
        let file = tempfile::Builder::new().suffix(".html").tempfile().unwrap();
        let output = file.path().to_str().unwrap();
        let start = Instant::now();
        tracer::stdout(["report", recording.to_str().unwrap(), "--format", "html", "-o", output])
            .unwrap();
        let size = fs::metadata(file.path()).unwrap().len();
        println!("page of {size} bytes, made in {:.2?}", start.elapsed());
        let browser = Browser::start().unwrap();
        browser.open(file.path(), SHOWS).unwrap();
        let paints = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime";
        let painted = browser.eval(paints).unwrap();
        println!(
            "painted first after {painted} ms, all shown after {} ms",
            browser.text(SHOWS).unwrap()
        );
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

    /// How many flows are listed, of how many.
    fn count(&self) -> (u64, u64) {
        let text = self.text("document.getElementById('count').textContent").unwrap();
        let numbers: Vec<u64> = text
            .split(|c: char| !c.is_ascii_digit() && c != ',')
            .filter_map(|number| number.replace(',', "").parse().ok())
            .collect();
        match numbers[..] {
            [all] => (all, all),
            [listed, all] => (listed, all),
            _ => panic!("{text}"),
        }
    }

    fn list(&self, expression: &str) -> Vec<String> {
        let value = self.eval(&format!("Array.from({expression})")).unwrap();
        let items = value.as_array().unwrap().iter();
        items
            .map(|item| item.as_str().unwrap_or_else(|| panic!("{expression}: {item}")).to_owned())
            .collect()
    }

    /// What the rows of the table in view say.
    fn rows(&self) -> Vec<String> {
        self.list(
            "document.querySelectorAll('.line'), (row) => row.innerText.replace(/\\s+/g, ' ')",
        )
    }

    fn answer(&self) -> String {
        self.text("document.getElementById('answer').textContent").unwrap()
    }

    fn chips(&self) -> Vec<String> {
        self.list("document.querySelectorAll('#chips bdi'), (chip) => chip.textContent")
    }

    /// Clicks on the row of the ruleset whose text begins so.
    fn click_rule(&self, text: &str) {
        let row = format!(
            "[...document.querySelectorAll('.row')].find((row) => row.querySelector('code').textContent.startsWith('{text}'))"
        );
        self.click(&row).unwrap();
    }
}

/// A report of a recording in another format.
fn report(recording: &Path, format: &str) -> String {
    tracer::stdout(["report", recording.to_str().unwrap(), "--format", format]).unwrap()
}

fn total(recording: &Path, name: &str) -> u64 {
    let report: serde_json::Value = serde_json::from_str(&report(recording, "json")).unwrap();
    report["footer"]["totals"][name].as_u64().unwrap()
}

#[test]
fn it_opens_on_the_answer_and_asks_nobody() {
    let page = Page::of(samples::real());
    let answer = page.answer();
    let (packets, flows) =
        (total(samples::real(), "dropped_packets"), total(samples::real(), "dropped"));
    assert!(
        answer.starts_with(&format!("{packets} packets of {flows} flows dropped, ")),
        "{answer}"
    );
    assert!(answer.contains("by inet fw/forward rule 6"), "{answer}");
    assert!(answer.contains("no traced packet met before the ruleset changed on "), "{answer}");
    assert!(answer.contains("lost in the kernel"), "{answer}");
    assert_eq!(page.count().1, total(samples::real(), "flows"));
    assert_eq!(
        page.list("document.querySelectorAll('.change text'), (text) => text.textContent"),
        ["ruleset 2"]
    );
    // What was dropped stands on top, and the flows are all there.
    assert!(page.rows()[0].starts_with("✕ dropped ✕ 3 udp 10.77.1.2:300"), "{:?}", page.rows()[0]);
    page.picture("light");
    page.is_quiet();
}

#[test]
fn the_chosen_flow_has_the_steps_of_format_path_and_lights_its_hooks() {
    let page = Page::of(samples::real());
    let paths = report(samples::real(), "path");
    for (from, to) in [("10.77.1.2:30012", "10.77.2.2:9999"), ("10.77.1.2:30003", "10.77.1.1:8080")]
    {
        page.press("/").unwrap();
        page.write(&format!("{from} {to}")).unwrap();
        assert_eq!(page.count().0, 1, "{:?}", page.rows());
        // By the keyboard alone.
        page.press("ArrowDown").unwrap();
        page.press("Enter").unwrap();
        let shown = page.list("document.querySelectorAll('#flow .path h4, #flow .step'), (line) => \
            line.matches('h4') ? line.textContent.replace(', ✕ DROPPED', ', DROPPED') \
            : [...line.children].map((part) => part.textContent.replace('✕ ', '').trim()).join(' ')");
        let (address, port) = to.split_once(':').unwrap();
        let end =
            format!("(port={}) to dst = {address} (port={port})", from.split_once(':').unwrap().1);
        let below = paths.lines().skip_while(|line| !line.contains(&end)).skip(1);
        let below = below.take_while(|line| line.starts_with("    "));
        let hook =
            |line: &&str| line.starts_with("      ") && !line.trim_start().starts_with(['s', 'd']);
        let want: Vec<String> = below
            .filter(hook)
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let shown: Vec<String> = shown
            .iter()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert!(shown.len() > 4, "{shown:#?}");
        assert_eq!(shown, want);
        let mut lit =
            page.list("document.querySelectorAll('.hook.lit'), (hook) => hook.dataset.hook");
        lit.sort();
        let dropped = to.ends_with("9999");
        assert_eq!(
            lit,
            if dropped {
                &["forward", "prerouting"][..]
            } else {
                &["forward", "postrouting", "prerouting"]
            }
        );
        let stopped =
            page.list("document.querySelectorAll('.hook.stopped'), (hook) => hook.dataset.hook");
        assert_eq!(stopped, if dropped { &["forward"][..] } else { &[] });
        page.eval("document.activeElement.blur()").unwrap();
        page.press("Escape").unwrap();
        assert_eq!(page.eval("document.getElementById('flow').hidden").unwrap(), true);
        page.press("Escape").unwrap();
        assert_eq!(page.count().0, page.count().1);
    }
    page.is_quiet();
}

#[test]
fn a_click_is_a_filter_and_a_chip_takes_it_away() {
    let page = Page::of(samples::real());
    let (_, all) = page.count();
    page.click("document.querySelector('[data-hook=input] rect')").unwrap();
    let (input, _) = page.count();
    assert!(input > 0 && input < all, "{input} of {all}");
    assert_eq!(page.chips(), ["hook input"]);
    assert!(
        page.answer().starts_with(
            "In this selection 12 packets of 12 flows dropped, all by inet fw/input policy"
        ),
        "{}",
        page.answer()
    );
    page.click("document.querySelector('#chips .chip')").unwrap();
    assert_eq!(page.count().0, all);

    page.click_rule("udp dport 9999");
    assert_eq!((page.count().0, page.chips()), (6, vec!["inet fw/forward rule 6".to_owned()]));
    assert!(page.rows().iter().all(|row| row.contains(":9999")), "{:#?}", page.rows());
    // The same again takes it away.
    page.click_rule("udp dport 9999");
    assert_eq!(page.count().0, all);

    let cell = "[...document.querySelectorAll('[data-filter=pair]')].find((cell) => cell.title === 'toclient → -')";
    page.click(cell).unwrap();
    let pair = page.count().0;
    assert!(pair > 0 && pair < all);
    assert!(page.rows().iter().all(|row| row.contains("toclient → - ")), "{:#?}", page.rows());
    // Another kind of filter must hold as well, another one of the same kind is an alternative.
    page.click_rule("udp dport 9999");
    assert_eq!(page.count().0, 0);
    page.press("Escape").unwrap();
    assert_eq!((page.count().0, page.chips()), (all, vec![]));

    let cause = "[...document.querySelectorAll('[data-filter=cause]')].find((row) => row.textContent.includes('NEIGH_FAILED'))";
    page.click(cause).unwrap();
    assert_eq!((page.count().0, page.chips()), (4, vec!["lost by NEIGH_FAILED".to_owned()]));
    page.press("Escape").unwrap();

    page.eval("document.querySelector('#timeline svg').focus()").unwrap();
    page.press("End").unwrap();
    page.press("Enter").unwrap();
    assert!(
        page.count().0 < all && page.chips()[0].starts_with("seen "),
        "{:?} {:?}",
        page.count(),
        page.chips()
    );
    page.press("Escape").unwrap();
    page.is_quiet();
}

#[test]
fn text_finds_addresses_ports_rules_and_processes() {
    let page = Page::of(samples::real());
    let (_, all) = page.count();
    page.press("/").unwrap();
    for (text, row) in [
        ("10.77.2.99", " 10.77.2.99:53 "),
        ("10.77.2.99/32", " 10.77.2.99:53 "),
        ("9999", ":9999 "),
        ("10.77.1.1:161", " 10.77.1.1:161 "),
        ("udp :161 reloaded", "nothing"),
        ("udp reloaded", ":9999 "),
        ("icmp", " icmp "),
        ("neigh_failed", "◇ lost"),
        ("nobody-has-this-name", "nothing"),
    ] {
        page.write(text).unwrap();
        let (listed, _) = page.count();
        assert!(listed < all, "{text}");
        assert_eq!(listed == 0, row == "nothing", "{text}: {listed}");
        assert!(page.rows().iter().all(|found| found.contains(row)), "{text}: {:#?}", page.rows());
        page.press("Escape").unwrap();
        assert_eq!(page.count().0, all);
    }
    // Translated addresses are found too.
    page.write("10.77.2.1:30003").unwrap();
    assert!(page.count().0 > 0);
    // Enter makes a filter of what was typed.
    page.press("Enter").unwrap();
    assert_eq!(page.chips(), ["10.77.2.1:30003"]);
    page.is_quiet();
}

#[test]
fn hits_stand_in_the_margin_of_the_ruleset() {
    let page = Page::of(samples::real());
    let rows = page.list("document.querySelectorAll('#ruleset .row'), (row) => row.innerText.replace(/\\s+/g, ' ').trim()");
    for row in [
        "18 ✕ 18 6 udp dport 9999 counter drop comment \"reloaded\"",
        "12 ✕ 12 policy drop",
        "– 5 tcp dport 9 counter drop comment \"discard\"",
    ] {
        assert!(rows.iter().any(|found| found == row), "no {row}: {rows:#?}");
    }
    // A chain that no packet met is there, closed.
    let chains = page.list("document.querySelectorAll('#ruleset summary'), (chain) => `${chain.parentElement.open} ${chain.textContent}`");
    assert!(chains.contains(&"false never · 0 of 2 met".to_owned()), "{chains:#?}");
    page.is_quiet();
}

#[test]
fn fifty_thousand_flows_are_smooth() {
    let (_directory, recording) = samples::many(50_000);
    let recorded = fs::metadata(&recording).unwrap().len();
    println!("recording of {recorded} bytes");
    let page = Page::of(&recording);
    assert_eq!(page.count(), (50_000, 50_000));
    assert!(page.rows().len() < 100, "only the rows in view are elements");
    let time = |what: &str| {
        let timed = format!(
            "(() => {{ const start = performance.now(); {what}; return performance.now() - start; }})()"
        );
        let milliseconds = page.eval(&timed).unwrap();
        println!("{what}: {milliseconds} ms");
    };
    time("document.querySelector('.viewport').scrollTop = 600000");
    page.press("/").unwrap();
    let start = Instant::now();
    page.write("10.100.78.32").unwrap();
    println!("search shown after {:.2?}", start.elapsed());
    assert_eq!(page.count().0, 1);
    page.press("Escape").unwrap();
    // The last row is reached, and is the last flow.
    page.press("ArrowDown").unwrap();
    let start = Instant::now();
    page.press("End").unwrap();
    println!("last row shown after {:.2?}", start.elapsed());
    let last = page.text("document.activeElement.getAttribute('aria-rowindex')").unwrap();
    assert_eq!(last, "50001");
    page.click("document.querySelector('[data-hook=forward] rect')").unwrap();
    assert!(page.count().0 > 1_000 && page.count().0 < 50_000);
    time("document.querySelector('#chips .chip').click()");
    page.eval("scrollTo(0, 0)").unwrap();
    page.picture("many");
    page.is_quiet();
}

#[test]
fn hostile_names_are_text_wherever_they_are() {
    let (_directory, recording) = samples::with_hostile_names();
    let page = Page::of(&recording);
    let hacked = || page.eval("typeof globalThis.hacked").unwrap();
    let text = "document.body.innerText + document.title";
    let mut shown = page.text(text).unwrap();
    // All there is to click and to open.
    page.eval("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        .unwrap();
    for filter in ["hook", "cause", "pair", "rule"] {
        page.click(&format!("document.querySelector('[data-filter={filter}]')")).unwrap();
        shown += &page.text(text).unwrap();
        page.press("Escape").unwrap();
    }
    page.click("document.querySelector('.line')").unwrap();
    shown += &page.text(text).unwrap();
    page.press("/").unwrap();
    page.write("process</script").unwrap();
    assert!(page.count().0 > 0);
    page.press("ArrowDown").unwrap();
    page.press("Enter").unwrap();
    shown += &page.text(text).unwrap();
    for name in NAMED {
        assert!(shown.contains(&format!("{name}{SHOWN}")), "{name} is not shown: {shown}");
    }
    assert!(shown.contains(COMMENT), "the comment of a rule that is listed");
    page.medium(Medium::Print).unwrap();
    page.print().unwrap();
    assert_eq!(hacked(), "undefined");
    assert_eq!(
        page.eval("document.querySelectorAll('img, iframe, object, link, base').length").unwrap(),
        0
    );
    assert_eq!(page.eval("document.scripts.length").unwrap(), 1);
    page.picture("hostile");
    page.is_quiet();
}

#[test]
fn what_the_policy_forbids_is_forbidden() {
    let page = Page::of(samples::real());
    // The test does what a hole in the script would let others do.
    let inserted = "(() => { try { document.body.insertAdjacentHTML('beforeend', '<b>x</b>'); return 'done'; } \
        catch (error) { return error.name; } })()";
    assert_eq!(page.text(inserted).unwrap(), "TypeError");
    page.eval(
        "(() => { const script = document.createElement('script'); \
        try { script.text = 'globalThis.hacked = 1'; document.body.append(script); } catch {} })()",
    )
    .unwrap();
    page.eval("(() => { const image = document.createElement('img'); image.src = 'http://192.0.2.1/x.png'; document.body.append(image); })()").unwrap();
    page.eval("fetch('http://192.0.2.1/').catch(() => {})").unwrap();
    assert_eq!(page.eval("typeof globalThis.hacked").unwrap(), "undefined");
    let complaints = page.complaints().unwrap().join("\n");
    for directive in ["img-src", "connect-src"] {
        assert!(complaints.contains(directive), "{directive}: {complaints}");
    }
}

#[test]
fn what_is_missing_is_said_on_top() {
    let whole = Page::of(samples::real());
    assert_eq!(whole.eval("document.getElementById('banner').hidden").unwrap(), true);
    let mut bytes = fs::read(samples::real()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    bytes.truncate(bytes.len() - 100);
    let damaged = NamedTempFile::new().unwrap();
    fs::write(damaged.path(), bytes).unwrap();
    let page = Page::of(damaged.path());
    let banner = page.text("document.getElementById('banner').innerText").unwrap();
    assert!(banner.contains("This report is not complete"), "{banner}");
    assert!(banner.contains("damaged or missing blocks of the recording: left out"), "{banner}");
    let notes = page.text("document.getElementById('notes').textContent").unwrap();
    assert!(notes.contains("at offset") && notes.contains("left out"), "{notes}");
    // The last counts are lost, and with them how the clocks were related then.
    let lane = page.text("document.querySelector('#timeline svg').textContent").unwrap();
    assert!(!lane.contains("most 0 in"), "flows were first seen in the time of the trace: {lane}");
    page.picture("damaged");
    page.is_quiet();
}

#[test]
fn it_is_there_in_the_dark_on_paper_and_on_a_narrow_screen() {
    let page = Page::of(samples::real());
    let background = || page.text("getComputedStyle(document.body).backgroundColor").unwrap();
    let light = background();
    page.medium(Medium::Dark).unwrap();
    assert_ne!(background(), light);
    page.picture("dark");
    page.medium(Medium::Light).unwrap();
    page.size(400, 900).unwrap();
    let overflow = page
        .eval("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        .unwrap();
    assert_eq!(overflow, 0, "nothing leads out of a narrow window");
    page.picture("narrow");
    page.size(1440, 1000).unwrap();
    page.press("/").unwrap();
    page.write("9999").unwrap();
    page.press("ArrowDown").unwrap();
    page.press("Enter").unwrap();
    page.medium(Medium::Print).unwrap();
    page.eval("dispatchEvent(new Event('beforeprint'))").unwrap();
    assert_eq!(page.rows().len() as u64, page.count().0, "all rows stand on paper");
    assert_eq!(
        page.text("getComputedStyle(document.getElementById('search')).display").unwrap(),
        "none"
    );
    page.picture("paper");
    let pdf = page.print().unwrap();
    assert!(pdf.starts_with(b"%PDF") && pdf.len() > 10_000, "{} bytes", pdf.len());
    page.is_quiet();
}
