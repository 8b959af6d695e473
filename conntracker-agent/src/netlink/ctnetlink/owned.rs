//! The copy of an entry that outlives the receive buffer.

use super::decode::{Entry, SeqAdj, SynProxy, label_numbers};
use super::unknown::OwnedAttribute;
use crate::model::counters::Counters;
use crate::model::state::ProtoState;
use crate::model::{Mark, Status, Tuple, Zone};

/// A conntrack entry of its own; the fields mean what they do in [`Entry`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConntrackEntry {
    /// AF_INET (2) or AF_INET6 (10).
    pub family: u8,
    /// Original direction.
    pub orig: Tuple,
    /// Reply direction, address translation included.
    pub reply: Option<Tuple>,
    /// Original direction of the flow that expected this one.
    pub master: Option<Tuple>,
    /// Conntrack zone.
    pub zone: Zone,
    /// Zone of the original direction alone.
    pub zone_orig: Option<Zone>,
    /// Zone of the reply direction alone.
    pub zone_reply: Option<Zone>,
    /// IPS_ bits.
    pub status: Status,
    /// Seconds until the entry ends.
    pub timeout: Option<u32>,
    /// Connmark.
    pub mark: Option<Mark>,
    /// Security mark of old kernels.
    pub secmark: Option<u32>,
    /// Security context; bytes that are not UTF-8 are replaced.
    pub secctx: Option<String>,
    /// Identifier of the entry.
    pub id: Option<u32>,
    /// Reference count.
    pub use_count: Option<u32>,
    /// Accounting, original direction first.
    pub counters: [Option<Counters>; 2],
    /// When the entry was confirmed, nanoseconds since the epoch.
    pub start: Option<u64>,
    /// When it ended, nanoseconds since the epoch.
    pub stop: Option<u64>,
    /// When the event happened, nanoseconds since the epoch.
    pub timestamp_event: Option<u64>,
    /// Name of the helper; bytes that are not UTF-8 are replaced.
    pub helper: Option<String>,
    /// Data of a helper in user space.
    pub helper_info: Option<Vec<u8>>,
    /// Numbers of the labels that are set, lowest first.
    pub labels: Vec<u16>,
    /// State of the protocol.
    pub state: Option<ProtoState>,
    /// Sequence adjustment, original direction first.
    pub seqadj: [Option<SeqAdj>; 2],
    /// SYN proxy.
    pub synproxy: Option<SynProxy>,
    /// Attributes that have no field here.
    pub unknown: Vec<OwnedAttribute>,
}

impl From<&Entry<'_>> for ConntrackEntry {
    fn from(entry: &Entry<'_>) -> Self {
        // The pattern names every field, so that the compiler reports a new one that is missing here.
        let Entry {
            family,
            orig,
            reply,
            master,
            zone,
            zone_orig,
            zone_reply,
            status,
            timeout,
            mark,
            secmark,
            secctx,
            id,
            use_count,
            counters,
            start,
            stop,
            timestamp_event,
            helper,
            helper_info,
            labels,
            state,
            seqadj,
            synproxy,
            unknown,
            raw: _,
        } = *entry;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            family,
            orig,
            reply,
            master,
            zone,
            zone_orig,
            zone_reply,
            status,
            timeout,
            mark,
            secmark,
            secctx: secctx.map(text),
            id,
            use_count,
            counters,
            start,
            stop,
            timestamp_event,
            helper: helper.map(text),
            helper_info: helper_info.map(<[u8]>::to_vec),
            labels: label_numbers(labels.unwrap_or_default()).collect(),
            state,
            seqadj,
            synproxy,
            unknown: match unknown {
                0 => Vec::new(),
                _ => entry.unknown_attributes().map(Into::into).collect(),
            },
        }
    }
}
