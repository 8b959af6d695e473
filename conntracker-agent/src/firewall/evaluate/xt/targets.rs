//! Targets by name and revision: decoded once, when the ruleset is compiled.

use super::{
    TargetResult,
    change::{self, CtSettings, MarkChange, MarkMove, TosChange, TtlChange},
    nat::NatRange,
};
use crate::firewall::{
    evaluate::{
        context::Context,
        packet::{Packet, Side},
        translation::TranslationKind,
        unknown::{Attribute, Unknown},
        word::Word,
    },
    fields::Fields,
};

/// A target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// It changes nothing that rules read, and the packet goes on: LOG and its like.
    Continue,
    /// QUEUE, NFQUEUE.
    Queue,
    /// REJECT, with the number of the answer (`enum ipt_reject_with`, `enum ip6t_reject_with`).
    Reject(u32),
    /// SNAT, DNAT, MASQUERADE and REDIRECT.
    Nat(TranslationKind, NatRange),
    /// NETMAP.
    Netmap(NatRange),
    /// MARK.
    Mark(MarkChange),
    /// CONNMARK `--set-xmark`, with a shift of the result (revision 2).
    SetConnmark(MarkChange, i16),
    /// CONNMARK `--save-mark`: the packet's mark to the connection.
    SaveMark(MarkMove),
    /// CONNMARK `--restore-mark`: the connection's to the packet.
    RestoreMark(MarkMove),
    /// CT, NOTRACK.
    Ct(CtSettings),
    /// TTL, HL.
    Ttl(TtlChange),
    /// DSCP, TOS, ECN.
    Tos(TosChange),
    /// CLASSIFY.
    Classify(u32),
    /// TCPMSS, TCPOPTSTRIP: TCP's options change.
    TcpOptions,
    /// The mark becomes one that is not computed: HMARK, SET with `--map-mark`.
    AnyMark(Unknown),
    /// SNPT, DNPT: an address changes without conntrack.
    Prefix(Side),
    /// It depends on what is not known, or it is not evaluated.
    Unknown(Unknown),
}

/// IPSET_FLAG_MAP_SKBMARK and so on (include/uapi/linux/netfilter/ipset/ip_set.h), in the flags of SET revision 3.
const SET_MAPS: u32 = 0b111 << 8;

/// Offset of the flags in `struct xt_set_info_target_v3`.
const SET_FLAGS: usize = 12;

impl Target {
    /// Decodes the structure of a target. What cannot be decoded is [`Target::Unknown`].
    #[must_use]
    pub fn decode(name: &str, revision: u32, info: &[u8]) -> Self {
        let info = Fields(info);
        let nat = |kind| NatRange::decode(info).map(|range| Self::Nat(kind, range));
        let found = match (name, revision) {
            // An older SET changes the set alone.
            (
                "AUDIT" | "CHECKSUM" | "CONNSECMARK" | "IDLETIMER" | "LED" | "LOG" | "NFLOG"
                | "RATEEST" | "SECMARK" | "TEE" | "TRACE" | "ULOG",
                _,
            )
            | ("SET", 0..=2) => Some(Self::Continue),
            ("QUEUE" | "NFQUEUE", _) => Some(Self::Queue),
            ("REJECT", 0) => info.u32(0).map(Self::Reject),
            ("SNAT", _) => nat(TranslationKind::Source),
            ("DNAT", _) => nat(TranslationKind::Destination),
            ("MASQUERADE", 0) => nat(TranslationKind::Masquerade),
            ("REDIRECT", 0) => nat(TranslationKind::Redirect),
            ("NETMAP", 0) => NatRange::decode(info).map(Self::Netmap),
            ("MARK", 2) => MarkChange::decode(info, 0, 4).map(Self::Mark),
            ("CONNMARK", 1 | 2) => connmark(revision, info),
            ("NOTRACK", 0) => Some(Self::Ct(CtSettings::NOTRACK)),
            ("CT", 0..=2) => CtSettings::decode(info).map(Self::Ct),
            ("TTL" | "HL", 0) => TtlChange::decode(info).map(Self::Ttl),
            ("DSCP", 0) => TosChange::decode_dscp(info).map(Self::Tos),
            ("TOS", 1) => TosChange::decode_tos(info).map(Self::Tos),
            ("ECN", 0) => TosChange::decode_ecn(info).map(Self::Tos),
            ("CLASSIFY", 0) => info.u32(0).map(Self::Classify),
            ("TCPMSS" | "TCPOPTSTRIP", 0) => Some(Self::TcpOptions),
            ("HMARK", 0) => Some(Self::AnyMark(Unknown::Extension)),
            ("SET", 3) => info.u32(SET_FLAGS).map(|flags| {
                if flags & SET_MAPS == 0 {
                    Self::Continue
                } else {
                    Self::AnyMark(Unknown::DynamicSet)
                }
            }),
            ("SNPT", 0) => Some(Self::Prefix(Side::Source)),
            ("DNPT", 0) => Some(Self::Prefix(Side::Destination)),
            ("SYNPROXY", 0) => Some(Self::Unknown(Unknown::Synproxy)),
            ("TPROXY", _) => Some(Self::Unknown(Attribute::Socket.into())),
            _ => None,
        };
        found.unwrap_or(Self::Unknown(Unknown::Extension))
    }

    /// What it does with a packet that the rule matches. What it changes of the packet is changed.
    #[must_use]
    pub fn apply(&self, packet: &mut Packet, context: &Context<'_>) -> TargetResult {
        match self {
            Self::Continue => {}
            Self::Queue => return TargetResult::Queue,
            Self::Reject(_) => return TargetResult::Reject,
            Self::Nat(kind, range) => {
                return TargetResult::Translate(range.translation(*kind, packet));
            }
            Self::Netmap(range) => {
                return TargetResult::Translate(range.network(packet, context.hook));
            }
            Self::Unknown(unknown) => return TargetResult::Unknown((*unknown).into()),
            Self::Mark(change) => packet.mark = change.of(packet.mark),
            Self::SetConnmark(change, shift) => change.apply_to_connection(packet, *shift),
            Self::SaveMark(of) => of.save(packet),
            Self::RestoreMark(of) => of.restore(packet),
            Self::Ct(settings) => settings.apply(packet),
            Self::Ttl(change) => change.apply(packet),
            Self::Tos(change) => change.apply(packet),
            Self::Classify(priority) => {
                packet.priority = Word::new(*priority, Attribute::Priority.into());
            }
            Self::TcpOptions => change::forget_tcp_options(packet),
            Self::AnyMark(why) => packet.mark = Word::unknown(*why),
            Self::Prefix(side) => packet.forget_address(*side),
        }
        TargetResult::Continue
    }
}

/// `struct xt_connmark_tginfo1` and `2`.
fn connmark(revision: u32, info: Fields<'_>) -> Option<Target> {
    let (mode, shift) = if revision == 1 {
        (info.u8(12)?, 0)
    } else {
        let (right, bits, mode) = (info.u8(12)? != 0, i16::from(info.u8(13)?), info.u8(14)?);
        (mode, if right { -bits } else { bits })
    };
    let marks = MarkMove { ctmask: info.u32(4)?, nfmask: info.u32(8)?, shift };
    Some(match mode {
        0 => Target::SetConnmark(MarkChange::decode(info, 0, 4)?, shift),
        1 => Target::SaveMark(marks),
        2 => Target::RestoreMark(marks),
        _ => return None,
    })
}
