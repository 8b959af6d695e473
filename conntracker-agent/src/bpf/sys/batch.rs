//! Hash maps that are emptied while they are read.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use aya_obj::generated::bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_BATCH;

use super::bpf;

/// The part of `union bpf_attr` that the commands for batches use (Linux 5.6+).
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Entries of one batch; more if a single bucket of the map has more.
const ENTRIES: usize = 4096;

/// Removes and returns all entries of a hash map. No program may use the map meanwhile.
///
/// # Errors
/// EINVAL or ENOTSUPP before Linux 5.6.
pub fn take_all<const K: usize, const V: usize>(
    map: BorrowedFd<'_>,
) -> io::Result<Vec<([u8; K], [u8; V])>> {
    let mut all = Vec::new();
    let mut keys = vec![[0u8; K]; ENTRIES];
    let mut values = vec![[0u8; V]; ENTRIES];
    // Position of the next batch: the number of a bucket.
    let (mut from, mut next) = (0u32, 0u32);
    let mut first = true;
    loop {
        let mut attr = BatchAttr {
            in_batch: if first { 0 } else { (&raw const from) as u64 },
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: keys.len() as u32,
            map_fd: map.as_raw_fd().cast_unsigned(),
            ..BatchAttr::default()
        };
        let end = match bpf(BPF_MAP_LOOKUP_AND_DELETE_BATCH, &mut attr) {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            // A bucket has more entries than the batch, so none of them was taken.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && attr.count == 0 => {
                let more = keys.len() * 2;
                keys.resize(more, [0; K]);
                values.resize(more, [0; V]);
                continue;
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => false,
            Err(error) => return Err(error),
        };
        all.extend(keys.iter().copied().zip(values.iter().copied()).take(attr.count as usize));
        if end {
            return Ok(all);
        }
        (from, first) = (next, false);
    }
}

/// Waits until every program that is running now has ended: they run in RCU read sections, and this command
/// of membarrier(2) waits for those (`synchronize_rcu`, Linux 4.3+).
pub fn wait_for_programs() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: a system call without pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

const _: () = assert!(size_of::<BatchAttr>() == 56);
