//! `conntracker dump`.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, ValueEnum};
use conntracker::{
    dump::{self, Dump},
    report::Format,
    table::{
        list::{self, EntryFormat, List},
        sort::{Column, Sort},
    },
};

use super::{filter::FilterArgs, trace::netns_choice, values};

#[derive(Debug, Args)]
#[command(
    mut_arg("dst", |arg| arg.short('d')),
    mut_arg("family", |arg| arg.short('f')),
)]
pub struct DumpArgs {
    /// Format of the list.
    #[arg(long, value_enum, default_value_t)]
    format: DumpFormat,
    /// Network namespace: a name, `pid:N`, a path, or `all`; repeatable.
    #[arg(long, value_name = "NAME|all")]
    netns: Vec<String>,
    /// Report format: keep source ports and ICMP identifiers, one line for each flow.
    #[arg(long)]
    no_fold: bool,
    /// Report format: print what else is known of each flow.
    #[arg(long)]
    explain: bool,
    /// Sort by this column, with a `-` before it the largest first (`--sort=-bytes`); not for reports and
    /// JSON. Otherwise entries come in the kernel's order.
    #[arg(long, value_name = "[-]COLUMN", value_parser = sort, allow_hyphen_values = true)]
    sort: Option<Sort>,
    /// Only the first N; not for reports and JSON.
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// List again and again, this often; not for reports and JSON.
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    watch: Option<Duration>,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum DumpFormat {
    /// The classic report; source ports are folded unless --no-fold.
    #[default]
    Report,
    /// One JSON document; nothing is folded.
    Json,
    /// The same objects, one a line; nothing is folded.
    Ndjson,
    /// As `conntrack -L` prints them.
    Plain,
    /// As `conntrack -L -o extended,id` prints them.
    Extended,
    /// XML.
    Xml,
    /// Arguments of conntrack(8) that make them anew.
    Save,
    /// Comma-separated values.
    Csv,
}

impl DumpFormat {
    /// The format of a stream of entries; `None`: a report.
    fn of_entries(self) -> Option<EntryFormat> {
        match self {
            Self::Report | Self::Json | Self::Ndjson => None,
            Self::Plain => Some(EntryFormat::Plain),
            Self::Extended => Some(EntryFormat::Extended),
            Self::Xml => Some(EntryFormat::Xml),
            Self::Save => Some(EntryFormat::Save),
            Self::Csv => Some(EntryFormat::Csv),
        }
    }
}

/// Columns by name.
const COLUMNS: [(&str, Column); 15] = [
    ("src", Column::Src),
    ("dst", Column::Dst),
    ("sport", Column::Sport),
    ("dport", Column::Dport),
    ("reply-src", Column::ReplySrc),
    ("reply-dst", Column::ReplyDst),
    ("proto", Column::Proto),
    ("state", Column::State),
    ("timeout", Column::Timeout),
    ("packets", Column::Packets),
    ("bytes", Column::Bytes),
    ("mark", Column::Mark),
    ("zone", Column::Zone),
    ("start", Column::Start),
    ("id", Column::Id),
];

fn sort(text: &str) -> Result<Sort, String> {
    let (descending, name) = match text.strip_prefix('-') {
        Some(name) => (true, name),
        None => (false, text),
    };
    let column = COLUMNS.iter().find(|(known, _)| *known == name).map(|(_, column)| *column);
    let column = column.ok_or_else(|| {
        let names = COLUMNS.map(|(name, _)| name).join(", ");
        format!("no column `{name}`; there are: {names}")
    })?;
    Ok(Sort { column, descending })
}

pub fn run(args: DumpArgs) -> Result<ExitCode> {
    let DumpArgs { format, netns, no_fold, explain, sort, top, watch, filter } = args;
    let (filter, filter_text) = filter.resolve_for_table();
    if let Some(format) = format.of_entries() {
        let netns = netns_choice(netns);
        return list::run(&List { netns, filter, format, sort, top, watch });
    }
    if sort.is_some() || top.is_some() || watch.is_some() {
        super::bad_usage(
            "--sort, --top and --watch are for the formats plain, extended, xml, save and csv",
        );
    }
    dump::run(&Dump {
        netns: netns_choice(netns),
        filter,
        filter_text,
        fold: format == DumpFormat::Report && !no_fold,
        format: match format {
            DumpFormat::Json => Format::Json,
            DumpFormat::Ndjson => Format::Ndjson,
            _ => Format::Text { explain },
        },
    })
}
