//! Groups of flows as JSON: one document, or one object a line.

use std::io::{self, Write};

use serde::{Serialize, Serializer};

use super::{
    Style,
    frame::{FooterObject, HeaderObject},
    line, value,
};
use crate::{
    model::{
        counters::Counters,
        path::Site,
        table::{Backend, Family},
    },
    report::{
        FlowList, Report,
        by::{Group, Groups, KeyText, MarkGroup, Others, Sums},
        text::marks::By,
    },
};

/// Name and version of the schema, as [`super::SCHEMA`].
pub(super) const SCHEMA: &str = "conntracker-groups/1";

/// Writes the header of the report, the groups, and the footer.
pub(in crate::report) fn render<F: FlowList>(
    style: Style,
    report: &Report<F>,
    groups: &Groups<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let header = HeaderObject::new(&report.header).of_schema(SCHEMA);
    let footer = FooterObject::new(&report.footer, report.totals()?);
    let grouping = GroupingObject::new(groups);
    let others = groups.others.as_ref().map(OthersObject::new);
    let total = TotalObject { sums: SumsObject::new(&groups.total) };
    match style {
        Style::Lines => {
            line(out, &header)?;
            line(out, &grouping)?;
            groups.listed.iter().try_for_each(|group| line(out, &GroupObject::new(group)))?;
            others.iter().try_for_each(|others| line(out, others))?;
            line(out, &total)?;
            line(out, &footer)
        }
        Style::Document => {
            write!(out, r#"{{"schema":"{SCHEMA}","header":"#)?;
            value(out, &header)?;
            out.write_all(br#","by":"#)?;
            value(out, &grouping)?;
            out.write_all(br#","groups":["#)?;
            for (nth, group) in groups.listed.iter().enumerate() {
                if nth > 0 {
                    out.write_all(b",")?;
                }
                value(out, &GroupObject::new(group))?;
            }
            out.write_all(b"]")?;
            if let Some(others) = &others {
                out.write_all(br#","others":"#)?;
                value(out, others)?;
            }
            out.write_all(br#","total":"#)?;
            value(out, &total)?;
            out.write_all(br#","footer":"#)?;
            value(out, &footer)?;
            out.write_all(b"}\n")
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "by")]
struct GroupingObject {
    key: String,
    sort: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    top: Option<usize>,
}

impl GroupingObject {
    fn new(groups: &Groups<'_>) -> Self {
        Self {
            key: groups.key.to_string(),
            sort: groups.sort.name(),
            top: groups.top.map(Into::into),
        }
    }
}

#[derive(Serialize)]
struct SumsObject {
    flows: u64,
    conntrack_flows: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<CountersObject>,
    dropped_packets: u64,
    lost_packets: u64,
}

#[derive(Serialize)]
struct CountersObject {
    original: DirectionObject,
    reply: DirectionObject,
}

#[derive(Serialize)]
struct DirectionObject {
    packets: u64,
    bytes: u64,
}

impl From<Counters> for DirectionObject {
    fn from(Counters { packets, bytes }: Counters) -> Self {
        Self { packets, bytes }
    }
}

impl SumsObject {
    fn new(sums: &Sums) -> Self {
        let Sums { flows, conntrack_flows, counters, dropped, lost } = *sums;
        let counters = counters.map(|[original, reply]| CountersObject {
            original: original.into(),
            reply: reply.into(),
        });
        Self { flows, conntrack_flows, counters, dropped_packets: dropped, lost_packets: lost }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "group")]
struct GroupObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<SiteObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<u32>,
    #[serde(flatten)]
    sums: SumsObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    related: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parents: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    set_by: Vec<SetterObject<'a>>,
}

/// A key as text shows it, without escapes for terminals.
struct Shown<'a>(KeyText<'a>);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            KeyText::Name(name) | KeyText::User(_, Some(name)) => serializer.serialize_str(name),
            key => serializer.collect_str(&key),
        }
    }
}

impl<'a> GroupObject<'a> {
    fn new(group: &Group<'a>) -> Self {
        let Group { key, sums, mark } = group;
        Self {
            key: (*key != KeyText::None).then_some(Shown(*key)),
            rule: match key {
                KeyText::Rule(site) => Some(SiteObject::new(site)),
                _ => None,
            },
            uid: match key {
                KeyText::User(uid, _) => Some(*uid),
                _ => None,
            },
            mark: match key {
                KeyText::Mark(value, _) => Some(*value),
                _ => None,
            },
            sums: SumsObject::new(sums),
            related: mark.as_ref().map(|mark| mark.related),
            parents: mark.as_ref().map(MarkGroup::parents),
            set_by: mark
                .iter()
                .flat_map(MarkGroup::set_by)
                .filter_map(|(by, flows)| SetterObject::new(by, flows))
                .collect(),
        }
    }
}

#[derive(Serialize)]
struct SiteObject<'a> {
    backend: Backend,
    family: Family,
    table: &'a str,
    label: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

impl<'a> SiteObject<'a> {
    fn new(site: &'a Site) -> Self {
        let Site { backend, family, table, chain, kind, position, handle, text, .. } = site;
        Self {
            backend: *backend,
            family: *family,
            table,
            label: site.label().into_owned(),
            chain: Some(chain),
            kind: Some(kind.name()),
            position: *position,
            handle: *handle,
            text: text.as_deref(),
        }
    }
}

/// What set a mark: a rule, or only the chain or the table of one.
#[derive(Serialize)]
struct SetterObject<'a> {
    known: &'static str,
    flows: u64,
    #[serde(flatten)]
    site: SiteObject<'a>,
}

impl<'a> SetterObject<'a> {
    fn new(by: By<'a>, flows: u64) -> Option<Self> {
        let nowhere = |site| SiteObject {
            kind: None,
            position: None,
            handle: None,
            text: None,
            ..SiteObject::new(site)
        };
        let (known, site) = match by {
            By::Rule(site) => ("rule", SiteObject::new(site)),
            By::Chain(site) => ("chain", nowhere(site)),
            By::Table(site) => ("table", SiteObject { chain: None, ..nowhere(site) }),
            By::Unknown => return None,
        };
        Some(Self { known, flows, site })
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "others")]
struct OthersObject {
    groups: u64,
    #[serde(flatten)]
    sums: SumsObject,
}

impl OthersObject {
    fn new(others: &Others) -> Self {
        Self { groups: others.groups, sums: SumsObject::new(&others.sums) }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "total")]
struct TotalObject {
    #[serde(flatten)]
    sums: SumsObject,
}
