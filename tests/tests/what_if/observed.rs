//! What `conntracker diff` sees between two recordings, and what was predicted, in the same terms.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use conntracker_tests::tracer::output;
use serde_json::{Value, json};

/// A flow: namespace, protocol, addresses, ports or type of ICMP; source ports are folded.
pub(crate) type FlowName = String;

/// The name of a flow of a document.
fn name(flow: &Value) -> FlowName {
    let sport = flow["sport"].as_u64().map(|port| port.min(1024));
    format!(
        "{} {} {sport:?} -> {} {} {}",
        flow["protocol"], flow["src"], flow["dst"], flow["dport"], flow["icmp"]
    )
}

/// Changes of a kind: before and after, by the flow.
type Changes = BTreeMap<FlowName, (String, String)>;

/// What was predicted.
#[derive(Debug)]
pub(crate) struct Predicted {
    pub document: Value,
    pub status: i32,
}

impl Predicted {
    /// Asks for it.
    pub fn of(recording: &Path, against: &[PathBuf], options: &[&str]) -> Self {
        let mut args = vec!["report", recording.to_str().unwrap(), "--format", "json"];
        args.extend(options);
        for file in against {
            args.extend(["--against", file.to_str().unwrap()]);
        }
        let said = output(args).unwrap();
        let (text, error) = (said.stdout, String::from_utf8_lossy(&said.stderr).into_owned());
        let document = serde_json::from_slice(&text).unwrap_or_else(|_| panic!("{error}"));
        Self { document, status: said.status.code().unwrap() }
    }

    /// Exact paths, and those of them that the model agrees with.
    pub fn agreement(&self) -> (u64, u64) {
        let check = &self.document["self_check"];
        (check["observed"].as_u64().unwrap(), check["agree"].as_u64().unwrap())
    }

    pub fn prediction(&self) -> &Value {
        let found = &self.document["prediction"];
        assert!(found.is_object(), "no prediction: {:#}", self.document);
        found
    }

    /// Changes of a kind.
    pub fn changes(&self, what: &str) -> Changes {
        let all = self.prediction()["changes"].as_array().unwrap().iter();
        let of_kind = all.filter(|change| change["what"] == what);
        // `diff` does not tell how packets are dropped.
        let text = |value: &Value| value.as_str().unwrap().replace("rejected", "dropped");
        of_kind
            .flat_map(|change| {
                let flows = change["named"].as_array().unwrap().iter();
                flows.map(|flow| (name(flow), (text(&change["before"]), text(&change["after"]))))
            })
            .collect()
    }

    /// Flows of which it is not known what becomes of them.
    pub fn open(&self) -> BTreeSet<FlowName> {
        let all = self.prediction()["open"].as_array().unwrap().iter();
        all.flat_map(|open| open["named"].as_array().unwrap().iter().map(name)).collect()
    }
}

/// What `diff` says of two recordings.
pub(crate) struct Observed(Value);

impl Observed {
    pub fn of(before: &Path, after: &Path) -> Self {
        let args = ["diff", before.to_str().unwrap(), after.to_str().unwrap()];
        let said =
            output(args.into_iter().chain(["--format", "json", "--fail-on", "none"])).unwrap();
        Self(serde_json::from_slice(&said.stdout).unwrap())
    }

    /// Changes of `fates`, `nat`, `marks` or `paths`.
    pub fn changes(&self, of: &str) -> Changes {
        let all = self.0[of].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        all.map(|change| (name(&change["flow"]), (text(&change["before"]), text(&change["after"]))))
            .collect()
    }
}

/// The name of a flow of a report.
pub(crate) fn reported(flow: &Value) -> FlowName {
    let Value::Object(mut names) = flow["original"].clone() else { panic!("{flow}") };
    names.insert("protocol".to_owned(), flow["protocol"]["name"].clone());
    if let Some(kind) = names.get("type").cloned() {
        names.insert("icmp".to_owned(), json!([kind, names["code"]]));
    }
    name(&Value::Object(names))
}
