//! Decodes an entry that the program copied: the same values as ctnetlink sends (`ctnetlink_fill_info` of
//! net/netfilter/nf_conntrack_netlink.c), read from the kernel's structures.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use conntracker_common::{
    IPPROTO_DCCP, IPPROTO_SCTP, IPPROTO_TCP,
    record::{FAMILY_V4, FAMILY_V6},
    table::{CONN_BYTES, NAME_BYTES, TUPLE_BYTES},
};

use super::layout::EntryLayout;
use crate::{
    bpf::index::memory::{array, u16_at, u32_at, u64_at},
    model::{L4, Mark, Status, Tuple, Zone, counters::Counters, state::ProtoState},
    netlink::ctnetlink::{Entry, SeqAdj, SynProxy},
};

/// Bytes of `nf_conn_labels.bits` (NF_CT_LABELS_MAX_SIZE).
const LABEL_BYTES: usize = 16;

/// `nf_conntrack_zone.dir` (NF_CT_ZONE_DIR_ORIG, NF_CT_ZONE_DIR_REPL, NF_CT_DEFAULT_ZONE_DIR).
const ZONE_ORIGINAL: u8 = 1;
const ZONE_REPLY: u8 = 2;

/// A `Slot` of the program.
#[derive(Clone, Copy)]
pub(super) struct Copy<'a> {
    helper: &'a [u8],
    conn: &'a [u8],
    ext: &'a [u8],
}

impl<'a> Copy<'a> {
    /// Takes a slot apart.
    pub fn new(slot: &'a [u8]) -> Self {
        let (helper, rest) = slot.split_at(NAME_BYTES.min(slot.len()));
        let (conn, ext) = rest.split_at(CONN_BYTES.min(rest.len()));
        Self { helper, conn, ext }
    }

    /// Whether a rule with SECMARK gave it a security mark, whose name only the kernel's security module has.
    pub fn has_secmark(&self, layout: &EntryLayout) -> bool {
        layout.secmark.is_some_and(|at| u32_at(self.conn, at) != 0)
    }

    /// The entry at a time in ticks; `None` if its timeout is over (and the kernel has not removed it yet), or if its
    /// family is neither IPv4 nor IPv6.
    pub fn entry(&self, layout: &EntryLayout, jiffies: u32) -> Option<Entry<'a>> {
        let Self { helper, conn, .. } = *self;
        let members = &layout.conn;
        let status = Status(u32_at(conn, members.status));
        let left = u32_at(conn, members.timeout).wrapping_sub(jiffies).cast_signed();
        if left <= 0 {
            return None;
        }
        let (family, orig) = tuple(&array::<TUPLE_BYTES>(conn, members.orig))?;
        let (_, reply) = tuple(&array::<TUPLE_BYTES>(conn, members.reply))?;
        let (zone, direction) = layout
            .zone
            .map_or((Zone::DEFAULT, 0), |at| (Zone(u16_at(conn, at)), u8_at(conn, at + 3)));
        let of = |wanted| (zone != Zone::DEFAULT && direction == wanted).then_some(zone);
        let offloaded = status.contains(Status::OFFLOAD);
        let (start, stop) = self.stamp(layout);
        let helper = helper.split(|byte| *byte == 0).next().filter(|name| !name.is_empty());
        Some(Entry {
            family,
            orig,
            reply: Some(reply),
            master: None,
            zone,
            zone_orig: of(ZONE_ORIGINAL),
            zone_reply: of(ZONE_REPLY),
            status,
            timeout: (!offloaded).then_some(left.cast_unsigned() / layout.hz),
            mark: layout.mark.map(|at| Mark(u32_at(conn, at))),
            secmark: None,
            secctx: None,
            id: None,
            use_count: Some(u32_at(conn, members.users)),
            counters: self.counters(layout),
            start,
            stop,
            timestamp_event: None,
            helper,
            helper_info: None,
            labels: self.labels(layout),
            state: if offloaded { None } else { self.state(layout, orig.proto) },
            seqadj: self.seqadj(layout, status),
            synproxy: self.synproxy(layout),
            unknown: 0,
            raw: &[],
        })
    }

    /// An extension, if the entry has it.
    fn extension(&self, layout: &EntryLayout, number: u32) -> Option<&'a [u8]> {
        let at = usize::from(u8_at(self.ext, layout.conn.ext_offsets + u64::from(number)));
        if at == 0 { None } else { self.ext.get(at..) }
    }

    fn counters(&self, layout: &EntryLayout) -> [Option<Counters>; 2] {
        let Some(acct) = self.extension(layout, layout.ext_acct) else { return [None; 2] };
        let members = &layout.conn;
        let of = |packets, bytes| {
            Some(Counters { packets: u64_at(acct, packets), bytes: u64_at(acct, bytes) })
        };
        [of(members.acct, members.acct_bytes), of(members.acct_reply, members.acct_reply_bytes)]
    }

    fn stamp(&self, layout: &EntryLayout) -> (Option<u64>, Option<u64>) {
        let found = layout.stamp.and_then(|(number, members)| {
            let stamp = self.extension(layout, number)?;
            Some((u64_at(stamp, members.start), u64_at(stamp, members.stop)))
        });
        found.map_or((None, None), |(start, stop)| (Some(start), (stop != 0).then_some(stop)))
    }

    fn labels(&self, layout: &EntryLayout) -> Option<&'a [u8]> {
        let (number, members) = layout.labels?;
        let labels = self.extension(layout, number)?;
        let bits = labels.get(members.bits as usize..)?.get(..LABEL_BYTES)?;
        bits.iter().any(|byte| *byte != 0).then_some(bits)
    }

    fn state(&self, layout: &EntryLayout, proto: u8) -> Option<ProtoState> {
        let byte = |at| u8_at(self.conn, at);
        let vtag = |at| Some(u32::from_be_bytes(array(self.conn, at)));
        match proto {
            IPPROTO_TCP => {
                let members = &layout.conn;
                Some(ProtoState::Tcp {
                    state: byte(members.tcp_state),
                    wscale: [members.tcp_scale, members.tcp_scale_reply].map(|at| Some(byte(at))),
                    flags: [members.tcp_flags, members.tcp_flags_reply].map(|at| Some(byte(at))),
                })
            }
            IPPROTO_SCTP => layout.sctp.map(|members| ProtoState::Sctp {
                // An enumeration of 32 bits, whose values fit into this byte.
                state: byte(members.state),
                vtag: [vtag(members.vtag), vtag(members.vtag_reply)],
            }),
            IPPROTO_DCCP => layout.dccp.map(|members| ProtoState::Dccp {
                state: byte(members.state),
                role: Some(byte(members.role)),
                handshake_seq: Some(u64_at(self.conn, members.handshake_seq)),
            }),
            _ => None,
        }
    }

    fn seqadj(&self, layout: &EntryLayout, status: Status) -> [Option<SeqAdj>; 2] {
        let found = layout.ext_seqadj.and_then(|number| self.extension(layout, number));
        let Some(ext) = found.filter(|_| status.contains(Status::SEQ_ADJUST)) else {
            return [None; 2];
        };
        let members = &layout.conn;
        [members.seqadj, members.seqadj_reply].map(|at| {
            Some(SeqAdj {
                correction_pos: u32_at(ext, at),
                offset_before: u32_at(ext, at + members.seqadj_before).cast_signed(),
                offset_after: u32_at(ext, at + members.seqadj_after).cast_signed(),
            })
        })
    }

    fn synproxy(&self, layout: &EntryLayout) -> Option<SynProxy> {
        let (number, members) = layout.synproxy?;
        let ext = self.extension(layout, number)?;
        Some(SynProxy {
            isn: u32_at(ext, members.isn),
            its: u32_at(ext, members.its),
            tsoff: u32_at(ext, members.tsoff),
        })
    }
}

/// A `struct nf_conntrack_tuple` and its family; `None` if that is neither IPv4 nor IPv6, or if there is
/// none. Its layout is checked (`TABLE_ASSUMED`, `ASSUMED`).
fn tuple(bytes: &[u8]) -> Option<(u8, Tuple)> {
    let family = u8_at(bytes, 18);
    let proto = u8_at(bytes, 38);
    let address = |at| match family {
        FAMILY_V4 => Some(IpAddr::V4(Ipv4Addr::from(array(bytes, at)))),
        FAMILY_V6 => Some(IpAddr::V6(Ipv6Addr::from(array(bytes, at)))),
        _ => None,
    };
    let l4 = L4::from_kernel(proto, array(bytes, 16), array(bytes, 36));
    Some((family, Tuple { src: address(0)?, dst: address(20)?, proto, l4 }))
}

/// The byte at an offset; 0 beyond the end.
fn u8_at(bytes: &[u8], at: u64) -> u8 {
    let [byte] = array(bytes, at);
    byte
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::bpf::btf::fixtures::{KERNELS, kernel};

    /// Bytes of a slot.
    const SLOT: usize = size_of::<conntracker_common::table::Slot>();
    const CONN: usize = NAME_BYTES;
    const EXT: usize = CONN + CONN_BYTES;

    fn layouts() -> Vec<(&'static str, EntryLayout)> {
        let layout = |name| (name, EntryLayout::resolve(&kernel(name), 250).unwrap());
        KERNELS.map(layout).into()
    }

    /// A slot to write into.
    struct Made(Vec<u8>);

    impl Made {
        fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
            self.0[at..at + bytes.len()].copy_from_slice(bytes);
            self
        }

        fn conn(&mut self, at: u64, bytes: &[u8]) -> &mut Self {
            self.put(CONN + at as usize, bytes)
        }

        /// An extension at byte `at` of `struct nf_ct_ext`.
        fn ext(&mut self, layout: &EntryLayout, number: u32, at: u8) -> &mut Self {
            self.put(EXT + layout.conn.ext_offsets as usize + number as usize, &[at])
        }
    }

    /// `struct nf_conntrack_tuple` of TCP over IPv4.
    fn tcp(src: [u8; 4], sport: u16, dst: [u8; 4], dport: u16, direction: u8) -> [u8; TUPLE_BYTES] {
        let mut tuple = [0; TUPLE_BYTES];
        tuple[..4].copy_from_slice(&src);
        tuple[16..18].copy_from_slice(&sport.to_be_bytes());
        tuple[18] = FAMILY_V4;
        tuple[20..24].copy_from_slice(&dst);
        tuple[36..38].copy_from_slice(&dport.to_be_bytes());
        tuple[38..].copy_from_slice(&[IPPROTO_TCP, direction]);
        tuple
    }

    /// A connection with accounting, and labels where the kernel has them.
    fn connection(layout: &EntryLayout) -> Made {
        let mut made = Made(vec![0; SLOT]);
        let (client, server) = ([192, 0, 2, 1], [198, 51, 100, 2]);
        made.put(0, b"ftp\0")
            .conn(layout.conn.orig, &tcp(client, 40_000, server, 21, 0))
            .conn(layout.conn.reply, &tcp(server, 21, client, 40_000, 1))
            .conn(layout.conn.users, &2u32.to_ne_bytes())
            .conn(layout.conn.status, &0x8eu32.to_ne_bytes())
            .conn(layout.conn.timeout, &7_500u32.to_ne_bytes())
            .conn(layout.conn.tcp_state, &[3])
            .conn(layout.conn.tcp_scale_reply, &[7])
            .conn(layout.zone.unwrap(), &[5, 0, 0, ZONE_REPLY])
            .conn(layout.mark.unwrap(), &9u32.to_ne_bytes())
            .ext(layout, layout.ext_acct, 32)
            .put(EXT + 32 + layout.conn.acct_reply_bytes as usize, &840u64.to_ne_bytes());
        if let Some((number, members)) = layout.labels {
            made.ext(layout, number, 128).put(EXT + 128 + members.bits as usize, &[0b10]);
        }
        made
    }

    #[test]
    fn what_an_entry_consists_of_is_found_in_every_kernel() {
        for (name, layout) in layouts() {
            let slot = connection(&layout).0;
            let copy = Copy::new(&slot);
            let entry = copy.entry(&layout, 5_000).unwrap();
            let (client, server) = ([192, 0, 2, 1].into(), [198, 51, 100, 2].into());
            let l4 = L4::Ports { src: 40_000, dst: 21 };
            let orig = Tuple { src: client, dst: server, proto: IPPROTO_TCP, l4 };
            assert_eq!(entry.orig, orig, "{name}");
            assert_eq!(entry.reply.unwrap().dst, entry.orig.src, "{name}");
            assert_eq!((entry.status, entry.use_count), (Status(0x8e), Some(2)), "{name}");
            assert_eq!((entry.timeout, entry.mark), (Some(10), Some(Mark(9))), "{name}");
            assert_eq!(
                (entry.zone, entry.zone_orig, entry.zone_reply),
                (Zone(5), None, Some(Zone(5))),
                "{name}"
            );
            assert_eq!(entry.helper, Some(&b"ftp"[..]), "{name}");
            assert_eq!(entry.counters[1], Some(Counters { packets: 0, bytes: 840 }), "{name}");
            let labels: Vec<u16> = entry.label_numbers().collect();
            assert_eq!(labels, [1], "{name}");
            let wscale = [Some(0), Some(7)];
            let state = ProtoState::Tcp { state: 3, wscale, flags: [Some(0); 2] };
            assert_eq!(entry.state, Some(state), "{name}");
            assert_eq!(
                (entry.start, entry.synproxy, entry.seqadj),
                (None, None, [None; 2]),
                "{name}"
            );
            assert!(!copy.has_secmark(&layout), "{name}");
        }
    }

    #[test]
    fn an_entry_whose_time_is_over_is_none_and_one_in_a_flowtable_has_no_time() {
        let (_, layout) = layouts().pop().unwrap();
        let mut made = connection(&layout);
        for now in [7_500, 7_501, 1 << 30] {
            assert_eq!(Copy::new(&made.0).entry(&layout, now), None);
        }
        // Ticks wrap around.
        made.conn(layout.conn.timeout, &249u32.to_ne_bytes());
        assert_eq!(Copy::new(&made.0).entry(&layout, u32::MAX).unwrap().timeout, Some(1));
        made.conn(layout.conn.status, &(0x8eu32 | Status::OFFLOAD.0).to_ne_bytes());
        let entry = Copy::new(&made.0).entry(&layout, 0).unwrap();
        assert_eq!((entry.timeout, entry.state), (None, None));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..=SLOT), jiffies: u32) {
            static LAYOUT: LazyLock<EntryLayout> = LazyLock::new(|| layouts().pop().unwrap().1);
            let copy = Copy::new(&bytes);
            let _ = (copy.entry(&LAYOUT, jiffies), copy.has_secmark(&LAYOUT));
        }
    }
}
