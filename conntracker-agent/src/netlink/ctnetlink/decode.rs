//! A conntrack entry as ctnetlink describes it, decoded without copying or allocating.

use conntracker_common::record::{FAMILY_V4, FAMILY_V6};

use super::state;
use super::tuple;
#[allow(clippy::wildcard_imports, reason = "the names of a C header, all prefixed")]
use super::uapi::*;
use super::unknown::{self, UnknownAttributes};
use crate::model::counters::Counters;
use crate::model::state::ProtoState;
use crate::model::{Mark, Status, Tuple, Zone};
use crate::netlink::wire::{self, Attribute, Attributes, DecodeError, NFGENMSG};

/// Sequence adjustment of one direction, for a helper that changed the length of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeqAdj {
    /// Sequence number of the last change.
    pub correction_pos: u32,
    /// Shift of sequence numbers before it.
    pub offset_before: i32,
    /// Shift of sequence numbers after it.
    pub offset_after: i32,
}

/// What the SYN proxy stores of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynProxy {
    /// Initial sequence number of the client.
    pub isn: u32,
    /// Initial timestamp.
    pub its: u32,
    /// Shift between the timestamps of the proxy and the server.
    pub tsoff: u32,
}

/// A conntrack entry, borrowing from the message it was decoded from. Numbers are in host byte
/// order. Where a pair of values is an array, the original direction comes first.
///
/// What is `None` was not in the message: accounting and timestamps only exist where the kernel
/// was told to keep them, and events leave out what did not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry<'a> {
    /// AF_INET (2) or AF_INET6 (10), the family of all addresses.
    pub family: u8,
    /// Original direction.
    pub orig: Tuple,
    /// Reply direction, address translation included.
    pub reply: Option<Tuple>,
    /// Original direction of the flow that expected this one (the control connection of FTP data).
    pub master: Option<Tuple>,
    /// Conntrack zone of both directions, or of the one direction that has one.
    pub zone: Zone,
    /// Zone of the original direction alone.
    pub zone_orig: Option<Zone>,
    /// Zone of the reply direction alone.
    pub zone_reply: Option<Zone>,
    /// IPS_ bits.
    pub status: Status,
    /// Seconds until the entry ends. Absent for flows in a flowtable.
    pub timeout: Option<u32>,
    /// Connmark. Events leave out 0.
    pub mark: Option<Mark>,
    /// Security mark, sent by kernels before 2.6.37 only.
    pub secmark: Option<u32>,
    /// Security context, without the final NUL.
    pub secctx: Option<&'a [u8]>,
    /// Identifier of the entry, the same in dumps and events. A hash: two entries may, rarely,
    /// have the same one.
    pub id: Option<u32>,
    /// Reference count. Dumps only.
    pub use_count: Option<u32>,
    /// Accounting.
    pub counters: [Option<Counters>; 2],
    /// When the entry was confirmed, nanoseconds since the epoch.
    pub start: Option<u64>,
    /// When it ended, nanoseconds since the epoch.
    pub stop: Option<u64>,
    /// When the event happened, nanoseconds since the epoch (Linux 6.14+, where timestamps are on).
    pub timestamp_event: Option<u64>,
    /// Name of the helper, without the final NUL.
    pub helper: Option<&'a [u8]>,
    /// Data of a helper in user space (nfct(8)), as that helper wrote it.
    pub helper_info: Option<&'a [u8]>,
    /// Bitmap of labels as it stands in kernel memory: on little-endian machines label n is bit
    /// n % 8 of byte n / 8. See [`Self::label_numbers`].
    pub labels: Option<&'a [u8]>,
    /// State of the protocol.
    pub state: Option<ProtoState>,
    /// Sequence adjustment.
    pub seqadj: [Option<SeqAdj>; 2],
    /// SYN proxy.
    pub synproxy: Option<SynProxy>,
    /// Number of attributes that have no field here; [`Self::unknown_attributes`] has them.
    pub unknown: u32,
    /// The attributes as they came, those above and those without a field.
    pub raw: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Decodes the payload of an `IPCTNL_MSG_CT_NEW` or `IPCTNL_MSG_CT_DELETE` message: nfgenmsg and attributes. If
    /// an attribute comes twice, the last one counts.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let (family, _) = wire::netfilter(payload)?;
        Self::of_attributes(family, payload.get(NFGENMSG..).unwrap_or_default())
    }

    /// Decodes attributes ([`Self::raw`]) of an entry of a family, AF_INET or AF_INET6.
    pub fn of_attributes(family: u8, raw: &'a [u8]) -> Result<Self, DecodeError> {
        if family != FAMILY_V4 && family != FAMILY_V6 {
            return Err(DecodeError::UnknownFamily(family));
        }
        let (mut orig, mut reply, mut master, mut zone) = (None, None, None, None);
        let (mut status, mut timeout, mut mark, mut secmark) = (0, None, None, None);
        let (mut secctx, mut id, mut use_count, mut counters) = (None, None, None, [None; 2]);
        let (mut times, mut timestamp_event, mut helper) = ([None; 2], None, [None; 2]);
        let (mut labels, mut state, mut seqadj, mut synproxy) = (None, None, [None; 2], None);
        let mut unknown = 0;
        for attribute in Attributes::new(raw) {
            let a = attribute?;
            let unknown = &mut unknown;
            match a.kind {
                CTA_TUPLE_ORIG => orig = Some(tuple::decode(family, &a, unknown)?),
                CTA_TUPLE_REPLY => reply = Some(tuple::decode(family, &a, unknown)?),
                CTA_TUPLE_MASTER => master = Some(tuple::decode(family, &a, unknown)?.tuple),
                // Where 64-bit attributes must be aligned, the kernel may put an empty CTA_TIMESTAMP_PAD before
                // CTA_TIMESTAMP_EVENT. It has the number of CTA_STATUS.
                CTA_STATUS if a.payload.is_empty() => {}
                CTA_STATUS => status = a.be32("CTA_STATUS")?,
                CTA_PROTOINFO => state = state::decode(&a, unknown)?,
                CTA_HELP => helper = decode_helper(&a, unknown)?,
                CTA_TIMEOUT => timeout = Some(a.be32("CTA_TIMEOUT")?),
                CTA_MARK => mark = Some(Mark(a.be32("CTA_MARK")?)),
                CTA_COUNTERS_ORIG => counters[0] = Some(decode_counters(&a, unknown)?),
                CTA_COUNTERS_REPLY => counters[1] = Some(decode_counters(&a, unknown)?),
                CTA_USE => use_count = Some(a.be32("CTA_USE")?),
                CTA_ID => id = Some(a.be32("CTA_ID")?),
                CTA_SEQ_ADJ_ORIG => seqadj[0] = Some(decode_seqadj(&a, unknown)?),
                CTA_SEQ_ADJ_REPLY => seqadj[1] = Some(decode_seqadj(&a, unknown)?),
                CTA_SECMARK => secmark = Some(a.be32("CTA_SECMARK")?),
                CTA_ZONE => zone = Some(Zone(a.be16("CTA_ZONE")?)),
                CTA_SECCTX => secctx = string(&a, CTA_SECCTX_NAME, unknown)?,
                CTA_TIMESTAMP => times = decode_timestamp(&a, unknown)?,
                CTA_LABELS => labels = Some(a.payload),
                CTA_SYNPROXY => synproxy = Some(decode_synproxy(&a, unknown)?),
                CTA_TIMESTAMP_EVENT => timestamp_event = Some(a.be64("CTA_TIMESTAMP_EVENT")?),
                _ => *unknown += 1,
            }
        }
        let orig = orig.ok_or(DecodeError::Missing("CTA_TUPLE_ORIG"))?;
        let zone_reply = reply.and_then(|r| r.zone);
        let [start, stop] = times;
        let [helper, helper_info] = helper;
        Ok(Self {
            family,
            orig: orig.tuple,
            reply: reply.map(|r| r.tuple),
            master,
            zone: zone.or(orig.zone).or(zone_reply).unwrap_or_default(),
            zone_orig: orig.zone,
            zone_reply,
            status: Status(status),
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
            raw,
        })
    }

    /// The attributes that have no field here, nested ones included, searched in [`Self::raw`].
    #[must_use]
    pub fn unknown_attributes(&self) -> UnknownAttributes<'a> {
        UnknownAttributes::new(self.raw, unknown::ENTRY)
    }

    /// Numbers of the labels that are set, lowest first.
    pub fn label_numbers(&self) -> impl Iterator<Item = u16> + use<'a> {
        label_numbers(self.labels.unwrap_or_default())
    }
}

/// Numbers of the bits that are set in a bitmap of machine words, lowest first.
pub(super) fn label_numbers(bitmap: &[u8]) -> impl Iterator<Item = u16> {
    // The bytes of a word are in reverse order on big-endian machines.
    let flip = if cfg!(target_endian = "big") { size_of::<usize>() - 1 } else { 0 };
    (0..bitmap.len().min(usize::from(u16::MAX) / 8) * 8)
        .filter(move |n| bitmap.get((n / 8) ^ flip).is_some_and(|byte| byte >> (n % 8) & 1 == 1))
        .map(|n| n as u16)
}

/// The one string in a nesting attribute.
fn string<'a>(
    nest: &Attribute<'a>,
    kind: u16,
    unknown: &mut u32,
) -> Result<Option<&'a [u8]>, DecodeError> {
    let mut text = None;
    for attribute in nest.nested() {
        match attribute? {
            a if a.kind == kind => text = Some(a.text()),
            _ => *unknown += 1,
        }
    }
    Ok(text)
}

/// Name and data.
fn decode_helper<'a>(
    nest: &Attribute<'a>,
    unknown: &mut u32,
) -> Result<[Option<&'a [u8]>; 2], DecodeError> {
    let mut helper = [None; 2];
    for a in nest.nested() {
        let a = a?;
        match a.kind {
            CTA_HELP_NAME => helper[0] = Some(a.text()),
            CTA_HELP_INFO => helper[1] = Some(a.payload),
            _ => *unknown += 1,
        }
    }
    Ok(helper)
}

fn decode_counters(nest: &Attribute<'_>, unknown: &mut u32) -> Result<Counters, DecodeError> {
    let (mut packets, mut bytes) = (None, None);
    for a in nest.nested() {
        let a = a?;
        match a.kind {
            CTA_COUNTERS_PACKETS => packets = Some(a.be64("CTA_COUNTERS_PACKETS")?),
            CTA_COUNTERS_BYTES => bytes = Some(a.be64("CTA_COUNTERS_BYTES")?),
            CTA_COUNTERS32_PACKETS => packets = Some(a.be32("CTA_COUNTERS32_PACKETS")?.into()),
            CTA_COUNTERS32_BYTES => bytes = Some(a.be32("CTA_COUNTERS32_BYTES")?.into()),
            CTA_COUNTERS_PAD => {}
            _ => *unknown += 1,
        }
    }
    Ok(Counters {
        packets: packets.ok_or(DecodeError::Missing("CTA_COUNTERS_PACKETS"))?,
        bytes: bytes.ok_or(DecodeError::Missing("CTA_COUNTERS_BYTES"))?,
    })
}

/// Start and stop.
fn decode_timestamp(
    nest: &Attribute<'_>,
    unknown: &mut u32,
) -> Result<[Option<u64>; 2], DecodeError> {
    let mut times = [None; 2];
    for a in nest.nested() {
        let a = a?;
        match a.kind {
            CTA_TIMESTAMP_START => times[0] = Some(a.be64("CTA_TIMESTAMP_START")?),
            CTA_TIMESTAMP_STOP => times[1] = Some(a.be64("CTA_TIMESTAMP_STOP")?),
            CTA_TIMESTAMP_PAD => {}
            _ => *unknown += 1,
        }
    }
    Ok(times)
}

fn decode_seqadj(nest: &Attribute<'_>, unknown: &mut u32) -> Result<SeqAdj, DecodeError> {
    let mut adjustment = SeqAdj::default();
    for a in nest.nested() {
        let a = a?;
        let signed = |name| a.array(name).map(i32::from_be_bytes);
        match a.kind {
            CTA_SEQADJ_CORRECTION_POS => {
                adjustment.correction_pos = a.be32("CTA_SEQADJ_CORRECTION_POS")?;
            }
            CTA_SEQADJ_OFFSET_BEFORE => {
                adjustment.offset_before = signed("CTA_SEQADJ_OFFSET_BEFORE")?;
            }
            CTA_SEQADJ_OFFSET_AFTER => {
                adjustment.offset_after = signed("CTA_SEQADJ_OFFSET_AFTER")?;
            }
            _ => *unknown += 1,
        }
    }
    Ok(adjustment)
}

fn decode_synproxy(nest: &Attribute<'_>, unknown: &mut u32) -> Result<SynProxy, DecodeError> {
    let mut proxy = SynProxy::default();
    for a in nest.nested() {
        let a = a?;
        match a.kind {
            CTA_SYNPROXY_ISN => proxy.isn = a.be32("CTA_SYNPROXY_ISN")?,
            CTA_SYNPROXY_ITS => proxy.its = a.be32("CTA_SYNPROXY_ITS")?,
            CTA_SYNPROXY_TSOFF => proxy.tsoff = a.be32("CTA_SYNPROXY_TSOFF")?,
            _ => *unknown += 1,
        }
    }
    Ok(proxy)
}
