//! Dropped and lost packets of a flow, as JSON.

use serde::Serialize;

use crate::{
    model::{Cause, Clash, DropPoint, DroppedAt, Drops},
    report::{
        json::{path::StepObject, tuple::TupleObject},
        names::{self, Name},
    },
};

/// The interfaces that a packet came in and went out by.
#[derive(Serialize)]
pub(in crate::report::json) struct InterfacesObject<'a> {
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    pub(in crate::report::json) iif: Option<Name<'a>>,
    #[serde(rename = "out", skip_serializing_if = "Option::is_none")]
    pub(in crate::report::json) oif: Option<Name<'a>>,
}

#[derive(Serialize)]
pub(super) struct DroppedObject<'a> {
    packets: u64,
    places: Vec<DropPointObject<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    elsewhere: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    clash: Option<ClashObject>,
}

/// The tuple that was refused to the entry of dropped packets, and the entry that has it.
#[derive(Serialize)]
struct ClashObject {
    reply: TupleObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<TupleObject>,
}

/// Whether a count says nothing.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[derive(Serialize)]
struct DropPointObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<Name<'static>>,
    #[serde(flatten)]
    way: InterfacesObject<'a>,
    packets: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<StepObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conntrack: Option<&'static str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    maybe: &'a [String],
}

/// Packets that another part of the kernel than netfilter dropped.
#[derive(Serialize)]
pub(super) struct LostObject<'a> {
    packets: u64,
    places: Vec<LossPointObject<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    elsewhere: u64,
}

#[derive(Serialize)]
struct LossPointObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Name<'static>>,
    #[serde(flatten)]
    way: InterfacesObject<'a>,
    packets: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meaning: Option<&'static str>,
}

impl<'a> LostObject<'a> {
    pub(super) fn new(drops: &Drops, way: impl Fn(u32, u32) -> InterfacesObject<'a>) -> Self {
        let place = |at: &DroppedAt| {
            let DropPoint { cause, hook, iif, oif } = at.place;
            let (reason, function) = match cause {
                Cause::Function(name) => (None, Some(name)),
                cause => (cause.elsewhere(), None),
            };
            LossPointObject {
                after: hook.map(names::hook),
                way: way(iif, oif),
                packets: at.packets,
                reason,
                function,
                meaning: cause.elsewhere().and_then(names::meaning),
            }
        };
        Self {
            packets: drops.lost_packets(),
            places: drops.lost().map(place).collect(),
            elsewhere: drops.lost_elsewhere(),
        }
    }
}

impl<'a> DroppedObject<'a> {
    pub(super) fn new(
        drops: &'a Drops,
        way: impl Fn(u32, u32) -> InterfacesObject<'a>,
        suspects: impl Fn(&DroppedAt) -> &'a [String],
    ) -> Self {
        let place = |at: &'a DroppedAt| {
            let DroppedAt { place: DropPoint { cause, hook, iif, oif }, by, packets } = at;
            let maybe = suspects(at);
            let conntrack = match cause {
                Cause::Conntrack(cause) => Some(cause.name()),
                _ => None,
            };
            DropPointObject {
                hook: hook.filter(|_| maybe.is_empty()).map(names::hook),
                way: way(*iif, *oif),
                packets: *packets,
                by: by.as_ref().filter(|_| conntrack.is_none()).map(StepObject::new),
                conntrack,
                maybe,
            }
        };
        Self {
            packets: drops.packets(),
            places: drops.dropped().map(place).collect(),
            elsewhere: drops.elsewhere(),
            clash: drops.clash().map(|Clash { reply, holder }| ClashObject {
                reply: reply.into(),
                holder: holder.map(TupleObject::from),
            }),
        }
    }
}
