//! The options that do not depend on the protocol, and the commands that take each of them.

use super::getopt::{Definition, Takes};
use super::proto_opt::ProtoOpt;

/// The action of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// -L
    List,
    /// -G
    Get,
    /// -D
    Delete,
    /// -I
    Create,
    /// -A
    Add,
    /// -U
    Update,
    /// -E
    Events,
    /// -F
    Flush,
    /// -C
    Count,
    /// -S
    Stats,
    /// -h
    Help,
    /// -V
    Version,
}

impl Verb {
    /// Its name in errors, without `--`.
    #[must_use]
    pub fn long(self) -> &'static str {
        name(Id::Verb(self))
    }

    /// Its letter.
    #[must_use]
    pub fn letter(self) -> char {
        let definition = DEFINITIONS.iter().find(|definition| definition.id == Id::Verb(self));
        definition.and_then(|definition| definition.short).unwrap_or('?')
    }
}

/// The table that a command works on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Table {
    /// Entries.
    #[default]
    Conntrack,
    /// Expectations.
    Expect,
    /// Entries whose DESTROY event was not delivered yet.
    Dying,
    /// Entries not in the table yet.
    Unconfirmed,
}

impl Table {
    /// A table by its name or an abbreviation.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [
            ("expect", Self::Expect),
            ("conntrack", Self::Conntrack),
            ("dying", Self::Dying),
            ("unconfirmed", Self::Unconfirmed),
        ]
        .into_iter()
        .find(|(name, _)| name.starts_with(text))
        .map(|(_, table)| table)
    }
}

/// An option that is neither a command nor of a protocol. Missing or wrong options are reported in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names that `long` has")]
pub enum Opt {
    Src,
    Dst,
    ReplySrc,
    ReplyDst,
    Proto,
    Timeout,
    Status,
    Zero,
    EventMask,
    TupleSrc,
    TupleDst,
    MaskSrc,
    MaskDst,
    Mark,
    Id,
    Family,
    SrcNat,
    DstNat,
    Output,
    Secmark,
    BufferSize,
    AnyNat,
    Zone,
    Label,
    LabelAdd,
    LabelDel,
    OrigZone,
    ReplyZone,
    LabelMap,
    /// Not of conntrack(8).
    Helper,
}

impl Opt {
    /// All of them.
    pub const ALL: [Self; 30] = [
        Self::Src,
        Self::Dst,
        Self::ReplySrc,
        Self::ReplyDst,
        Self::Proto,
        Self::Timeout,
        Self::Status,
        Self::Zero,
        Self::EventMask,
        Self::TupleSrc,
        Self::TupleDst,
        Self::MaskSrc,
        Self::MaskDst,
        Self::Mark,
        Self::Id,
        Self::Family,
        Self::SrcNat,
        Self::DstNat,
        Self::Output,
        Self::Secmark,
        Self::BufferSize,
        Self::AnyNat,
        Self::Zone,
        Self::Label,
        Self::LabelAdd,
        Self::LabelDel,
        Self::OrigZone,
        Self::ReplyZone,
        Self::LabelMap,
        Self::Helper,
    ];

    /// Its name in errors, without `--`.
    #[must_use]
    pub fn long(self) -> &'static str {
        name(Id::Opt(self))
    }
}

/// The first long name of an option; empty if it has none.
fn name(id: Id) -> &'static str {
    let definition = DEFINITIONS.iter().find(|definition| definition.id == id);
    definition.and_then(|definition| definition.long.first()).copied().unwrap_or_default()
}

/// The meaning of an argument that begins with `-`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id {
    /// A command.
    Verb(Verb),
    /// An option.
    Opt(Opt),
    /// An option of a protocol.
    Proto(ProtoOpt),
    /// `-a`, which is obsolete.
    Ignored,
}

const fn verb(short: char, long: &'static [&'static str], verb: Verb) -> Definition<Id> {
    Definition { short: Some(short), long, takes: Takes::MaybeNext, id: Id::Verb(verb) }
}

const fn flag(short: char, long: &'static [&'static str], id: Id) -> Definition<Id> {
    Definition { short: Some(short), long, takes: Takes::Nothing, id }
}

const fn option(short: char, long: &'static [&'static str], opt: Opt) -> Definition<Id> {
    Definition { short: Some(short), long, takes: Takes::Value, id: Id::Opt(opt) }
}

const fn maybe(short: char, long: &'static [&'static str], opt: Opt) -> Definition<Id> {
    Definition { short: Some(short), long, takes: Takes::Maybe, id: Id::Opt(opt) }
}

/// Commands and options.
pub const DEFINITIONS: &[Definition<Id>] = &[
    verb('L', &["dump"], Verb::List),
    verb('G', &["get"], Verb::Get),
    verb('D', &["delete"], Verb::Delete),
    verb('I', &["create"], Verb::Create),
    verb('A', &["add"], Verb::Add),
    verb('U', &["update"], Verb::Update),
    verb('E', &["event"], Verb::Events),
    verb('F', &["flush"], Verb::Flush),
    // Only this command's table may be attached to its letter.
    Definition {
        short: Some('C'),
        long: &["count"],
        takes: Takes::Maybe,
        id: Id::Verb(Verb::Count),
    },
    verb('S', &["stats"], Verb::Stats),
    flag('h', &["help"], Id::Verb(Verb::Help)),
    flag('V', &["version"], Id::Verb(Verb::Version)),
    option('s', &["src", "orig-src"], Opt::Src),
    option('d', &["dst", "orig-dst"], Opt::Dst),
    option('r', &["reply-src"], Opt::ReplySrc),
    option('q', &["reply-dst"], Opt::ReplyDst),
    option('p', &["protonum", "proto"], Opt::Proto),
    option('t', &["timeout"], Opt::Timeout),
    option('u', &["status"], Opt::Status),
    flag('z', &["zero"], Id::Opt(Opt::Zero)),
    option('e', &["event-mask"], Opt::EventMask),
    option('[', &["tuple-src"], Opt::TupleSrc),
    option(']', &["tuple-dst"], Opt::TupleDst),
    option('{', &["mask-src"], Opt::MaskSrc),
    option('}', &["mask-dst"], Opt::MaskDst),
    option('m', &["mark"], Opt::Mark),
    option('i', &["id"], Opt::Id),
    option('f', &["family"], Opt::Family),
    maybe('n', &["src-nat"], Opt::SrcNat),
    maybe('g', &["dst-nat"], Opt::DstNat),
    option('o', &["output"], Opt::Output),
    option('c', &["secmark"], Opt::Secmark),
    option('b', &["buffer-size"], Opt::BufferSize),
    maybe('j', &["any-nat"], Opt::AnyNat),
    option('w', &["zone"], Opt::Zone),
    option('l', &["label"], Opt::Label),
    option('<', &["label-add"], Opt::LabelAdd),
    maybe('>', &["label-del"], Opt::LabelDel),
    option('(', &["orig-zone"], Opt::OrigZone),
    option(')', &["reply-zone"], Opt::ReplyZone),
    option('M', &["labelmap"], Opt::LabelMap),
    Definition { short: None, long: &["helper"], takes: Takes::Value, id: Id::Opt(Opt::Helper) },
    Definition { short: Some('a'), long: &["nat-range"], takes: Takes::Value, id: Id::Ignored },
];

/// The options that a command requires, and those that it allows.
#[derive(Clone, Copy, Debug)]
pub struct Rule<T: 'static> {
    /// Needed.
    pub needs: &'static [T],
    /// Taken.
    pub takes: &'static [T],
}

impl<T: PartialEq> Rule<T> {
    /// Takes nothing.
    pub const NOTHING: Self = Self { needs: &[], takes: &[] };

    /// Whether an option may be given.
    #[must_use]
    pub fn allows(&self, option: &T) -> bool {
        self.needs.contains(option) || self.takes.contains(option)
    }
}

/// The options of a command; `None` if the table has no such command.
#[must_use]
pub fn rule(verb: Verb, table: Table) -> Option<Rule<Opt>> {
    use Opt::{
        AnyNat, BufferSize, Dst, DstNat, EventMask, Family, Helper, Id, Label, LabelAdd, LabelDel,
        LabelMap, Mark, MaskDst, MaskSrc, OrigZone, Output, Proto, ReplyDst, ReplySrc, ReplyZone,
        Secmark, Src, SrcNat, Status, Timeout, TupleDst, TupleSrc, Zero, Zone,
    };
    let (needs, takes): (&'static [Opt], &'static [Opt]) = match (verb, table) {
        (Verb::Help | Verb::Version, _) => (&[], &[Proto]),
        (Verb::List, Table::Conntrack | Table::Dying | Table::Unconfirmed) => (
            &[],
            &[
                Src, Dst, MaskSrc, MaskDst, ReplySrc, ReplyDst, Proto, Family, Status, Zone,
                OrigZone, ReplyZone, SrcNat, DstNat, AnyNat, Mark, Secmark, Zero, Output, Label,
                LabelMap,
            ],
        ),
        (_, Table::Dying | Table::Unconfirmed) | (Verb::Add | Verb::Update, Table::Expect) => {
            return None;
        }
        (Verb::Get, Table::Conntrack) => {
            (&[Proto], &[Src, Dst, ReplySrc, ReplyDst, Output, Label, Id])
        }
        (Verb::Delete, Table::Conntrack) => (
            &[],
            &[
                Src, Dst, MaskSrc, MaskDst, ReplySrc, ReplyDst, Proto, Family, Timeout, Status,
                Zone, OrigZone, ReplyZone, SrcNat, DstNat, Mark, Output, Label, Id, LabelMap,
            ],
        ),
        (Verb::Create | Verb::Add, Table::Conntrack) => (
            &[Proto, Timeout],
            &[
                Src, Dst, ReplySrc, ReplyDst, Status, Zone, OrigZone, ReplyZone, SrcNat, DstNat,
                Mark, LabelAdd, Helper,
            ],
        ),
        (Verb::Update, Table::Conntrack) => (
            &[],
            &[
                Src, Dst, MaskSrc, MaskDst, ReplySrc, ReplyDst, Proto, Family, Timeout, Status,
                SrcNat, DstNat, Mark, Output, Label, LabelAdd, LabelDel, Id, LabelMap,
            ],
        ),
        (Verb::Events, Table::Conntrack) => (
            &[],
            &[
                Src, Dst, MaskSrc, MaskDst, ReplySrc, ReplyDst, Proto, Family, Zone, OrigZone,
                ReplyZone, BufferSize, SrcNat, DstNat, AnyNat, Mark, Secmark, EventMask, Output,
                Label, LabelMap,
            ],
        ),
        (Verb::Flush, Table::Conntrack) => (&[], &[Family]),
        (Verb::Count | Verb::Stats, _) | (Verb::Flush, Table::Expect) => (&[], &[]),
        (Verb::List, Table::Expect) => (&[], &[Family, Output]),
        (Verb::Get | Verb::Delete, Table::Expect) => (&[Src, Dst, Proto], &[ReplySrc, ReplyDst]),
        (Verb::Create, Table::Expect) => (
            &[Src, Dst, Proto, Timeout, TupleSrc, TupleDst, MaskSrc, MaskDst],
            &[ReplySrc, ReplyDst, Status],
        ),
        (Verb::Events, Table::Expect) => (&[], &[Output]),
    };
    Some(Rule { needs, takes })
}
