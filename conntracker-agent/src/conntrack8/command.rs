//! A valid command line as a command.

use super::arguments::Arguments;
use super::create::{expect_key, key, new_entry, new_expectation};
use super::edit::{Edit, edit, has_ends, narrow};
use super::filter::{Filter, Net};
use super::options::{self, Opt, Table, Verb};
use super::values::Output;
use super::{Names, Rejection};
use super::{proto_opt::ProtoOpt, protocols};
use crate::conntrack::{
    DumpRequest, EntryKey, EventGroups, ExpectKey, List, NewEntry, NewExpectation, TupleFilter,
};
use crate::model::{Mark, Zone};
use conntracker_common::record::FAMILY_V4;

/// The command of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// How to use it, and the options of a protocol.
    Help(Option<u8>),
    /// The version.
    Version,
    /// List entries.
    List {
        /// Which list.
        list: List,
        /// Which entries.
        filter: Filter,
        /// Set their counters back.
        zero: bool,
        /// How to print them.
        output: Output,
    },
    /// Show one entry.
    Get {
        /// Its name.
        key: EntryKey,
        /// Further conditions.
        filter: Filter,
        /// How to print it.
        output: Output,
    },
    /// Remove entries.
    Delete {
        /// Which.
        filter: Filter,
        /// How to print them.
        output: Output,
    },
    /// Change entries.
    Update {
        /// Which.
        filter: Filter,
        /// What changes.
        edit: Edit,
        /// How to print them.
        output: Output,
    },
    /// Make an entry.
    Create {
        /// The entry.
        entry: Box<NewEntry>,
        /// Whether an existing entry is no error (-A).
        lenient: bool,
    },
    /// Show events.
    Events {
        /// Of which entries.
        filter: Filter,
        /// Of which kinds.
        groups: EventGroups,
        /// Bytes of the receive buffer.
        buffer: Option<usize>,
        /// How to print them.
        output: Output,
    },
    /// Remove all entries, or all of a family.
    Flush(Option<u8>),
    /// The number of entries.
    Count,
    /// Print the counters of the CPUs.
    Stats,
    /// List expectations.
    ListExpectations {
        /// Of which family.
        family: Option<u8>,
        /// How to print them.
        output: Output,
    },
    /// Show one expectation.
    GetExpectation(ExpectKey),
    /// Remove an expectation.
    DeleteExpectation(ExpectKey),
    /// Make an expectation.
    CreateExpectation(Box<NewExpectation>),
    /// Show events of expectations.
    ExpectationEvents(Output),
    /// Remove all expectations.
    FlushExpectations,
    /// The number of expectations.
    CountExpectations,
    /// Print the counters of the CPUs about expectations.
    ExpectationStats,
}

impl Command {
    /// The command of a command line.
    pub fn parse(arguments: &[String], names: &Names) -> Result<Self, Rejection> {
        let mut arguments = Arguments::read(arguments, names)?;
        arguments.name_labels(&names.labels)?;
        Self::of(&arguments)
    }

    /// The command of arguments whose labels were resolved.
    pub fn of(arguments: &Arguments) -> Result<Self, Rejection> {
        let verb = arguments.verb.unwrap_or(Verb::Help);
        if verb == Verb::Help {
            return Ok(Self::Help(arguments.proto));
        }
        if verb == Verb::Version {
            return Ok(Self::Version);
        }
        check(arguments, verb)?;
        let a = arguments;
        // A command that names labels prints them, unless it removes them.
        let named = a.has(Opt::Label) || a.has(Opt::LabelAdd) || a.has(Opt::LabelDel);
        let labels = named && verb != Verb::Delete;
        let output = Output { labels: a.output.labels || labels, ..a.output };
        Ok(match (verb, a.table) {
            (Verb::Help | Verb::Version, _) => Self::Version,
            (Verb::List, Table::Expect) => {
                // Without a family, commands on expectations mean IPv4.
                Self::ListExpectations { family: a.family.or(Some(FAMILY_V4)), output }
            }
            (Verb::List, table) => Self::List {
                list: match table {
                    Table::Dying => List::Dying,
                    Table::Unconfirmed => List::Unconfirmed,
                    Table::Conntrack | Table::Expect => List::Table,
                },
                filter: filter(a)?,
                zero: a.has(Opt::Zero),
                output,
            },
            (Verb::Get, Table::Expect) => Self::GetExpectation(expect_key(a)?),
            (Verb::Get, _) => {
                let key = key(a)?;
                let mut filter = filter(a)?;
                // The entry's key needs no comparison.
                filter.request.orig = TupleFilter::default();
                if key.reply {
                    filter.request.reply = TupleFilter::default();
                }
                Self::Get { key, filter, output }
            }
            (Verb::Delete, Table::Expect) => Self::DeleteExpectation(expect_key(a)?),
            (Verb::Delete, _) => Self::Delete { filter: filter(a)?, output },
            (Verb::Create, Table::Expect) => Self::CreateExpectation(Box::new(new_expectation(a)?)),
            (Verb::Create | Verb::Add, _) => {
                Self::Create { entry: Box::new(new_entry(a)?), lenient: verb == Verb::Add }
            }
            (Verb::Update, _) => Self::Update { filter: changed(a), edit: edit(a)?, output },
            (Verb::Events, Table::Expect) => Self::ExpectationEvents(output),
            (Verb::Events, _) => Self::Events {
                filter: filter(a)?,
                groups: a.events.unwrap_or(EventGroups::ENTRIES),
                buffer: a.buffer,
                output,
            },
            (Verb::Flush, Table::Expect) => Self::FlushExpectations,
            (Verb::Flush, _) => Self::Flush(a.family),
            (Verb::Count, Table::Expect) => Self::CountExpectations,
            (Verb::Count, _) => Self::Count,
            (Verb::Stats, Table::Expect) => Self::ExpectationStats,
            (Verb::Stats, _) => Self::Stats,
        })
    }
}

/// Whether the options go with the command.
fn check(a: &Arguments, verb: Verb) -> Result<(), Rejection> {
    if a.table == Table::Conntrack && verb != Verb::Create && verb != Verb::Add {
        for (mask, of) in [(Opt::MaskSrc, Opt::Src), (Opt::MaskDst, Opt::Dst)] {
            if a.has(mask) && !a.has(of) && takes(verb, a.table, mask) {
                return Err(Rejection::usage(format!(
                    "Can't use --{} without --{}",
                    mask.long(),
                    of.long()
                )));
            }
        }
    }
    let rule = options::rule(verb, a.table).unwrap_or(options::Rule::NOTHING);
    for opt in Opt::ALL {
        check_option(opt.long(), a.has(opt), rule.needs.contains(&opt), rule.allows(&opt))?;
    }
    let named = matches!(verb, Verb::Get | Verb::Create | Verb::Add) && a.table == Table::Conntrack;
    if named {
        let given = |opt| a.has(opt);
        both(
            [given(Opt::Src), given(Opt::Dst)],
            [given(Opt::ReplySrc), given(Opt::ReplyDst)],
            ["src", "dst", "reply-src", "reply-dst"],
        )?;
    }
    let Some(proto) = a.proto else { return Ok(()) };
    let rule = protocols::rule(proto, verb, a.table);
    for opt in ProtoOpt::ALL {
        let name = protocols::long(proto, opt);
        check_option(name, a.of(opt).is_some(), rule.needs.contains(&opt), rule.allows(&opt))?;
    }
    if named && has_ends(proto) {
        let given = |opt| a.of(opt).is_some();
        let name = |opt| protocols::long(proto, opt);
        both(
            [given(ProtoOpt::OrigSrc), given(ProtoOpt::OrigDst)],
            [given(ProtoOpt::ReplySrc), given(ProtoOpt::ReplyDst)],
            [
                name(ProtoOpt::OrigSrc),
                name(ProtoOpt::OrigDst),
                name(ProtoOpt::ReplySrc),
                name(ProtoOpt::ReplyDst),
            ],
        )?;
    }
    Ok(())
}

fn takes(verb: Verb, table: Table, opt: Opt) -> bool {
    options::rule(verb, table).is_some_and(|rule| rule.allows(&opt))
}

fn check_option(name: &str, given: bool, needed: bool, allowed: bool) -> Result<(), Rejection> {
    match (given, needed, allowed) {
        (false, true, _) => Err(Rejection::usage(format!(
            "You need to supply the `--{name}' option for this command"
        ))),
        (true, _, false) => {
            Err(Rejection::usage(format!("Illegal option `--{name}' with this command")))
        }
        _ => Ok(()),
    }
}

/// One direction must have both addresses: the original one, unless it has none.
fn both(orig: [bool; 2], reply: [bool; 2], names: [&str; 4]) -> Result<(), Rejection> {
    let [src, dst, reply_src, reply_dst] = names;
    let missing =
        |src, dst| Err(Rejection::usage(format!("you have to specify `--{src}' and `--{dst}'")));
    match (orig, reply) {
        ([true, true], _) | ([false, false], [true, true]) => Ok(()),
        ([false, false], [true, false] | [false, true]) => missing(reply_src, reply_dst),
        _ => missing(src, dst),
    }
}

/// Which entries are meant.
fn filter(a: &Arguments) -> Result<Filter, Rejection> {
    let mut filter = changed(a);
    let [both, orig, reply] = a.zones;
    // The kernel compares all zones of an entry; this program then checks which of them it is.
    filter.request.zone =
        [both, orig, reply].into_iter().flatten().find(|&zone| zone != Zone::DEFAULT);
    filter.request.mark = a.mark.map(|mark| (Mark(mark.value), mark.mask));
    if let Some(status) = a.status {
        if status.mask == 0 {
            // The kernel's answer to a filter without bits.
            return Err(Rejection::failure("Operation failed: invalid parameters"));
        }
        filter.request.status = Some((status.value, status.mask));
    }
    filter.zones = a.zones;
    filter.state = a.of(ProtoOpt::State).and_then(narrow);
    filter.role = a.of(ProtoOpt::Role).and_then(narrow);
    filter.timeout = a.timeout;
    Ok(filter)
}

/// The filter that the options of -U which are no changes make.
fn changed(a: &Arguments) -> Filter {
    let [src, dst] = [0, 1].map(|n| {
        let address = a.orig[n].map(|masked| masked.address);
        let net = address.zip(a.masks[n]).map(|(address, mask)| Net { address, mask });
        // With a full mask it is an address, which the kernel can compare.
        (if net.is_some() { None } else { address }, net)
    });
    let icmp = |opt| a.of(opt);
    let of = |opt| a.of(opt).and_then(narrow);
    Filter {
        request: DumpRequest {
            family: a.family,
            orig: TupleFilter {
                src: src.0,
                dst: dst.0,
                proto: a.proto,
                sport: of(ProtoOpt::OrigSrc),
                dport: of(ProtoOpt::OrigDst),
                icmp_type: icmp(ProtoOpt::IcmpType).and_then(narrow),
                icmp_code: icmp(ProtoOpt::IcmpCode).and_then(narrow),
                icmp_id: of(ProtoOpt::IcmpId),
            },
            reply: TupleFilter {
                src: a.reply[0],
                dst: a.reply[1],
                sport: of(ProtoOpt::ReplySrc),
                dport: of(ProtoOpt::ReplyDst),
                ..TupleFilter::default()
            },
            ..DumpRequest::default()
        },
        nets: [src.1, dst.1],
        nat: a.nat,
        labels: a.labels.unwrap_or(0),
        secmark: a.secmark,
        id: a.id,
        ..Filter::default()
    }
}
