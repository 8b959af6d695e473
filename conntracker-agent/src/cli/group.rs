//! Groups of flows in the place of flows: `--by`, `--sort`, `--top`.

use std::num::NonZeroUsize;

use clap::{Args, ValueEnum};
use conntracker::report::{
    Format,
    by::{GroupFormat, GroupOptions, Key, Sort},
};

use super::ReportFormat;

#[derive(Debug, Args)]
pub(super) struct GroupArgs {
    /// Report groups in the place of flows, each with its flows, packets, bytes and drops: by `src`, `dst`, `dport`,
    /// `proto`, `netns`, `zone`, `iif`, `oif`, `rule`, `reason`, `process`, `user`, `mark` or `mark/MASK`.
    #[arg(long, value_name = "KEY")]
    by: Option<Key>,
    /// Order of the groups. Default: drops for rules and reasons; otherwise bytes, or flows where accounting is off.
    #[arg(long, value_enum, value_name = "COUNT", requires = "by")]
    sort: Option<SortArg>,
    /// Only the first N groups; the others are summed up.
    #[arg(long, value_name = "N", requires = "by")]
    top: Option<NonZeroUsize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SortArg {
    /// Conntrack flows.
    Flows,
    /// Packets of both directions.
    Packets,
    /// Bytes of both directions.
    Bytes,
    /// Packets that netfilter dropped.
    Drops,
    /// Packets that got lost elsewhere in the kernel.
    Lost,
    /// The key.
    Name,
}

impl From<SortArg> for Sort {
    fn from(sort: SortArg) -> Self {
        match sort {
            SortArg::Flows => Self::Flows,
            SortArg::Packets => Self::Packets,
            SortArg::Bytes => Self::Bytes,
            SortArg::Drops => Self::Drops,
            SortArg::Lost => Self::Lost,
            SortArg::Name => Self::Name,
        }
    }
}

impl GroupArgs {
    /// What flows are grouped by, if they are.
    pub fn key(&self) -> Option<Key> {
        self.by
    }

    /// The format of a report that has groups; `None` if it has flows.
    pub fn resolve(&self, format: ReportFormat) -> Option<Format> {
        let &Self { by, sort, top } = self;
        Some(of_groups(GroupOptions { key: by?, sort: sort.map(Into::into), top }, format))
    }
}

/// The format of a report that has groups.
pub(super) fn of_groups(options: GroupOptions, format: ReportFormat) -> Format {
    let format = match format {
        ReportFormat::Text => GroupFormat::Text,
        ReportFormat::Json => GroupFormat::Json,
        ReportFormat::Ndjson => GroupFormat::Ndjson,
        ReportFormat::Csv => GroupFormat::Csv,
        ReportFormat::Path => super::bad_usage("`--format path` has no groups: leave out --by"),
        ReportFormat::Html => super::bad_usage("`--format html` has no groups: leave out --by"),
    };
    Format::Groups(options, format)
}
