//! What the agent wants of flows now: each, or a folded key once; and how keys are folded.

use aya_ebpf::{macros::map, maps::Array};
use conntracker_common::{
    FOLDED_PORT, has_ports, is_icmp,
    seen::{Mode, REPORT_FOLDED},
};

#[map]
static MODE: Array<Mode> = Array::with_max_entries(1, 0);

/// What the agent wants now.
#[inline(always)]
fn wanted() -> Mode {
    match MODE.get(0) {
        Some(mode) => *mode,
        None => Mode { report: 0, fold: 0, drops: 0, reserved: 0 },
    }
}

/// (a folded key is reported once and then counted, keys are folded).
#[inline(always)]
pub fn mode() -> (bool, bool) {
    let mode = wanted();
    (mode.report == REPORT_FOLDED, mode.fold != 0)
}

/// [`Mode::drops`].
#[inline(always)]
pub fn drops_map() -> u32 {
    wanted().drops
}

/// Folds a source port or an ICMP identifier.
#[inline(always)]
pub fn fold_source(src_l4: &mut [u8; 2], proto: u8) {
    if has_ports(proto) {
        if u16::from_be_bytes(*src_l4) > FOLDED_PORT {
            *src_l4 = FOLDED_PORT.to_be_bytes();
        }
    } else if is_icmp(proto) {
        *src_l4 = [0; 2];
    }
}

/// IPv4 in the first four bytes becomes `::ffff:a.b.c.d`.
#[inline(always)]
pub fn map_v4(address: &mut [u8; 16]) {
    let [a, b, c, d, ..] = *address;
    *address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
}
