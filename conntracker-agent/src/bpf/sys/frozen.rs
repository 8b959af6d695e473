//! Maps whose value programs see as a constant.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use aya_obj::generated::bpf_cmd::{BPF_MAP_FREEZE, BPF_MAP_UPDATE_ELEM};

use super::bpf;

/// `struct { … } /* anonymous struct used by BPF_MAP_*_ELEM commands */` of include/uapi/linux/bpf.h.
#[repr(C)]
struct MapElement {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part of `union bpf_attr` that BPF_MAP_FREEZE uses.
#[repr(C)]
struct MapFreeze {
    map_fd: u32,
}

/// Writes the one value of an array and freezes it, so that the verifier takes it for a constant in programs that are
/// loaded later (Linux 5.2+). `value` has the length of the map's values.
pub fn freeze(map: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
    let map_fd = map.as_raw_fd().cast_unsigned();
    let key = 0u32;
    let mut element = MapElement {
        map_fd,
        padding: 0,
        key: (&raw const key) as u64,
        value: value.as_ptr() as u64,
        flags: 0,
    };
    bpf(BPF_MAP_UPDATE_ELEM, &mut element)?;
    bpf(BPF_MAP_FREEZE, &mut MapFreeze { map_fd })?;
    Ok(())
}

const _: () = {
    assert!(size_of::<MapElement>() == 32);
    assert!(size_of::<MapFreeze>() == 4);
};
