use std::io::Read;

use flate2::read::DeflateDecoder;
use proptest::prelude::*;
use serde_json::Value;

use super::{columns::zigzag, *};
use crate::report::fixtures;

fn page(report: &Report) -> String {
    let mut out = Vec::new();
    render(report, &Background::default(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The elements of columns: kind, name, contents.
fn elements(page: &str) -> Vec<(&str, &str, &str)> {
    let begin = "<script type=\"application/octet-stream\" data-";
    let element = |rest: &&str| rest.starts_with("json") || rest.starts_with("numbers");
    page.split(begin)
        .filter(element)
        .map(|rest| {
            let (kind, rest) = rest.split_once("=\"").unwrap();
            let (name, rest) = rest.split_once("\">").unwrap();
            (kind, name, rest.split_once("</script>").unwrap().0)
        })
        .collect()
}

fn inflated(page: &str, name: &str) -> Vec<u8> {
    let (.., base64) = elements(page).into_iter().find(|(_, of, _)| *of == name).unwrap();
    let mut bytes = Vec::new();
    DeflateDecoder::new(&STANDARD.decode(base64).unwrap()[..]).read_to_end(&mut bytes).unwrap();
    bytes
}

fn json(page: &str, name: &str) -> Value {
    serde_json::from_slice(&inflated(page, name)).unwrap()
}

fn numbers(page: &str, name: &str) -> Vec<u64> {
    let bytes = inflated(page, name);
    bytes
        .split_inclusive(|byte| byte & 0x80 == 0)
        .map(|number| {
            number.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
        })
        .collect()
}

/// The document without its columns.
fn without_columns(page: &str) -> String {
    elements(page)
        .into_iter()
        .fold(page.to_owned(), |page, (.., base64)| page.replacen(base64, "", 1))
}

#[test]
fn nothing_of_the_data_stands_in_the_document() {
    let mut hostile = fixtures::sample();
    hostile.header.host = "</script><b>".to_owned();
    hostile.header.notes = vec!["--><img src=x>".to_owned(); 3];
    hostile.header.namespaces.iter_mut().for_each(|namespace| namespace.name = "\"'><".to_owned());
    let plain = page(&fixtures::report(Vec::new()));
    assert_eq!(without_columns(&page(&hostile)), without_columns(&plain));
}

#[test]
fn the_policy_allows_this_script_and_this_style_alone() {
    let page = page(&fixtures::report(Vec::new()));
    let between =
        |begin: &str, end: &str| page.split_once(begin).unwrap().1.split_once(end).unwrap().0;
    let policy = between("Content-Security-Policy\" content=\"", "\"");
    let script = between("<script type=\"module\">", "</script>");
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(policy.contains(&format!("script-src '{}'; ", hash(script))), "{policy}");
    assert!(
        policy.contains(&format!("style-src '{}'; ", hash(between("<style>", "</style>")))),
        "{policy}"
    );
    // SHA-256 of nothing.
    assert_eq!(hash(""), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
}

#[test]
fn elements_are_made_of_text_alone() {
    for part in SCRIPT {
        for word in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "</script",
            "<!--",
            "http:",
            "https:",
            "import ",
        ] {
            assert!(
                !part.contains(word)
                    || (word == "http:" && part.contains("http://www.w3.org/2000/svg")),
                "{word}"
            );
        }
    }
    for word in ["url(\"", "url('", "url(http", "@import"] {
        assert!(!STYLE.contains(word), "{word}");
    }
}

#[test]
fn columns_have_a_number_for_each_flow() {
    let report = fixtures::sample();
    let page = page(&report);
    let flows = report.flows.len();
    for name in [
        "netns", "protocol", "src", "dst", "flags", "flows", "first", "last", "drops", "paths",
        "remarks",
    ] {
        assert_eq!(numbers(&page, name).len(), flows, "{name}");
    }
    let totals = Totals::of(&report.flows);
    let dropped: u64 = totals.dropped_packets + totals.lost_packets;
    assert_eq!(numbers(&page, "drop_packets").iter().sum::<u64>(), dropped);
    assert_eq!(
        numbers(&page, "drop_packets").len() as u64,
        numbers(&page, "drops").iter().sum::<u64>()
    );
    let paths: u64 = numbers(&page, "paths").iter().sum();
    assert_eq!(numbers(&page, "path_shape").len() as u64, paths);
    let traced: u64 =
        report.flows.iter().flat_map(|flow| flow.paths.iter()).map(|(_, packets)| packets).sum();
    assert_eq!(numbers(&page, "path_packets").iter().sum::<u64>(), traced);
    let words = json(&page, "words");
    let last = words.as_array().unwrap().len() as u64;
    for name in [
        "netns",
        "protocol",
        "status",
        "state",
        "iif",
        "oif",
        "process",
        "remarks",
        "path_taken",
        "path_nat",
    ] {
        assert!(numbers(&page, name).iter().all(|&word| word < last), "{name}");
    }
    assert_eq!(words[0], "");
}

#[test]
fn shapes_have_the_steps_in_order_with_their_depths() {
    let page = page(&fixtures::sample());
    let shapes = json(&page, "shapes");
    let sites = json(&page, "sites");
    let forward = shapes
        .as_array()
        .unwrap()
        .iter()
        .find(|shape| shape["hook"] == "forward" && shape["dropped"] == true);
    let steps = forward.unwrap()["steps"].as_array().unwrap();
    let row = |step: &Value| {
        let site = &sites[step[0].as_u64().unwrap() as usize];
        (
            site["chain"].as_str().unwrap().to_owned(),
            step[1].as_str().unwrap().to_owned(),
            step[3].as_u64().unwrap(),
            step[4] == 1,
        )
    };
    let want = [
        ("forward", "jump", 0, false),
        ("user", "unknown", 1, false),
        ("user", "return", 1, false),
        ("forward", "drop", 0, true),
    ];
    let want = want
        .map(|(chain, verdict, depth, ended)| (chain.to_owned(), verdict.to_owned(), depth, ended));
    assert_eq!(steps.iter().map(row).collect::<Vec<_>>(), want);
    // The text of a rule is in one line, as in other formats.
    assert!(
        sites.as_array().unwrap().iter().any(|site| site["text"] == "counter jump { drop }"),
        "{sites:#}"
    );
}

#[test]
fn a_rule_is_the_same_wherever_it_stood() {
    use crate::{
        firewall::listings::Listings,
        model::{NetnsId, path::SiteKind, table::Family},
    };
    let json = r#"{"nftables": [{"table": {"family": "inet", "name": "fw", "handle": 1}},
        {"chain": {"family": "inet", "table": "fw", "name": "in", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
        {"rule": {"family": "inet", "table": "fw", "chain": "in", "handle": 13, "expr": [{"accept": null}]}}]}"#;
    let ruleset = Listings { json, ..Listings::default() }.ruleset().unwrap();
    let background = Background { timeline: None, rulesets: vec![(NetnsId(0), ruleset)] };
    // Handle 13 was at position 3 once, and is at position 1 now.
    let [rule, policy, other] = [(SiteKind::Rule, 3), (SiteKind::Policy, 9), (SiteKind::Rule, 4)]
        .map(|(kind, position)| fixtures::nft(Family::Inet, "fw", "in", kind, position));
    let mut rules = Rules::default();
    let listed = serde_json::to_value(rules.listed(&background)).unwrap();
    assert_eq!(listed[0]["chains"][0]["base"], "filter hook input priority 0");
    let rows = listed[0]["chains"][0]["rows"].as_array().unwrap();
    assert_eq!(
        rows.iter().map(|row| row["text"].as_str().unwrap()).collect::<Vec<_>>()[1],
        "policy drop"
    );
    for (netns, site) in [(0, &rule), (0, &policy), (0, &other), (1, &rule), (0, &rule)] {
        rules.site(NetnsId(netns), site);
    }
    let sites = serde_json::to_value(rules.sites()).unwrap();
    let numbers: Vec<_> =
        sites.as_array().unwrap().iter().map(|site| site["rule"].as_u64().unwrap()).collect();
    assert_eq!(
        numbers,
        [rows[0]["rule"].as_u64().unwrap(), rows[1]["rule"].as_u64().unwrap(), 2, 3]
    );
}

proptest! {
    #[test]
    fn numbers_are_read_as_they_were_written(all in prop::collection::vec(any::<u64>(), 0..50)) {
        let mut out = Vec::new();
        Columns::new(&mut out).numbers("some", all.iter().copied()).unwrap();
        let text = String::from_utf8(out).unwrap();
        prop_assert_eq!(numbers(&text, "some"), all);
    }

    #[test]
    fn numbers_near_zero_are_small(number in -1_000_i64..1_000) {
        let small = zigzag(number);
        let back = if small % 2 == 1 { -(small.div_ceil(2).cast_signed()) } else { (small / 2).cast_signed() };
        prop_assert_eq!(back, number);
    }
}
