//! Values and verdicts, as rules and maps have them.

use super::{
    super::wire::{Attribute, DecodeError},
    fields::Fields,
};

/// What a rule does with a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// NF_DROP.
    Drop,
    /// NF_ACCEPT.
    Accept,
    /// NF_STOLEN.
    Stolen,
    /// NF_QUEUE.
    Queue,
    /// NFT_CONTINUE.
    Continue,
    /// NFT_BREAK.
    Break,
    /// NFT_JUMP.
    Jump(String),
    /// NFT_GOTO.
    Goto(String),
    /// NFT_RETURN.
    Return,
}

/// What a map maps to, or a rule loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// A value.
    Value(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

/// NFTA_DATA_VALUE or NFTA_DATA_VERDICT; `None` of other kinds.
pub(super) fn data(attribute: Attribute<'_>) -> Result<Option<Data>, DecodeError> {
    let fields = Fields::new(attribute.nested())?;
    if let Some(value) = fields.bytes(1) {
        return Ok(Some(Data::Value(value)));
    }
    let of = fields.nested(2)?;
    Ok(of.and_then(|fields| verdict(&fields)).map(Data::Verdict))
}

/// NFTA_VERDICT_CODE and NFTA_VERDICT_CHAIN; `None` if the code is a new one.
fn verdict(fields: &Fields<'_>) -> Option<Verdict> {
    Some(match fields.be32(1)?.cast_signed() {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        2 => Verdict::Stolen,
        3 => Verdict::Queue,
        -1 => Verdict::Continue,
        -2 => Verdict::Break,
        -3 => Verdict::Jump(fields.text(2)?),
        -4 => Verdict::Goto(fields.text(2)?),
        -5 => Verdict::Return,
        _ => return None,
    })
}
