//! Reads a file of one or more parts, whatever state it is in: each whole block is read, and what is damaged is said.

use std::{collections::VecDeque, io::Read};

use serde::de::DeserializeOwned;

use super::{
    Error,
    body::{Columns, Unpacker},
    column::Malformed,
    dictionary::Stated,
    events::EventReader,
    head::{BlockHead, BlockType, PartHead},
    part::{IP_TABLES, JSON, NF_TABLES, ROUTING},
    scan::{End, Found, Frame, Scanner, Skipped},
    statement::{Close, Counts, Gap, Header, Owners, Ruleset},
};
use crate::{firewall::objects::KernelObjects, model::event::FlowEvent};

/// Events that a block may claim to have.
const MOST_RECORDS: u32 = 1 << 20;

/// Something that a recording has.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Item {
    /// A part begins.
    Part(PartHead),
    /// What was observed.
    Header(Header),
    /// Names of processes, users and control groups.
    Owners(Owners),
    /// A ruleset.
    Ruleset(Ruleset),
    /// Counts of sources and losses.
    Counts(Counts),
    /// Events, in the order in which the flow table took them.
    Events(Vec<FlowEvent>),
    /// The writer left something out.
    Gap(Gap),
    /// The part ended in order.
    Close(Close),
    /// Something cannot be read.
    Damage(Damage),
}

/// Something that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Where in the file it begins.
    pub offset: u64,
    /// How many bytes were left out; 0 if records refer to what was lost before.
    pub bytes: u64,
    /// How many blocks that were; `None` at the end of the file, where nobody can say.
    pub blocks: Option<u64>,
    /// Records that refer to something that is lost, and are left out with it.
    pub records: u64,
    /// Time of the last record before it, and of the first one behind it: nanoseconds since boot, `None` if there is
    /// none.
    pub between: (Option<u64>, Option<u64>),
    /// What it is: a few words.
    pub what: &'static str,
}

/// Reads a recording.
pub struct Reader<R> {
    scanner: Scanner<R>,
    unpacker: Unpacker,
    stated: Stated,
    items: VecDeque<Item>,
    /// Time of the last record.
    last_ns: Option<u64>,
    closed: bool,
}

impl<R: Read> Reader<R> {
    /// Reads from the beginning of a part.
    ///
    /// # Errors
    /// There is no memory to decompress.
    pub fn new(input: R) -> std::io::Result<Self> {
        Ok(Self {
            scanner: Scanner::new(input),
            unpacker: Unpacker::new()?,
            stated: Stated::default(),
            items: VecDeque::new(),
            last_ns: None,
            closed: false,
        })
    }

    /// Whether the last part ended in order.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// The next item; `None` at the end of the file. Called again, it reads what was added since.
    ///
    /// # Errors
    /// The file cannot be read, is something else, or is of a later version.
    pub fn next(&mut self, end: End) -> Result<Option<Item>, Error> {
        while self.items.is_empty() {
            let Some(found) = self.scanner.next(end)? else { return Ok(None) };
            self.say_damage(&found);
            match found.frame {
                Frame::Part(part) => {
                    self.stated = Stated::default();
                    (self.last_ns, self.closed) = (None, false);
                    self.items.push_back(Item::Part(part));
                }
                Frame::Block(head) => self.block(head, found.offset)?,
                Frame::End => {}
            }
        }
        Ok(self.items.pop_front())
    }

    fn say_damage(&mut self, found: &Found) {
        let &Found { frame, offset, skipped, missing } = found;
        if skipped.is_none() && missing == 0 {
            return;
        }
        let Skipped { offset, bytes, what } =
            skipped.unwrap_or(Skipped { offset, bytes: 0, what: "blocks are missing" });
        let (blocks, next_ns) = match frame {
            // A statement may have no time.
            Frame::Block(head) => (Some(missing), Some(head.first_ns).filter(|&ns| ns > 0)),
            Frame::Part(_) | Frame::End => (None, None),
        };
        let between = (self.last_ns, next_ns);
        self.items.push_back(Item::Damage(Damage {
            offset,
            bytes,
            blocks,
            records: 0,
            between,
            what,
        }));
    }

    fn block(&mut self, head: BlockHead, offset: u64) -> Result<(), Error> {
        if head.kind.is_of_later_version() && head.must_understand {
            return Err(Error::MustUnderstand(head.kind.number()));
        }
        let (item, lost) = match self.decode(head) {
            Ok((item, 0)) => (item, None),
            Ok((item, records)) => (item, Some((0, records, "records that refer to a lost block"))),
            Err(Malformed) => (None, Some((1, 0, "a block that cannot be decoded"))),
        };
        if let Some((blocks, records, what)) = lost {
            self.items.push_back(Item::Damage(Damage {
                offset,
                bytes: 0,
                blocks: Some(blocks),
                records,
                between: (Some(head.first_ns), Some(head.last_ns)),
                what,
            }));
        }
        self.items.extend(item);
        self.last_ns = self.last_ns.max(Some(head.last_ns).filter(|&ns| ns > 0));
        Ok(())
    }

    /// What a block has, if that is anything for the caller, and how many records are left out because they refer to
    /// something that is lost.
    fn decode(&mut self, head: BlockHead) -> Result<(Option<Item>, u64), Malformed> {
        let columns = self.unpacker.unpack(self.scanner.body())?;
        let item = match head.kind {
            BlockType::Events => return self.events(columns, head.records),
            BlockType::Strings => {
                self.stated.add_strings(text(&columns)?).map_err(|_| Malformed)?;
                return Ok((None, 0));
            }
            BlockType::Paths => {
                self.stated.add_paths(text(&columns)?).map_err(|_| Malformed)?;
                return Ok((None, 0));
            }
            BlockType::Header => Item::Header(json(&columns)?),
            BlockType::Owners => Item::Owners(json(&columns)?),
            BlockType::Ruleset => Item::Ruleset(ruleset(columns)?),
            BlockType::Counts => Item::Counts(json(&columns)?),
            BlockType::Gap => Item::Gap(json(&columns)?),
            BlockType::Close => {
                self.closed = true;
                Item::Close(json(&columns)?)
            }
            BlockType::Other(_) => return Ok((None, 0)),
        };
        Ok((Some(item), 0))
    }

    fn events(&mut self, columns: Columns, records: u32) -> Result<(Option<Item>, u64), Malformed> {
        if records > MOST_RECORDS {
            return Err(Malformed);
        }
        let mut events: Vec<FlowEvent> = Vec::with_capacity(records.min(4_096) as usize);
        let mut reader = EventReader::new(columns, records, &self.stated);
        while let Some(event) = reader.next()? {
            events.push(event);
        }
        Ok((Some(Item::Events(events)), reader.left_out.paths))
    }
}

fn text(columns: &Columns) -> Result<&[u8], Malformed> {
    columns.get(&JSON).map(Vec::as_slice).ok_or(Malformed)
}

fn ruleset(mut columns: Columns) -> Result<Ruleset, Malformed> {
    let mut ruleset: Ruleset = json(&columns)?;
    let mut take = |column| columns.remove(&column).unwrap_or_default();
    let KernelObjects { nf_tables, ip_tables, routing, missing: _ } = &mut ruleset.objects;
    for (column, bytes) in [(NF_TABLES, nf_tables), (IP_TABLES, ip_tables), (ROUTING, routing)] {
        *bytes = take(column);
    }
    Ok(ruleset)
}

fn json<T: DeserializeOwned>(columns: &Columns) -> Result<T, Malformed> {
    serde_json::from_slice(text(columns)?).map_err(|_| Malformed)
}
