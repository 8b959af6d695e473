//! Reading `struct nf_conn`.

use conntracker_common::conntrack::{IP_CT_NEW, IP_CT_RELATED};

use super::tuple::KernelTuple;
use crate::{
    base::{
        globals::offset,
        memory::{read, read_into},
    },
    packet::facts::Facts,
};

/// Low bits of `sk_buff._nfct`: `enum ip_conntrack_info`.
const NFCT_INFOMASK: u64 = 7;

/// `sk_buff._nfct` taken apart.
#[derive(Clone, Copy)]
pub struct Nfct(u64);

impl Nfct {
    /// From the value of `sk_buff._nfct`.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// No entry, and no `notrack` (which sets IP_CT_UNTRACKED in the low bits).
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// `enum ip_conntrack_info`.
    #[inline(always)]
    pub const fn info(self) -> u8 {
        (self.0 & NFCT_INFOMASK) as u8
    }

    /// Whether the packet may be the first of its flow: only such a packet can find it unconfirmed.
    #[inline(always)]
    pub const fn may_be_first(self) -> bool {
        matches!(self.info(), IP_CT_NEW | IP_CT_RELATED)
    }

    /// Address of the `nf_conn`, 0 if there is none.
    #[inline(always)]
    pub const fn address(self) -> u64 {
        self.0 & !NFCT_INFOMASK
    }

    /// Address of the `nf_conn`, if there is one.
    #[inline(always)]
    pub const fn entry(self) -> Option<Entry> {
        let address = self.0 & !NFCT_INFOMASK;
        if address == 0 { None } else { Some(Entry(address)) }
    }
}

/// Address of a `struct nf_conn`.
#[derive(Clone, Copy)]
pub struct Entry(u64);

/// `struct nf_conntrack_zone`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Zone {
    /// Zone id.
    pub id: u16,
    /// NF_CT_FLAG_MARK.
    pub flags: u8,
    /// 1 original, 2 reply, 3 both.
    pub dir: u8,
}

impl Entry {
    /// Where it is.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0
    }

    /// The entry at an address.
    #[inline(always)]
    pub fn at(address: u64) -> Self {
        Self(address)
    }

    /// Copies the original tuple; false if it could not be read.
    #[inline(always)]
    pub fn orig(self, to: &mut KernelTuple) -> bool {
        read_into(self.0 + offset!(ct_orig) as u64, to)
    }

    /// The zone, with its flags and direction.
    #[inline(always)]
    pub fn zone_word(self) -> Option<u32> {
        read(self.0 + offset!(ct_zone) as u64)
    }

    /// Copies the connmark; false if it could not be read.
    #[inline(always)]
    pub fn mark(self, to: &mut u32) -> bool {
        read_into(self.0 + offset!(ct_mark) as u64, to)
    }

    /// Copies the reply tuple; false if it could not be read.
    #[inline(always)]
    pub fn reply(self, to: &mut KernelTuple) -> bool {
        read_into(self.0 + offset!(ct_reply) as u64, to)
    }

    /// The entry whose helper expected this one.
    #[inline(always)]
    pub fn master(self) -> Option<Self> {
        read(self.0 + offset!(ct_master) as u64).filter(|master| *master != 0).map(Self)
    }

    /// Low half of `nf_conn.status`, where all IPS_ bits are.
    #[inline(always)]
    pub fn status(self) -> Option<u32> {
        read(self.0 + offset!(ct_status) as u64)
    }

    /// Address of the entry's `struct net`.
    #[inline(always)]
    pub fn net(self) -> Option<u64> {
        read(self.0 + offset!(ct_net) as u64)
    }

    /// Copies the zone into `facts`; false if it could not be read. A template has the zone that the packet's
    /// entry is to have.
    #[inline(always)]
    pub fn zone(self, facts: &mut Facts) -> bool {
        let mut zone = Zone { id: 0, flags: 0, dir: 0 };
        if !read_into(self.0 + offset!(ct_zone) as u64, &mut zone) {
            return false;
        }
        facts.body.zone = zone.id;
        facts.body.zone_dir = zone.dir;
        true
    }

    /// Copies tuples, zone and connmark into `facts`; false if one could not be read.
    #[inline(always)]
    pub fn describe(self, facts: &mut Facts) -> bool {
        let ok = read_into(self.0 + offset!(ct_orig) as u64, &mut facts.orig)
            && read_into(self.0 + offset!(ct_reply) as u64, &mut facts.reply)
            && self.zone(facts)
            && read_into(self.0 + offset!(ct_mark) as u64, &mut facts.body.ct_mark);
        facts.body.proto = facts.orig.proto;
        facts.body.family = facts.orig.l3num as u8;
        ok
    }
}
