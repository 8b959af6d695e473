//! Options that belong to a protocol.

/// The meaning of a protocol's option. Missing or wrong options are reported in this order. Ports and keys of GRE are
/// the same here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names of the options say it")]
pub enum ProtoOpt {
    OrigSrc,
    OrigDst,
    ReplySrc,
    ReplyDst,
    MaskSrc,
    MaskDst,
    TupleSrc,
    TupleDst,
    State,
    OrigVtag,
    ReplyVtag,
    Role,
    IcmpType,
    IcmpCode,
    IcmpId,
}

impl ProtoOpt {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::OrigSrc,
        Self::OrigDst,
        Self::ReplySrc,
        Self::ReplyDst,
        Self::MaskSrc,
        Self::MaskDst,
        Self::TupleSrc,
        Self::TupleDst,
        Self::State,
        Self::OrigVtag,
        Self::ReplyVtag,
        Self::Role,
        Self::IcmpType,
        Self::IcmpCode,
        Self::IcmpId,
    ];
}
