//! The changes that a command makes to entries.

use conntracker_common::{
    IPPROTO_DCCP, IPPROTO_GRE, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE,
};

use super::Rejection;
use super::arguments::Arguments;
use super::proto_opt::ProtoOpt;
use crate::conntrack::LabelChange;
use crate::conntrack8::values::MarkArgument;

/// The changes of an entry. Many depend on its present values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// Seconds until it ends.
    pub timeout: Option<u32>,
    /// Status bits to set.
    pub status: u32,
    /// The mark: the kernel clears the bits of the mask, then flips those of the value.
    pub mark: Option<MarkArgument>,
    /// Labels to set and to clear.
    pub labels: Option<LabelChange>,
    /// State of the tracker, and its protocol.
    pub state: Option<(u8, u8)>,
    /// Verification tags.
    pub vtags: [Option<u32>; 2],
    /// Role of DCCP.
    pub role: Option<u8>,
}

/// Whether there are ports or keys.
pub(super) fn has_ends(proto: u8) -> bool {
    matches!(
        proto,
        IPPROTO_TCP | IPPROTO_UDP | IPPROTO_UDPLITE | IPPROTO_SCTP | IPPROTO_DCCP | IPPROTO_GRE
    )
}

/// Narrows a number that was checked when it was parsed.
pub(super) fn narrow<T: TryFrom<u32>>(value: u32) -> Option<T> {
    T::try_from(value).ok()
}

/// What changes.
pub(super) fn edit(a: &Arguments) -> Result<Edit, Rejection> {
    let labels = match (a.label_add, a.label_del) {
        (Some(_), Some(_)) => {
            return Err(Rejection::failure(
                "cannot use --label-add and --label-del at the same time",
            ));
        }
        (Some(labels), None) => Some(LabelChange::add(labels)),
        (None, Some(labels)) => Some(LabelChange::remove(labels)),
        (None, None) => None,
    };
    Ok(Edit {
        timeout: a.timeout,
        status: a.status.map_or(0, |status| status.value),
        mark: a.mark,
        labels,
        state: a.proto.zip(a.of(ProtoOpt::State).and_then(narrow)),
        vtags: [a.of(ProtoOpt::OrigVtag), a.of(ProtoOpt::ReplyVtag)],
        role: a.of(ProtoOpt::Role).and_then(narrow),
    })
}
