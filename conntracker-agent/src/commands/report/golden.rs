//! Recordings of earlier versions are read, and give the reports that they gave then.
//!
//! When the format has changed, [`write`] makes a recording by it:
//! `CONNTRACKER_GOLDEN=1.1 cargo test -p conntracker --lib golden -- --ignored`.

use std::{collections::BTreeSet, env, fs, path::Path};

use serde_json::Value;

use super::{
    Folding, Offline, Room, Source,
    golden_events::{counts, header, owners, rest, ruleset, start},
    run,
};
use crate::{
    model::filter::Filter,
    os::output::Destination,
    recording::{Options, Recorder, Rotate, parts},
    report::Format,
};

/// Recordings, and their reports.
const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/recording/golden");

/// The report of a recording as JSON.
fn report_of(recording: &Path) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    run(&Offline {
        source: Source {
            files: vec![recording.to_owned()],
            filter: Filter::default(),
            filter_text: Vec::new(),
            recorded_filter: |_| Ok(Filter::default()),
            folding: Folding::AsRecorded,
            room: Room::default(),
            live: false,
        },
        from: None,
        to: None,
        nat_port: None,
        sort: None,
        top: None,
        follow: None,
        destination: Destination::new(file.to_str().unwrap()),
        format: Format::Json,
        anonymize: false,
        strict: false,
    })
    .unwrap();
    let mut report = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    without_directory(&mut report, &recording.parent().unwrap().display().to_string());
    report
}

/// Notes name the file as it was given.
fn without_directory(value: &mut Value, directory: &str) {
    match value {
        Value::String(text) => *text = text.replace(&format!("{directory}/"), ""),
        Value::Array(values) => values.iter_mut().for_each(|of| without_directory(of, directory)),
        Value::Object(fields) => {
            fields.values_mut().for_each(|of| without_directory(of, directory));
        }
        _ => {}
    }
}

/// Where a report lacks something that another one has, or says it otherwise. A later version may say more.
fn lacks(report: &Value, wanted: &Value, at: &str) -> Option<String> {
    match (report, wanted) {
        (Value::Object(fields), Value::Object(all)) => all.iter().find_map(|(name, wanted)| {
            lacks(fields.get(name).unwrap_or(&Value::Null), wanted, &format!("{at}.{name}"))
        }),
        (Value::Array(values), Value::Array(all)) if values.len() == all.len() => (values.iter())
            .zip(all)
            .enumerate()
            .find_map(|(n, (value, wanted))| lacks(value, wanted, &format!("{at}[{n}]"))),
        _ if report == wanted => None,
        _ => Some(format!("{at}: {report} in the place of {wanted}")),
    }
}

#[test]
fn recordings_of_all_versions_give_the_reports_that_they_gave() {
    let mut read = 0;
    for file in fs::read_dir(DIRECTORY).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_some_and(|of| of == "rec") {
            let wanted = fs::read(file.with_extension("json")).unwrap();
            let wanted = serde_json::from_slice(&wanted).unwrap();
            assert_eq!(lacks(&report_of(&file), &wanted, &file.display().to_string()), None);
            read += 1;
        }
    }
    assert!(read > 0, "{DIRECTORY} has no recording");
}

#[test]
fn a_report_may_say_more_and_not_less() {
    let of = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let wanted = of(r#"{"a": [1, {"b": "x"}]}"#);
    assert_eq!(lacks(&of(r#"{"a": [1, {"b": "x", "c": 2}], "d": 3}"#), &wanted, ""), None);
    for less in [r#"{"a": [1]}"#, r#"{"a": [1, {"b": "y"}]}"#, r#"{"a": [1, {"c": "x"}]}"#, "{}"] {
        assert!(lacks(&of(less), &wanted, "").is_some(), "{less}");
    }
}

#[test]
fn the_events_are_of_all_kinds() {
    let all = start().into_iter().chain(rest());
    let kinds: BTreeSet<String> = all.map(|event| format!("{:?}", event.kind)).collect();
    let names: BTreeSet<&str> =
        kinds.iter().filter_map(|text| text.split([' ', '(', '{']).next()).collect();
    assert_eq!(names.len(), 15, "{names:?}");
}

/// Two parts of one run, of which the second has no end, and one of the next run.
#[test]
#[ignore = "writes the recording and the report of this version"]
fn write() {
    let version = env::var("CONNTRACKER_GOLDEN").expect("CONNTRACKER_GOLDEN: the version's name");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edge.rec");
    let rotate = Some(Rotate::Bytes(1 << 30));
    let options = Options { path: path.clone(), rotate, keep: None };
    let mut recorder = Recorder::create(options.clone()).unwrap();
    recorder.header(header(), 1);
    recorder.owners(owners(), 1);
    recorder.ruleset(ruleset());
    for event in &start() {
        recorder.event(event);
    }
    recorder.counts(&counts(1));
    recorder.begin_part();
    for event in &rest() {
        recorder.event(event);
    }
    recorder.counts(&counts(2));
    recorder.finish();
    // As SIGKILL leaves it: without the block that says that it ends.
    let (_, second) = parts(&path).unwrap().pop().unwrap();
    let bytes = fs::read(&second).unwrap();
    let sync = &bytes[64..72];
    let last = (0..bytes.len()).rfind(|&at| bytes[at..].starts_with(sync)).unwrap();
    fs::write(&second, &bytes[..last]).unwrap();
    let mut next = Recorder::create(options).unwrap();
    next.header(header(), 1);
    next.counts(&counts(1));
    next.finish();
    let mut all = Vec::new();
    for (_, part) in parts(&path).unwrap() {
        all.extend(fs::read(part).unwrap());
    }
    let file = Path::new(DIRECTORY).join(format!("{version}.rec"));
    fs::write(&file, all).unwrap();
    let report = serde_json::to_string_pretty(&report_of(&file)).unwrap();
    fs::write(file.with_extension("json"), report + "\n").unwrap();
}
