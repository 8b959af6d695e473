//! Reports of the program under test, read back.

use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::flow::{Direction, Flow, L4, Tuple};

/// Losses that another instance's links, or a change of rules, cause: packets met rules, or passed
/// links, that were not known yet.
pub const RULES_CHANGED: [&str; 2] = ["path_races", "ruleset_races"];

/// A report in JSON.
#[derive(Clone, Debug)]
pub struct Document {
    /// Header object.
    pub header: Value,
    /// Flow objects.
    pub flows: Vec<Value>,
    /// Footer object.
    pub footer: Value,
}

impl Document {
    /// From `--format json`.
    pub fn json(text: &str) -> Result<Self> {
        let mut document: Value = serde_json::from_str(text).context("not JSON")?;
        let Value::Array(flows) = document["flows"].take() else { bail!("no array of flows") };
        let (header, footer) = (document["header"].take(), document["footer"].take());
        ensure!(header.is_object() && footer.is_object(), "no header or no footer");
        Ok(Self { header, flows, footer })
    }

    /// From `--format ndjson`.
    pub fn ndjson(text: &str) -> Result<Self> {
        let objects: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
        let mut objects = objects.context("a line is not JSON")?.into_iter();
        let (Some(header), Some(footer)) = (objects.next(), objects.next_back()) else {
            bail!("no header or no footer");
        };
        ensure!(header["type"] == "header" && footer["type"] == "footer", "not in their places");
        Ok(Self { header, flows: objects.collect(), footer })
    }

    /// A counter of the footer, among the losses or the sources.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let value = ["losses", "sources", "totals"].map(|group| self.footer[group][name].as_u64());
        value.into_iter().flatten().next().with_context(|| format!("no counter {name}"))
    }

    /// Counters of losses that are not zero, but for those of these names.
    #[must_use]
    pub fn lost_besides(&self, names: &[&str]) -> Vec<String> {
        let losses = self.footer["losses"].as_object().into_iter().flatten();
        losses
            .filter(|(name, count)| **count != 0 && !names.contains(&name.as_str()))
            .map(|(name, count)| format!("{name}={count}"))
            .collect()
    }

    /// Whether one of the notes contains a text.
    #[must_use]
    pub fn notes(&self, text: &str) -> bool {
        let notes = self.header["notes"].as_array();
        notes.into_iter().flatten().filter_map(Value::as_str).any(|note| note.contains(text))
    }
}

/// Reads a flow object.
pub fn flow(object: &Value) -> Result<Flow> {
    let read = || -> Result<Flow> {
        let proto = number(&object["protocol"], "number")?;
        Ok(Flow {
            orig: tuple(proto, &object["original"])?,
            reply: object.get("reply").map(|reply| tuple(proto, reply)).transpose()?,
            zone: number(object, "zone")?,
            zone_direction: match object.get("zone_direction").and_then(Value::as_str) {
                None => None,
                Some("original") => Some(Direction::Original),
                Some("reply") => Some(Direction::Reply),
                Some(other) => bail!("zone direction {other}"),
            },
            // No mark and a mark of 0 are the same thing to the kernel.
            mark: object.get("mark").map_or(Ok(0), |_| number(object, "mark"))?,
            replied: object["confirmed"].as_bool().context("no confirmed")?,
        })
    };
    read().with_context(|| format!("flow object {object}"))
}

fn tuple(proto: u8, object: &Value) -> Result<Tuple> {
    let address = |key: &str| -> Result<IpAddr> {
        Ok(object[key].as_str().with_context(|| format!("no {key}"))?.parse()?)
    };
    let l4 = if object.get("sport").is_some() {
        L4::Ports(number(object, "sport")?, number(object, "dport")?)
    } else if object.get("type").is_some() {
        L4::Icmp(number(object, "type")?, number(object, "code")?, number(object, "id")?)
    } else if object.get("srckey").is_some() {
        L4::Keys(number(object, "srckey")?, number(object, "dstkey")?)
    } else {
        L4::Nothing
    };
    Ok(Tuple { proto, src: address("src")?, dst: address("dst")?, l4 })
}

fn number<T: TryFrom<u64>>(object: &Value, key: &str) -> Result<T> {
    let number = object[key].as_u64().with_context(|| format!("no number {key}"))?;
    T::try_from(number).ok().with_context(|| format!("{key} is out of range: {number}"))
}

/// A report as text.
#[derive(Clone, Debug, Default)]
pub struct Text {
    /// Comment lines before the flows, without `# `.
    pub header: Vec<String>,
    /// Lines of flows.
    pub lines: Vec<Line>,
    /// Comment lines after the flows, without `# `.
    pub footer: Vec<String>,
}

/// The line of a flow.
#[derive(Clone, Debug)]
pub struct Line {
    /// Label of the block, without the blanks that align it.
    pub label: String,
    /// Index in the block.
    pub index: usize,
    /// All after the index.
    pub body: String,
    /// The lines of what is known of it, key and value.
    pub explained: Vec<(String, String)>,
    /// The lines of the places in the ruleset that its packets met.
    pub trace: Vec<String>,
}

impl Line {
    /// What the explanation says under a key.
    #[must_use]
    pub fn explanation(&self, wanted: &str) -> Option<&str> {
        self.explained.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.as_str())
    }
}

impl Text {
    /// Reads a report.
    pub fn parse(text: &str) -> Result<Self> {
        let mut report = Self::default();
        for line in text.lines() {
            report.add(line).with_context(|| format!("line of the report: {line}"))?;
        }
        Ok(report)
    }

    fn add(&mut self, line: &str) -> Result<()> {
        if let Some(comment) = line.strip_prefix("# ") {
            let in_footer = comment.starts_with("totals: ") || !self.footer.is_empty();
            let group = if in_footer { &mut self.footer } else { &mut self.header };
            group.push(comment.to_owned());
        } else if let Some(below) = line.strip_prefix(&" ".repeat(32)) {
            let flow = self.lines.last_mut().context("nothing to explain")?;
            if below.starts_with("table: ") {
                flow.trace.push(below.to_owned());
            } else {
                ensure!(flow.trace.is_empty(), "an explanation behind the trace");
                let (key, value) = below.split_once(": ").context("neither key nor value")?;
                flow.explained.push((key.to_owned(), value.to_owned()));
            }
        } else {
            ensure!(self.footer.is_empty(), "a flow behind the footer");
            let (label, rest) = line.split_once(" [").context("no index")?;
            let (index, body) = rest.split_once("] ").context("no index")?;
            ensure!(label.len() == label.trim().len().max(6), "label not aligned");
            ensure!(index.len() == 12, "index not aligned");
            self.lines.push(Line {
                label: label.trim().to_owned(),
                index: index.trim().parse()?,
                body: body.to_owned(),
                explained: Vec::new(),
                trace: Vec::new(),
            });
        }
        Ok(())
    }

    /// A counter of the footer.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let mut words = self.footer.iter().flat_map(|line| line.split_whitespace());
        let value = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        Ok(value.with_context(|| format!("no counter {name}"))?.parse()?)
    }

    /// Counters of losses that are not zero, but for those of these names.
    #[must_use]
    pub fn lost_besides(&self, names: &[&str]) -> Vec<&str> {
        let lost = self.footer.iter().find_map(|line| line.strip_prefix("lost: "));
        let counts = lost.into_iter().flat_map(str::split_whitespace);
        counts
            .filter(|count| {
                count.split_once('=').is_none_or(|(name, n)| n != "0" && !names.contains(&name))
            })
            .collect()
    }

    /// Value of a line of the header.
    #[must_use]
    pub fn header(&self, wanted: &str) -> Option<&str> {
        self.header.iter().find_map(|line| line.strip_prefix(wanted)?.strip_prefix(": "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_report_is_taken_apart() {
        let text = format!(
            "# conntracker 1\n# backend: links (why)\n \
             TCPv4 [           0] src = 1.2.3.4 to dst = 5.6.7.8 (dropped) [zone 5]\n\
             {:32}mark: 0x11\n{:32}table: nat, chain: c, type: rule, position: 1\n\
             # totals: lines=1 flows=1\n# lost: a=0 b=2\n# warning: 2 of b\n",
            "", ""
        );
        let report = Text::parse(&text).unwrap();
        let [line] = &report.lines[..] else { panic!("{report:?}") };
        assert_eq!((line.label.as_str(), line.index), ("TCPv4", 0));
        assert_eq!(line.body, "src = 1.2.3.4 to dst = 5.6.7.8 (dropped) [zone 5]");
        assert_eq!(line.explanation("mark"), Some("0x11"));
        assert_eq!(line.trace, ["table: nat, chain: c, type: rule, position: 1"]);
        assert_eq!(report.lost_besides(&[]), ["b=2"]);
        assert!(report.lost_besides(&["b"]).is_empty());
        assert_eq!(report.header("backend"), Some("links (why)"));
        assert_eq!(report.counter("flows").unwrap(), 1);
        assert!(report.counter("low").is_err());
        assert!(Text::parse("TCPv4 [           0] not aligned").is_err());
    }

    #[test]
    fn a_flow_object_is_read() {
        let object = serde_json::json!({
            "protocol": {"number": 58}, "zone": 5, "zone_direction": "original",
            "original": {"src": "fd77::1", "dst": "fd77::2", "type": 128, "code": 0, "id": 7},
            "confirmed": true, "mark": 17
        });
        assert_eq!(
            flow(&object).unwrap().to_string(),
            "fd77::1 > fd77::2 proto 58 type 128 code 0 id 7 | - | zone 5 Original mark 0x11 replied"
        );
        assert!(flow(&serde_json::json!({})).is_err());
    }
}
