//! Expectations: flows that a helper has seen announced in another flow (the data connection of FTP), or that user
//! space expects.

use conntracker_common::record::{FAMILY_V4, FAMILY_V6};

use super::tuple;
#[allow(clippy::wildcard_imports, reason = "the names of a C header, all prefixed")]
use super::uapi::*;
use super::unknown::{self, OwnedAttribute, UnknownAttributes};
use crate::model::{Tuple, Zone};
use crate::netlink::wire::{self, Attribute, DecodeError, NFGENMSG};

/// `exp->flags`: it stays after the expected flow has begun (NF_CT_EXPECT_PERMANENT).
pub const EXPECT_PERMANENT: u32 = 0x1;
/// `exp->flags`: flows are not compared with it (NF_CT_EXPECT_INACTIVE).
pub const EXPECT_INACTIVE: u32 = 0x2;
/// `exp->flags`: user space has made it (NF_CT_EXPECT_USERSPACE).
pub const EXPECT_USERSPACE: u32 = 0x4;

/// Translation of the expected flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectNat {
    /// Direction of the master flow that expects it: 0 original, 1 reply.
    pub dir: u32,
    /// Source address and port before translation, of the master's protocol. The destination has no meaning.
    pub tuple: Tuple,
}

/// An expectation, borrowing from the message it was decoded from. Numbers are in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Expectation<'a> {
    /// AF_INET (2) or AF_INET6 (10), the family of all addresses.
    pub family: u8,
    /// The first packet that is expected.
    pub tuple: Tuple,
    /// Mask of the addresses and ports of `tuple`. All bits of the destination count.
    pub mask: Option<Tuple>,
    /// Original direction of the flow that expects it.
    pub master: Option<Tuple>,
    /// Translation.
    pub nat: Option<ExpectNat>,
    /// Seconds until it ends.
    pub timeout: Option<u32>,
    /// Identifier, the same in dumps and events.
    pub id: Option<u32>,
    /// Zone. Kernels up to 6.18 do not send it; it is the zone of the master.
    pub zone: Option<Zone>,
    /// `EXPECT_` bits.
    pub flags: Option<u32>,
    /// Class of the helper's policy, for helpers that expect several kinds of flows.
    pub class: Option<u32>,
    /// Name of the master's helper, without the final NUL.
    pub helper: Option<&'a [u8]>,
    /// Name of the function that the kernel calls when the flow begins (`nat-follow-master`), without the final NUL.
    pub function: Option<&'a [u8]>,
    /// Number of attributes that have no field here; [`Self::unknown_attributes`] has them.
    pub unknown: u32,
    /// The attributes as they came.
    pub raw: &'a [u8],
}

impl<'a> Expectation<'a> {
    /// Decodes the payload of an `IPCTNL_MSG_EXP_NEW` or `IPCTNL_MSG_EXP_DELETE` message.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let (family, attributes) = wire::netfilter(payload)?;
        if family != FAMILY_V4 && family != FAMILY_V6 {
            return Err(DecodeError::UnknownFamily(family));
        }
        let (mut expected, mut mask, mut master, mut nat) = (None, None, None, None);
        let (mut timeout, mut id, mut zone) = (None, None, None);
        let (mut flags, mut class, mut helper, mut function) = (None, None, None, None);
        let mut unknown = 0;
        for attribute in attributes {
            let a = attribute?;
            let unknown = &mut unknown;
            match a.kind {
                CTA_EXPECT_TUPLE => expected = Some(tuple::decode(family, &a, unknown)?.tuple),
                CTA_EXPECT_MASK => mask = Some(tuple::decode(family, &a, unknown)?.tuple),
                CTA_EXPECT_MASTER => master = Some(tuple::decode(family, &a, unknown)?.tuple),
                CTA_EXPECT_NAT => nat = Some(decode_nat(family, &a, unknown)?),
                CTA_EXPECT_TIMEOUT => timeout = Some(a.be32("CTA_EXPECT_TIMEOUT")?),
                CTA_EXPECT_ID => id = Some(a.be32("CTA_EXPECT_ID")?),
                CTA_EXPECT_ZONE => zone = Some(Zone(a.be16("CTA_EXPECT_ZONE")?)),
                CTA_EXPECT_FLAGS => flags = Some(a.be32("CTA_EXPECT_FLAGS")?),
                CTA_EXPECT_CLASS => class = Some(a.be32("CTA_EXPECT_CLASS")?),
                CTA_EXPECT_HELP_NAME => helper = Some(a.text()),
                CTA_EXPECT_FN => function = Some(a.text()),
                _ => *unknown += 1,
            }
        }
        Ok(Self {
            family,
            tuple: expected.ok_or(DecodeError::Missing("CTA_EXPECT_TUPLE"))?,
            mask,
            master,
            nat,
            timeout,
            id,
            zone,
            flags,
            class,
            helper,
            function,
            unknown,
            raw: payload.get(NFGENMSG..).unwrap_or_default(),
        })
    }

    /// The attributes that have no field here, nested ones included, searched in [`Self::raw`].
    #[must_use]
    pub fn unknown_attributes(&self) -> UnknownAttributes<'a> {
        UnknownAttributes::new(self.raw, unknown::EXPECTATION)
    }
}

fn decode_nat(
    family: u8,
    nest: &Attribute<'_>,
    unknown: &mut u32,
) -> Result<ExpectNat, DecodeError> {
    let (mut dir, mut of) = (None, None);
    for a in nest.nested() {
        let a = a?;
        match a.kind {
            CTA_EXPECT_NAT_DIR => dir = Some(a.be32("CTA_EXPECT_NAT_DIR")?),
            CTA_EXPECT_NAT_TUPLE => of = Some(tuple::decode(family, &a, unknown)?.tuple),
            _ => *unknown += 1,
        }
    }
    Ok(ExpectNat {
        dir: dir.ok_or(DecodeError::Missing("CTA_EXPECT_NAT_DIR"))?,
        tuple: of.ok_or(DecodeError::Missing("CTA_EXPECT_NAT_TUPLE"))?,
    })
}

/// An expectation of its own; the fields mean what they do in [`Expectation`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConntrackExpectation {
    /// AF_INET (2) or AF_INET6 (10).
    pub family: u8,
    /// The first packet that is expected.
    pub tuple: Tuple,
    /// Bits of it that count.
    pub mask: Option<Tuple>,
    /// Original direction of the flow that expects it.
    pub master: Option<Tuple>,
    /// Translation.
    pub nat: Option<ExpectNat>,
    /// Seconds until it ends.
    pub timeout: Option<u32>,
    /// Identifier.
    pub id: Option<u32>,
    /// Zone.
    pub zone: Option<Zone>,
    /// `EXPECT_` bits.
    pub flags: Option<u32>,
    /// Class of the helper's policy.
    pub class: Option<u32>,
    /// Name of the helper; bytes that are not UTF-8 are replaced.
    pub helper: Option<String>,
    /// Name of the function; bytes that are not UTF-8 are replaced.
    pub function: Option<String>,
    /// Attributes that have no field here.
    pub unknown: Vec<OwnedAttribute>,
}

impl From<&Expectation<'_>> for ConntrackExpectation {
    fn from(expectation: &Expectation<'_>) -> Self {
        let Expectation {
            family,
            tuple,
            mask,
            master,
            nat,
            timeout,
            id,
            zone,
            flags,
            class,
            helper,
            function,
            unknown: _,
            raw: _,
        } = *expectation;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            family,
            tuple,
            mask,
            master,
            nat,
            timeout,
            id,
            zone,
            flags,
            class,
            helper: helper.map(text),
            function: function.map(text),
            unknown: expectation.unknown_attributes().map(Into::into).collect(),
        }
    }
}

/// Names an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ExpectKey {
    /// The packet that is expected.
    pub tuple: Tuple,
    /// Zone of the flow that expects it.
    pub zone: Zone,
    /// Its identifier.
    pub id: Option<u32>,
}

impl From<&Expectation<'_>> for ExpectKey {
    fn from(of: &Expectation<'_>) -> Self {
        Self { tuple: of.tuple, zone: of.zone.unwrap_or_default(), id: of.id }
    }
}

impl From<&ConntrackExpectation> for ExpectKey {
    fn from(of: &ConntrackExpectation) -> Self {
        Self { tuple: of.tuple, zone: of.zone.unwrap_or_default(), id: of.id }
    }
}

impl ExpectKey {
    /// The expectation of this packet by a flow in this zone.
    #[must_use]
    pub const fn new(tuple: Tuple, zone: Zone) -> Self {
        Self { tuple, zone, id: None }
    }

    /// With this identifier only.
    #[must_use]
    pub const fn with_id(self, id: Option<u32>) -> Self {
        Self { id, ..self }
    }
}

/// Which expectations to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExpectRequest {
    /// AF_INET (2) or AF_INET6 (10); `None` means any.
    pub family: Option<u8>,
    /// Those of the flow with this original direction in this zone; ENOENT if there is no such flow.
    pub master: Option<(Tuple, Zone)>,
}

impl ExpectRequest {
    /// Of AF_INET (2) or AF_INET6 (10) alone.
    #[must_use]
    pub fn family(self, family: impl Into<Option<u8>>) -> Self {
        Self { family: family.into(), ..self }
    }

    /// Those of the flow with this original direction in this zone.
    #[must_use]
    pub fn master(self, master: impl Into<Option<(Tuple, Zone)>>) -> Self {
        Self { master: master.into(), ..self }
    }
}

/// An expectation to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewExpectation {
    /// Original direction of the flow that is to expect it. That one must have a helper.
    pub master: Tuple,
    /// Zone of the master.
    pub zone: Zone,
    /// The packet that is expected.
    pub tuple: Tuple,
    /// Mask of its source address and port. All bits of the destination count.
    pub mask: Tuple,
    /// Seconds until it ends. Without it, and where the helper has a policy, the kernel takes the timeout of the
    /// policy; [`super::expect_requests::create`] without `exclusive` changes it later.
    pub timeout: Option<u32>,
    /// `EXPECT_` bits.
    pub flags: u32,
    /// Class of the helper's policy; EINVAL if there is no such class.
    pub class: Option<u32>,
    /// Helper of the expected flow; EOPNOTSUPP if there is none of that name.
    pub helper: Option<String>,
    /// Function that the kernel calls when the flow begins; EINVAL if it has none of that name.
    pub function: Option<String>,
    /// Translation.
    pub nat: Option<ExpectNat>,
}

impl NewExpectation {
    /// The flow `master` in zone 0 is to expect a packet, of which the bits of `mask` count.
    #[must_use]
    pub fn new(master: Tuple, tuple: Tuple, mask: Tuple) -> Self {
        Self {
            master,
            zone: Zone::DEFAULT,
            tuple,
            mask,
            timeout: None,
            flags: 0,
            class: None,
            helper: None,
            function: None,
            nat: None,
        }
    }

    /// Of a master in this zone.
    #[must_use]
    pub fn zone(self, zone: Zone) -> Self {
        Self { zone, ..self }
    }

    /// Ends after so many seconds.
    #[must_use]
    pub fn timeout(self, timeout: impl Into<Option<u32>>) -> Self {
        Self { timeout: timeout.into(), ..self }
    }

    /// With these `EXPECT_` bits.
    #[must_use]
    pub fn flags(self, flags: u32) -> Self {
        Self { flags, ..self }
    }

    /// Of this class of the helper's policy.
    #[must_use]
    pub fn class(self, class: impl Into<Option<u32>>) -> Self {
        Self { class: class.into(), ..self }
    }

    /// With this helper of the expected flow.
    #[must_use]
    pub fn helper(self, helper: impl Into<Option<String>>) -> Self {
        Self { helper: helper.into(), ..self }
    }

    /// With this function to be called when the flow has come.
    #[must_use]
    pub fn function(self, function: impl Into<Option<String>>) -> Self {
        Self { function: function.into(), ..self }
    }

    /// With this translation.
    #[must_use]
    pub fn nat(self, nat: impl Into<Option<ExpectNat>>) -> Self {
        Self { nat: nat.into(), ..self }
    }
}
