//! `conntracker count`, `stats`, `get`, `create`, `update`, `delete`, `flush` and `events`.

use std::{net::IpAddr, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, ValueEnum};
use conntracker::{
    commands::table::{
        change, counts,
        events::{self, Events},
        format::EntryFormat,
    },
    conntrack::{
        Change, EntryKey, EntryZone, EventBuffer, EventGroups, LabelChange, MarkChange, NatRange,
        NewEntry, ProtoChange,
    },
    model::{
        L4, Mark, Status, Tuple, Zone,
        filter::{Filter, MaskedMark, StatusIs, Term},
    },
};

use super::{
    filter::FilterArgs,
    format,
    trace::netns_choice,
    values::{self, Listed},
};

#[derive(Debug, Args)]
#[command(
    mut_arg("dst", |arg| arg.short('d')),
    mut_arg("family", |arg| arg.short('f')),
)]
pub struct CountArgs {
    /// Network namespace: a name, `pid:N`, a path, or `all`; repeatable.
    #[arg(long, value_name = "NAME|all")]
    netns: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
}

pub fn count(args: CountArgs) -> Result<ExitCode> {
    let CountArgs { netns, filter } = args;
    counts::count(&netns_choice(netns), &filter.of_table())
}

#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Network namespace: a name, `pid:N`, a path, or `all`; repeatable.
    #[arg(long, value_name = "NAME|all")]
    netns: Vec<String>,
    /// Format of the numbers.
    #[arg(long, value_enum, default_value_t)]
    format: StatsFormat,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum StatsFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object for each namespace, a line each.
    Json,
}

pub fn stats(args: StatsArgs) -> Result<ExitCode> {
    let StatsArgs { netns, format } = args;
    let format = match format {
        StatsFormat::Text => counts::Format::Text,
        StatsFormat::Json => counts::Format::Json,
    };
    counts::stats(&netns_choice(netns), format)
}

/// One direction of one entry.
#[derive(Debug, Args)]
struct TupleArgs {
    /// Protocol, by name or number.
    #[arg(short = 'p', long, value_name = "PROTO", value_parser = values::one_proto)]
    proto: u8,
    /// Source address.
    #[arg(short = 's', long, value_name = "ADDRESS")]
    src: IpAddr,
    /// Destination address.
    #[arg(short = 'd', long, value_name = "ADDRESS")]
    dst: IpAddr,
    /// Source port, or source key of GRE.
    #[arg(long, value_name = "PORT", value_parser = values::port)]
    sport: Option<u16>,
    /// Destination port, or destination key of GRE.
    #[arg(long, value_name = "PORT", value_parser = values::port)]
    dport: Option<u16>,
    /// Type of ICMP messages.
    #[arg(long, value_name = "TYPE")]
    icmp_type: Option<u8>,
    /// Code of ICMP messages.
    #[arg(long, value_name = "CODE", default_value_t = 0)]
    icmp_code: u8,
    /// Identifier of ICMP messages.
    #[arg(long, value_name = "ID", default_value_t = 0)]
    icmp_id: u16,
    /// Conntrack zone.
    #[arg(short = 'w', long, value_name = "ZONE", default_value_t = 0)]
    zone: u16,
}

impl TupleArgs {
    /// The tuple; bad usage if it lacks what its protocol has.
    fn tuple(&self) -> Tuple {
        let Self { proto, src, dst, sport, dport, icmp_type, icmp_code, icmp_id, zone: _ } = *self;
        if src.is_ipv4() != dst.is_ipv4() {
            super::bad_usage("--src and --dst are of different families");
        }
        let l4 = match (L4::from_kernel(proto, [0; 2], [0; 2]), sport, dport, icmp_type) {
            (L4::Ports { .. }, Some(src), Some(dst), None) => L4::Ports { src, dst },
            (L4::Gre { .. }, Some(src), Some(dst), None) => L4::Gre { src, dst },
            (L4::Icmp { .. }, None, None, Some(kind)) => {
                L4::Icmp { kind, code: icmp_code, id: icmp_id }
            }
            (L4::None, None, None, None) => L4::None,
            (L4::Ports { .. } | L4::Gre { .. }, ..) => {
                super::bad_usage("this protocol needs --sport and --dport, and has no --icmp-type")
            }
            (L4::Icmp { .. }, ..) => super::bad_usage(
                "this protocol needs --icmp-type, and has neither --sport nor --dport",
            ),
            (L4::None, ..) => super::bad_usage("this protocol has neither ports nor types"),
        };
        Tuple { src, dst, proto, l4 }
    }
}

#[derive(Debug, Args)]
pub struct GetArgs {
    /// Network namespace: a name, `pid:N`, or a path.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// The tuple is that of the reply direction.
    #[arg(long)]
    reply: bool,
    /// Format of the entry: `plain`, `xml` or `save` as conntrack(8) prints them, plain and xml with any of
    /// `extended`, `id`, `ktimestamp` and `labels` behind a comma; `csv`; or `ndjson`, a JSON object a line.
    #[arg(long, value_name = "FORMAT[,…]", default_value = "plain", value_parser = format::entries)]
    format: EntryFormat,
    #[command(flatten)]
    tuple: TupleArgs,
}

pub fn get(args: &GetArgs) -> Result<ExitCode> {
    let GetArgs { netns, reply, format, tuple } = args;
    let key = if *reply { EntryKey::reply(tuple.tuple()) } else { EntryKey::orig(tuple.tuple()) };
    change::get(netns.as_deref(), &key.in_zone(Zone(tuple.zone)), *format)
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Network namespace: a name, `pid:N`, or a path.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    #[command(flatten)]
    tuple: TupleArgs,
    /// Time until it ends: seconds, or 90s, 1m30s, 2h.
    #[arg(short = 't', long, value_name = "TIME", value_parser = values::duration)]
    timeout: Duration,
    /// State of the protocol, such as ESTABLISHED.
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Status, such as seen_reply, assured or unreplied; repeatable.
    #[arg(long, value_name = "STATUS", value_parser = values::status)]
    status: Vec<Listed<StatusIs>>,
    /// Connmark.
    #[arg(short = 'm', long, value_name = "VALUE", value_parser = values::one_mark)]
    mark: Option<MaskedMark>,
    /// Label, by number; repeatable.
    #[arg(short = 'l', long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(..128))]
    label: Vec<u8>,
    /// Helper, such as ftp.
    #[arg(long, value_name = "NAME", value_parser = values::one_helper)]
    helper: Option<String>,
    /// Translate the source to this address.
    #[arg(long, value_name = "ADDRESS")]
    snat: Option<IpAddr>,
    /// Translate the destination to this address.
    #[arg(long, value_name = "ADDRESS")]
    dnat: Option<IpAddr>,
}

pub fn create(args: CreateArgs) -> Result<ExitCode> {
    let CreateArgs { netns, tuple, timeout, state, status, mark, label, helper, snat, dnat } = args;
    let orig = tuple.tuple();
    let seconds = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX).max(1);
    let Some(entry) = NewEntry::new(orig, seconds) else {
        super::bad_usage("nothing answers ICMP messages of this type: there are no such entries");
    };
    let state = state.map(|name| {
        ProtoChange::named(orig.proto, &name)
            .unwrap_or_else(|| super::bad_usage("this protocol has no such state"))
    });
    let nat = |address: Option<IpAddr>| {
        let addresses = Some((address?, address?));
        Some(NatRange { addresses, ports: None })
    };
    let entry =
        entry.zone(EntryZone::Both(Zone(tuple.zone))).nat_src(nat(snat)).nat_dst(nat(dnat)).with(
            Change::default()
                .status(status_of(status))
                .mark(mark.map(|mark| MarkChange::to(Mark(mark.value))))
                .labels((!label.is_empty()).then(|| LabelChange::to(bits(&label))))
                .helper(helper)
                .state(state),
        );
    change::create(netns.as_deref(), &entry)
}

/// The status that was given; `None` if none was.
fn status_of(given: Vec<Listed<StatusIs>>) -> Option<Status> {
    let (mut set, mut clear) = (Status::default(), Status::default());
    let mut all = given.into_iter().flat_map(|list| list.0).peekable();
    all.peek()?;
    for Term { negated, value } in all {
        let (bits, mask) = value.bits();
        // A negated status asks for the opposite of its bits.
        let bits = if negated { mask & !bits } else { bits };
        (set, clear) = (set.union(Status(bits)), clear.union(Status(mask & !bits)));
    }
    if set.0 & clear.0 != 0 {
        super::bad_usage("--status says of a bit that it is set, and that it is not");
    }
    Some(set)
}

/// Labels as bits.
fn bits(labels: &[u8]) -> u128 {
    labels.iter().fold(0, |bits, label| bits | 1 << label)
}

#[derive(Debug, Args)]
#[command(
    mut_arg("dst", |arg| arg.short('d')),
    mut_arg("family", |arg| arg.short('f')),
)]
pub struct UpdateArgs {
    /// Network namespace: a name, `pid:N`, or a path.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// New connmark; with a mask only those bits.
    #[arg(long, value_name = "VALUE[/MASK]", value_parser = values::one_mark)]
    set_mark: Option<MaskedMark>,
    /// New time until they end.
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    set_timeout: Option<Duration>,
    /// Label to add, by number; repeatable.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(..128))]
    add_label: Vec<u8>,
    /// Label to remove, by number; repeatable.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(..128))]
    remove_label: Vec<u8>,
    /// Take the helper away.
    #[arg(long)]
    no_helper: bool,
    /// Change all entries: without this a filter is needed.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

pub fn update(args: UpdateArgs) -> Result<ExitCode> {
    let UpdateArgs {
        netns,
        set_mark,
        set_timeout,
        add_label,
        remove_label,
        no_helper,
        all,
        filter,
    } = args;
    let (add, remove) = (bits(&add_label), bits(&remove_label));
    if add & remove != 0 {
        super::bad_usage("a label cannot be both added and removed");
    }
    let change = Change::default()
        .mark(set_mark.map(|mark| MarkChange { value: mark.value & mark.mask, mask: mark.mask }))
        .timeout(set_timeout.map(|time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1)))
        .labels((add | remove != 0).then_some(LabelChange { value: add, mask: add | remove }))
        .helper(no_helper.then(String::new));
    if change == Change::default() {
        super::bad_usage(
            "nothing to change: give --set-mark, --set-timeout, --add-label, --remove-label or --no-helper",
        );
    }
    let filter = filter.of_table();
    some_or_all("update", all, &filter);
    change::update(netns.as_deref(), &filter, &change)
}

/// Refuses a change of all entries unless it was asked for, because a filter may have been forgotten.
fn some_or_all(command: &str, all: bool, filter: &Filter) {
    match (all, filter.is_everything()) {
        (false, true) => super::bad_usage(&format!(
            "`{command}` needs a filter; `{command} --all` is for all entries"
        )),
        (true, false) => super::bad_usage("--all is for all entries: it goes with no filter"),
        _ => {}
    }
}

#[derive(Debug, Args)]
#[command(
    mut_arg("dst", |arg| arg.short('d')),
    mut_arg("family", |arg| arg.short('f')),
)]
pub struct DeleteArgs {
    /// Network namespace: a name, `pid:N`, or a path.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// Format of the entries that were removed: `plain`, `xml` or `save` as conntrack(8) prints them, plain and xml with any of
    /// `extended`, `id`, `ktimestamp` and `labels` behind a comma; `csv`; or `ndjson`, a JSON object a line.
    #[arg(long, value_name = "FORMAT[,…]", default_value = "plain", value_parser = format::entries)]
    format: EntryFormat,
    /// Remove all entries, and print them: without this a filter is needed. (`flush` removes all and prints
    /// nothing.)
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

pub fn delete(args: DeleteArgs) -> Result<ExitCode> {
    let DeleteArgs { netns, format, all, filter } = args;
    let filter = filter.of_table();
    some_or_all("delete", all, &filter);
    change::delete(netns.as_deref(), &filter, format)
}

#[derive(Debug, Args)]
pub struct FlushArgs {
    /// Network namespace: a name, `pid:N`, or a path.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
}

pub fn flush(args: &FlushArgs) -> Result<ExitCode> {
    change::flush(args.netns.as_deref())
}

#[derive(Debug, Args)]
#[command(
    mut_arg("dst", |arg| arg.short('d')),
    mut_arg("family", |arg| arg.short('f')),
)]
pub struct EventsArgs {
    /// Network namespace: a name, `pid:N`, or a path.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// Kinds of events; all without it.
    #[arg(short = 'e', long = "event", value_name = "KIND", value_enum, value_delimiter = ',')]
    events: Vec<KindArg>,
    /// Begin with the entries that there are.
    #[arg(long)]
    table_first: bool,
    /// Do not read the table anew after events were lost.
    #[arg(long)]
    no_resync: bool,
    /// Receive buffer of the socket. Without it the buffer begins with 2 MiB and grows to 64 MiB.
    #[arg(short = 'b', long, value_name = "BYTES", value_parser = values::size)]
    buffer: Option<u32>,
    /// End after this time: seconds, or 90s, 1m30s, 2h.
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    duration: Option<Duration>,
    /// Format of the events: `plain` or `save` (gaps and the table are lines that begin with `#`) or `xml` as
    /// conntrack(8) prints them, plain and xml with any of `extended`, `id`, `ktimestamp`, `labels` and `timestamp` behind
    /// a comma; or `ndjson`, a JSON object a line.
    #[arg(long, value_name = "FORMAT[,…]", default_value = "plain", value_parser = format::events)]
    format: EntryFormat,
    /// Exit with 3 if events were lost.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KindArg {
    /// An entry was made.
    New,
    /// An entry has changed.
    Update,
    /// An entry has ended.
    Destroy,
}

pub fn events(args: EventsArgs) -> Result<ExitCode> {
    let EventsArgs {
        netns,
        events,
        table_first,
        no_resync,
        buffer,
        duration,
        format,
        strict,
        filter,
    } = args;
    let groups = events.into_iter().map(|kind| match kind {
        KindArg::New => EventGroups::NEW,
        KindArg::Update => EventGroups::UPDATE,
        KindArg::Destroy => EventGroups::DESTROY,
    });
    events::run(&Events {
        netns,
        groups: groups.reduce(EventGroups::and).unwrap_or(EventGroups::ENTRIES),
        filter: filter.of_table(),
        buffer: buffer.map_or(EventBuffer::default(), |bytes| EventBuffer::fixed(bytes as usize)),
        resync: !no_resync,
        table_first,
        duration,
        format,
        strict,
    })
}
