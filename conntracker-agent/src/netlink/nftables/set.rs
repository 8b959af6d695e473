//! Sets and maps, and their elements.

use super::{
    super::wire::DecodeError,
    data::{self, Data},
    expression::{Expression, expressions},
    fields::Fields,
};

/// NFTA_LIST_ELEM.
const LIST_ELEM: u16 = 1;

/// A set or a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Name. Anonymous ones have names like `__set0`.
    pub name: String,
    /// Handle.
    pub handle: Option<u64>,
    /// Flags ([`super::key::set`]).
    pub flags: u32,
    /// Type of the key, in nft's own numbering.
    pub key_type: u32,
    /// Bytes of a key.
    pub key_len: u32,
    /// Type of the data of a map, in nft's own numbering; verdicts have 0xffffff00.
    pub data_type: u32,
    /// Bytes of the data of a map.
    pub data_len: u32,
    /// Kind of the objects that a map maps to ([`super::ruleset::Object`]).
    pub object_kind: Option<u32>,
    /// Bytes of each field of a concatenation, without padding; empty if the kernel knows of none.
    pub fields: Vec<u32>,
    /// Timeout of elements in milliseconds, unless they have their own.
    pub timeout: Option<u64>,
    /// What each element gets (counters, limits).
    pub expressions: Vec<Expression>,
    /// Elements, in the order of the dump.
    pub elements: Vec<Element>,
}

/// An element. Sets of intervals have an element for the beginning of each, and one for its end, the first key
/// behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Key; empty of the element that stands for all other keys.
    pub key: Vec<u8>,
    /// The last key, of ranges in concatenations.
    pub key_end: Option<Vec<u8>>,
    /// What it maps to.
    pub data: Option<Data>,
    /// The object that it maps to.
    pub object: Option<String>,
    /// Flags ([`super::key::set`]).
    pub flags: u32,
    /// Timeout in milliseconds.
    pub timeout: Option<u64>,
    /// Milliseconds until it is removed.
    pub expiration: Option<u64>,
    /// What it counts or limits.
    pub expressions: Vec<Expression>,
}

/// A set of NFT_MSG_NEWSET. Its elements come in messages of their own.
pub(super) fn set(fields: &Fields<'_>) -> Result<Set, DecodeError> {
    let description = fields.nested(9)?;
    let mut concatenated = Vec::new();
    for field in description.iter().flat_map(|description| description.list(2)) {
        let field = Fields::new(field?.nested())?;
        concatenated.push(field.be32(1).ok_or(DecodeError::Missing("NFTA_SET_FIELD_LEN"))?);
    }
    Ok(Set {
        name: fields.text(2).ok_or(DecodeError::Missing("NFTA_SET_NAME"))?,
        handle: fields.be64(16),
        flags: fields.be32(3).unwrap_or_default(),
        key_type: fields.be32(4).unwrap_or_default(),
        key_len: fields.be32(5).ok_or(DecodeError::Missing("NFTA_SET_KEY_LEN"))?,
        data_type: fields.be32(6).unwrap_or_default(),
        data_len: fields.be32(7).unwrap_or_default(),
        object_kind: fields.be32(15),
        fields: concatenated,
        timeout: fields.be64(11),
        expressions: one_or_list(fields, 17, 18)?,
        elements: Vec::new(),
    })
}

/// The elements of NFT_MSG_NEWSETELEM.
pub(super) fn elements(fields: &Fields<'_>) -> Result<Vec<Element>, DecodeError> {
    fields.list(3).map(|attribute| element(&Fields::new(attribute?.nested())?)).collect()
}

fn element(fields: &Fields<'_>) -> Result<Element, DecodeError> {
    let value = |kind| -> Result<Option<Vec<u8>>, DecodeError> {
        Ok(match fields.get(kind).map(data::data).transpose()?.flatten() {
            Some(Data::Value(value)) => Some(value),
            _ => None,
        })
    };
    Ok(Element {
        key: value(1)?.unwrap_or_default(),
        key_end: value(10)?,
        data: fields.get(2).map(data::data).transpose()?.flatten(),
        object: fields.text(9),
        flags: fields.be32(3).unwrap_or_default(),
        timeout: fields.be64(4),
        expiration: fields.be64(5),
        expressions: one_or_list(fields, 7, 11)?,
    })
}

/// The only expression of an object, or several.
fn one_or_list(fields: &Fields<'_>, one: u16, list: u16) -> Result<Vec<Expression>, DecodeError> {
    if let Some(only) = fields.get(one) {
        return Ok(vec![Expression::decode(only)?]);
    }
    expressions(fields.list(list).filter(|attribute| {
        attribute.as_ref().map_or(true, |attribute| attribute.kind == LIST_ELEM)
    }))
}
