//! Registers of nf_tables while a rule is read: which field of the packet each has.

use std::collections::BTreeMap;

use crate::{firewall::analyse::field::Field, netlink::nftables::expression::Register};

/// Bytes of the words of which registers consist.
const WORD: usize = 4;

/// What registers have, by their first byte; what is not here is unknown.
#[derive(Clone, Debug, Default)]
pub(super) struct Symbols(BTreeMap<usize, (usize, Field)>);

impl Symbols {
    /// A field is loaded.
    pub fn set(&mut self, to: Register, field: Field) {
        let bytes = field.source.layout().map_or(0, |(bytes, _)| bytes);
        self.forget(to, bytes);
        self.0.insert(to.offset(), (bytes, field));
    }

    /// Something else is loaded.
    pub fn forget(&mut self, to: Register, bytes: usize) {
        let written = to.offset()..to.offset() + bytes.next_multiple_of(WORD);
        self.0.retain(|first, (bytes, _)| {
            first + bytes.next_multiple_of(WORD) <= written.start || *first >= written.end
        });
    }

    /// The field at a register.
    pub fn get(&self, from: Register) -> Option<&Field> {
        self.0.get(&from.offset()).map(|(_, field)| field)
    }

    /// The fields of a key of so many bytes, with their offsets in it; `None` if other things are part of it.
    pub fn fields(&self, from: Register, bytes: usize) -> Option<Vec<(usize, Field)>> {
        let mut fields = Vec::new();
        let mut at = 0;
        while at < bytes {
            let (length, field) = self.0.get(&(from.offset() + at))?;
            fields.push((at, field.clone()));
            at += length.next_multiple_of(WORD);
        }
        Some(fields)
    }
}
