//! Parses a command line, option by option; [`super::command`] checks whether the options fit together.

use std::net::IpAddr;

use super::getopt::{Found, Problem, Reader};
use super::options::{DEFINITIONS, Id, Opt, Table, Verb};
use super::values::{self, MarkArgument, Masked, Output, StatusBits, Translated};
use super::{Names, Rejection};
use super::{proto_opt::ProtoOpt, protocols};
use crate::conntrack::EventGroups;
use crate::model::Zone;
use crate::report::conntrack::LabelMap;

/// The options that were given, and their values.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// The command; none asks for help.
    pub verb: Option<Verb>,
    /// The table.
    pub table: Table,
    /// AF_INET or AF_INET6, asked for or implied by an address.
    pub family: Option<u8>,
    /// Source and destination of the original direction.
    pub orig: [Option<Masked>; 2],
    /// Source and destination of the reply direction.
    pub reply: [Option<IpAddr>; 2],
    /// Source and destination of an expectation.
    pub tuple: [Option<Masked>; 2],
    /// Masks of sources and destinations.
    pub masks: [Option<IpAddr>; 2],
    /// IP protocol number.
    pub proto: Option<u8>,
    /// Values of the protocol's options.
    pub proto_values: [Option<u32>; ProtoOpt::ALL.len()],
    /// Seconds.
    pub timeout: Option<u32>,
    /// Status bits.
    pub status: Option<StatusBits>,
    /// Connmark.
    pub mark: Option<MarkArgument>,
    /// Security mark.
    pub secmark: Option<u32>,
    /// Identifier.
    pub id: Option<u32>,
    /// Zone of both directions, of the original and of the reply direction.
    pub zones: [Option<Zone>; 3],
    /// NAT of the source, of the destination, of either: any translation, or one to an address.
    pub nat: [Option<Option<Translated>>; 3],
    /// Labels to match, after [`Self::name_labels`] has resolved them.
    pub labels: Option<u128>,
    /// Labels to add, as above.
    pub label_add: Option<u128>,
    /// Labels to remove, as above; `u128::MAX` is all.
    pub label_del: Option<u128>,
    /// The file with the names of labels.
    pub labelmap: Option<String>,
    /// The helper of a new entry.
    pub helper: Option<String>,
    /// Kinds of events.
    pub events: Option<EventGroups>,
    /// Bytes of the event buffer.
    pub buffer: Option<usize>,
    /// How to print.
    pub output: Output,
    /// Number of obsolete options, each of which gets a warning.
    pub ignored: usize,
    /// Options about labels with their values. `labelmap`, which may follow later, decides which labels they mean.
    label_texts: Vec<(Opt, Option<String>)>,
    given: u32,
}

impl Arguments {
    /// Reads arguments, those behind the program's name.
    pub fn read(arguments: &[String], names: &Names) -> Result<Self, Rejection> {
        let mut reader = Reader::new(arguments);
        let mut read = Self::default();
        let mut words = (false, false);
        let mut behind_command = false;
        loop {
            let mut definitions = vec![DEFINITIONS];
            definitions.extend(read.proto.map(protocols::definitions).unwrap_or_default());
            let Some(found) = reader.next(&definitions) else { break };
            let Found { id, value, behind } = found.map_err(|problem| {
                Rejection::usage(match problem {
                    Problem::Unknown(text) => format!("unknown option `{text}'"),
                    Problem::NoValue(text) => format!("option `{text}' requires an argument"),
                })
            })?;
            behind_command &= behind;
            match id {
                // 1.4.7 ignored everything that is attached to a command, and some callers attach commands (`-LSC`).
                Id::Verb(_) if behind_command => {}
                Id::Verb(verb) => {
                    read.command(verb, value.as_deref())?;
                    behind_command = verb != Verb::Stats;
                }
                Id::Proto(opt) => read.of_protocol(opt, &value.unwrap_or_default())?,
                Id::Ignored => read.ignored += 1,
                Id::Opt(opt) => {
                    if let (Opt::Output, Some(text)) = (opt, &value) {
                        let (save, other) = values::words(text)?;
                        words = (words.0 | save, words.1 | other);
                    }
                    read.option(opt, value.as_deref(), names)?;
                }
            }
        }
        if words == (true, true) {
            return Err(Rejection::failure(
                "cannot combine save output with any other output type, use -o save only",
            ));
        }
        Ok(read)
    }

    /// Whether names of labels are asked for.
    #[must_use]
    pub fn needs_label_names(&self) -> bool {
        self.output.labels || !self.label_texts.is_empty()
    }

    /// Resolves the labels.
    ///
    /// # Errors A text that is neither the name nor the number of a label.
    pub fn name_labels(&mut self, names: &LabelMap) -> Result<(), Rejection> {
        for (opt, text) in &self.label_texts {
            let labels = match text {
                Some(text) => values::labels(text, names)?,
                None => u128::MAX,
            };
            let of = match opt {
                Opt::LabelAdd => &mut self.label_add,
                Opt::LabelDel => &mut self.label_del,
                _ => &mut self.labels,
            };
            *of.get_or_insert(0) |= labels;
        }
        self.label_texts.clear();
        Ok(())
    }

    /// Whether an option was given, or one that implies it.
    #[must_use]
    pub fn has(&self, opt: Opt) -> bool {
        self.given & 1 << opt as u32 != 0
    }

    /// The value of a protocol's option.
    #[must_use]
    pub fn of(&self, opt: ProtoOpt) -> Option<u32> {
        self.proto_values.get(opt as usize).copied().flatten()
    }

    fn command(&mut self, verb: Verb, table: Option<&str>) -> Result<(), Rejection> {
        if self.verb.is_some() {
            return Err(Rejection::usage("Invalid commands combination"));
        }
        if let Some(text) = table {
            self.table = Table::parse(text)
                .ok_or_else(|| Rejection::usage(format!("unknown type `{text}'")))?;
        }
        if super::options::rule(verb, self.table).is_none() {
            return Err(Rejection::usage(match self.table {
                Table::Expect => format!("Can't do --{} on expectations", verb.long()),
                _ => "Can't do that command with tables `dying' and `unconfirmed'".to_owned(),
            }));
        }
        self.verb = Some(verb);
        Ok(())
    }

    fn option(&mut self, opt: Opt, value: Option<&str>, names: &Names) -> Result<(), Rejection> {
        let name = opt.long();
        let text = value.unwrap_or_default();
        self.given |= 1 << opt as u32;
        match opt {
            Opt::Src | Opt::Dst => {
                let which = usize::from(opt == Opt::Dst);
                self.orig[which] = Some(self.masked(text, which)?);
            }
            Opt::TupleSrc | Opt::TupleDst => {
                let which = usize::from(opt == Opt::TupleDst);
                self.tuple[which] = Some(self.masked(text, which)?);
            }
            Opt::ReplySrc | Opt::ReplyDst => {
                let address = values::unmasked(text, name)?;
                self.of_family(address)?;
                self.reply[usize::from(opt == Opt::ReplyDst)] = Some(address);
            }
            Opt::MaskSrc | Opt::MaskDst => {
                let mask = values::address(text)?;
                self.of_family(mask)?;
                self.masks[usize::from(opt == Opt::MaskDst)] = Some(mask);
            }
            Opt::SrcNat | Opt::DstNat | Opt::AnyNat => {
                let to = value.map(|text| values::translated(text, name)).transpose()?;
                if let Some(to) = to {
                    self.of_family(to.address)?;
                }
                self.translation(opt, to)?;
            }
            Opt::Proto => self.proto = Some(values::protocol(text, names)?),
            Opt::Family => self.set_family(values::family(text)?)?,
            Opt::Timeout => self.timeout = Some(values::number(text, name)?),
            Opt::Status => self.status.get_or_insert_default().add(text)?,
            Opt::Mark => self.mark = Some(values::mark(text)?),
            Opt::Secmark => self.secmark = Some(values::lettered(text, 'c')?),
            Opt::Id => self.id = Some(values::lettered(text, 'i')?),
            Opt::Zone => self.zones[0] = Some(Zone(values::lettered(text, 'w')?)),
            Opt::OrigZone => self.zones[1] = Some(Zone(values::lettered(text, '(')?)),
            Opt::ReplyZone => self.zones[2] = Some(Zone(values::lettered(text, ')')?)),
            Opt::Label | Opt::LabelAdd | Opt::LabelDel => {
                self.label_texts.push((opt, value.map(str::to_owned)));
            }
            Opt::LabelMap if self.labelmap.is_some() => {
                return Err(Rejection::usage("option `--labelmap' can only be specified once"));
            }
            Opt::LabelMap => self.labelmap = Some(text.to_owned()),
            Opt::Helper => self.helper = Some(text.to_owned()),
            Opt::EventMask => {
                let groups = values::events(text)?;
                self.events = Some(self.events.map_or(groups, |events| events.and(groups)));
            }
            Opt::BufferSize => self.buffer = Some(values::number(text, name)?),
            Opt::Output => self.output.add(text)?,
            Opt::Zero => {}
        }
        Ok(())
    }

    fn of_protocol(&mut self, opt: ProtoOpt, text: &str) -> Result<(), Rejection> {
        let proto = self.proto.unwrap_or_default();
        let name = protocols::long(proto, opt);
        let value: u32 = match opt {
            ProtoOpt::State => values::state(proto, text)?.into(),
            ProtoOpt::Role => values::role(text)?.into(),
            // The bytes as in the packet: see `save` of the renderers.
            ProtoOpt::OrigVtag | ProtoOpt::ReplyVtag => u32::from_be(values::number(text, name)?),
            ProtoOpt::IcmpType | ProtoOpt::IcmpCode => values::decimal::<u8>(text, name)?.into(),
            ProtoOpt::IcmpId => values::decimal::<u16>(text, name)?.into(),
            _ if proto == conntracker_common::IPPROTO_GRE => {
                values::number::<u16>(text, name)?.into()
            }
            _ => values::decimal::<u16>(text, name)?.into(),
        };
        if let Some(slot) = self.proto_values.get_mut(opt as usize) {
            *slot = Some(value);
        }
        Ok(())
    }

    fn translation(&mut self, opt: Opt, to: Option<Translated>) -> Result<(), Rejection> {
        let which = match opt {
            Opt::SrcNat => 0,
            Opt::DstNat => 1,
            _ => 2,
        };
        self.nat[which] = Some(to);
        match self.nat {
            [None, None, _] | [_, _, None] => Ok(()),
            _ => {
                Err(Rejection::usage("cannot specify `--src-nat' or `--dst-nat' with `--any-nat'"))
            }
        }
    }

    /// A prefix length sets the mask of the address.
    fn masked(&mut self, text: &str, which: usize) -> Result<Masked, Rejection> {
        let masked = values::masked(text)?;
        self.of_family(masked.address)?;
        if let Some(mask) = masked.mask {
            let opt = if which == 0 { Opt::MaskSrc } else { Opt::MaskDst };
            self.given |= 1 << opt as u32;
            self.masks[which] = Some(mask);
        }
        Ok(masked)
    }

    fn of_family(&mut self, address: IpAddr) -> Result<(), Rejection> {
        use conntracker_common::record::{FAMILY_V4, FAMILY_V6};
        self.set_family(if address.is_ipv4() { FAMILY_V4 } else { FAMILY_V6 })
    }

    fn set_family(&mut self, family: u8) -> Result<(), Rejection> {
        match self.family {
            Some(other) if other != family => Err(Rejection::usage("mismatched address family")),
            _ => {
                self.family = Some(family);
                Ok(())
            }
        }
    }
}
