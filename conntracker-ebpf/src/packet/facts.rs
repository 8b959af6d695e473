//! What a record is made of.

use conntracker_common::record::{FAMILY_V4, FLAG_INTERFACES, FlowBody, HOOK_UNKNOWN};

use super::tuple::KernelTuple;

/// `nf_conntrack_zone.dir` of a packet without a conntrack entry: both directions.
const ZONE_BOTH: u8 = 3;

/// What a record is made of.
#[repr(C)]
pub struct Facts {
    /// Namespace of the packet.
    pub netns_cookie: u64,
    /// When the packet was seen (nanoseconds since boot).
    pub ktime_ns: u64,
    /// Everything but the tuples.
    pub body: FlowBody,
    /// Original direction.
    pub orig: KernelTuple,
    /// Reply direction, or [`KernelTuple::NONE`].
    pub reply: KernelTuple,
}

impl Facts {
    /// A packet of which only the time is known.
    #[inline(always)]
    pub fn new(ktime_ns: u64) -> Self {
        Self {
            netns_cookie: 0,
            ktime_ns,
            body: Self::NO_BODY,
            orig: KernelTuple::NONE,
            reply: KernelTuple::NONE,
        }
    }

    /// As [`Self::new`], in place: there is no room on the stack for another one.
    #[inline(always)]
    pub fn clear(&mut self, ktime_ns: u64) {
        self.netns_cookie = 0;
        self.ktime_ns = ktime_ns;
        self.body = Self::NO_BODY;
        self.orig = KernelTuple::NONE;
        self.reply = KernelTuple::NONE;
    }

    const NO_BODY: FlowBody = FlowBody {
        status: 0,
        ct_mark: 0,
        packet_mark: 0,
        iif: 0,
        oif: 0,
        count: 0,
        since_ns: 0,
        zone: 0,
        zone_dir: ZONE_BOTH,
        proto: 0,
        hook: HOOK_UNKNOWN,
        flags: FLAG_INTERFACES,
        family: 0,
        other_proto: 0,
    };

    /// Whether the tuples are IPv4.
    #[inline(always)]
    pub fn is_v4(&self) -> bool {
        self.body.family == FAMILY_V4
    }
}
