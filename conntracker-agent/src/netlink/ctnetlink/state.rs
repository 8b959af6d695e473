//! `CTA_PROTOINFO` to the state that the protocol's tracker has.

#[allow(clippy::wildcard_imports, reason = "the names of a C header, all prefixed")]
use super::uapi::*;
use crate::model::state::ProtoState;
use crate::netlink::wire::{Attribute, DecodeError};

/// Reads `CTA_PROTOINFO`; `None` when it is empty or of a protocol unknown here.
pub(super) fn decode(
    protoinfo: &Attribute<'_>,
    unknown: &mut u32,
) -> Result<Option<ProtoState>, DecodeError> {
    let mut state = None;
    for attribute in protoinfo.nested() {
        let attribute = attribute?;
        match attribute.kind {
            CTA_PROTOINFO_TCP => state = Some(tcp(&attribute, unknown)?),
            CTA_PROTOINFO_SCTP => state = Some(sctp(&attribute, unknown)?),
            CTA_PROTOINFO_DCCP => state = Some(dccp(&attribute, unknown)?),
            _ => *unknown += 1,
        }
    }
    Ok(state)
}

fn tcp(info: &Attribute<'_>, unknown: &mut u32) -> Result<ProtoState, DecodeError> {
    let (mut state, mut wscale, mut flags) = (None, [None; 2], [None; 2]);
    for a in info.nested() {
        let a = a?;
        // The mask next to the flags is for requests; in answers it is 0.
        let bits = |name| a.array(name).map(|[flags, _mask]: [u8; 2]| Some(flags));
        match a.kind {
            CTA_PROTOINFO_TCP_STATE => state = Some(a.u8("CTA_PROTOINFO_TCP_STATE")?),
            CTA_PROTOINFO_TCP_WSCALE_ORIGINAL => {
                wscale[0] = Some(a.u8("CTA_PROTOINFO_TCP_WSCALE_ORIGINAL")?);
            }
            CTA_PROTOINFO_TCP_WSCALE_REPLY => {
                wscale[1] = Some(a.u8("CTA_PROTOINFO_TCP_WSCALE_REPLY")?);
            }
            CTA_PROTOINFO_TCP_FLAGS_ORIGINAL => {
                flags[0] = bits("CTA_PROTOINFO_TCP_FLAGS_ORIGINAL")?;
            }
            CTA_PROTOINFO_TCP_FLAGS_REPLY => flags[1] = bits("CTA_PROTOINFO_TCP_FLAGS_REPLY")?,
            _ => *unknown += 1,
        }
    }
    let state = state.ok_or(DecodeError::Missing("CTA_PROTOINFO_TCP_STATE"))?;
    Ok(ProtoState::Tcp { state, wscale, flags })
}

fn sctp(info: &Attribute<'_>, unknown: &mut u32) -> Result<ProtoState, DecodeError> {
    let (mut state, mut vtag) = (None, [None; 2]);
    for a in info.nested() {
        let a = a?;
        match a.kind {
            CTA_PROTOINFO_SCTP_STATE => state = Some(a.u8("CTA_PROTOINFO_SCTP_STATE")?),
            CTA_PROTOINFO_SCTP_VTAG_ORIGINAL => {
                vtag[0] = Some(a.be32("CTA_PROTOINFO_SCTP_VTAG_ORIGINAL")?);
            }
            CTA_PROTOINFO_SCTP_VTAG_REPLY => {
                vtag[1] = Some(a.be32("CTA_PROTOINFO_SCTP_VTAG_REPLY")?);
            }
            _ => *unknown += 1,
        }
    }
    let state = state.ok_or(DecodeError::Missing("CTA_PROTOINFO_SCTP_STATE"))?;
    Ok(ProtoState::Sctp { state, vtag })
}

fn dccp(info: &Attribute<'_>, unknown: &mut u32) -> Result<ProtoState, DecodeError> {
    let (mut state, mut role, mut handshake_seq) = (None, None, None);
    for a in info.nested() {
        let a = a?;
        match a.kind {
            CTA_PROTOINFO_DCCP_STATE => state = Some(a.u8("CTA_PROTOINFO_DCCP_STATE")?),
            CTA_PROTOINFO_DCCP_ROLE => role = Some(a.u8("CTA_PROTOINFO_DCCP_ROLE")?),
            CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ => {
                handshake_seq = Some(a.be64("CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ")?);
            }
            CTA_PROTOINFO_DCCP_PAD => {}
            _ => *unknown += 1,
        }
    }
    let state = state.ok_or(DecodeError::Missing("CTA_PROTOINFO_DCCP_STATE"))?;
    Ok(ProtoState::Dccp { state, role, handshake_seq })
}
