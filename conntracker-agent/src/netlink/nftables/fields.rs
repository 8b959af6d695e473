//! The attributes of one object by their numbers.

use super::super::wire::{Attribute, Attributes, DecodeError};

/// Attributes are numbered from 1 to at most this (NFTA_SET_EXPRESSIONS is 18).
const ATTRIBUTES: usize = 24;

/// The attributes of an object. Those with higher numbers are of newer kernels and left out.
pub(super) struct Fields<'a>([Option<Attribute<'a>>; ATTRIBUTES]);

impl<'a> Fields<'a> {
    /// Reads them all.
    pub(super) fn new(attributes: Attributes<'a>) -> Result<Self, DecodeError> {
        let mut all = [None; ATTRIBUTES];
        for attribute in attributes {
            let attribute = attribute?;
            if let Some(field) = all.get_mut(usize::from(attribute.kind)) {
                *field = Some(attribute);
            }
        }
        Ok(Self(all))
    }

    /// An attribute.
    pub(super) fn get(&self, kind: u16) -> Option<Attribute<'a>> {
        self.0.get(usize::from(kind)).copied().flatten()
    }

    /// A byte, if it is there and has that size.
    pub(super) fn u8(&self, kind: u16) -> Option<u8> {
        self.get(kind)?.u8("byte").ok()
    }

    /// A number of 16 bits in network byte order.
    pub(super) fn be16(&self, kind: u16) -> Option<u16> {
        self.get(kind)?.be16("number").ok()
    }

    /// A number of 32 bits in network byte order.
    pub(super) fn be32(&self, kind: u16) -> Option<u32> {
        self.get(kind)?.be32("number").ok()
    }

    /// A number of 64 bits in network byte order.
    pub(super) fn be64(&self, kind: u16) -> Option<u64> {
        self.get(kind)?.be64("number").ok()
    }

    /// Text. Bytes that are no UTF-8 are replaced.
    pub(super) fn text(&self, kind: u16) -> Option<String> {
        Some(String::from_utf8_lossy(self.get(kind)?.text()).into_owned())
    }

    /// Bytes.
    pub(super) fn bytes(&self, kind: u16) -> Option<Vec<u8>> {
        Some(self.get(kind)?.payload.to_vec())
    }

    /// The attributes inside of one.
    pub(super) fn nested(&self, kind: u16) -> Result<Option<Self>, DecodeError> {
        self.get(kind).map(|attribute| Self::new(attribute.nested())).transpose()
    }

    /// The elements of a list (NFTA_LIST_ELEM), none if there is no list.
    pub(super) fn list(&self, kind: u16) -> Attributes<'a> {
        self.get(kind).map_or(Attributes::new(&[]), |attribute| attribute.nested())
    }
}
