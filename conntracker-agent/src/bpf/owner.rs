//! Owners of sockets, decoded from the bytes behind a record, and the offsets that the programs need for them.

use std::fs;

use bytes::Buf;
use conntracker_common::{
    offsets::OwnerOffsets,
    owner::{COMM_BYTES, OwnerNumbers},
};

use super::btf::{BtfError, KernelBtf};

/// File that only kernels with PREEMPT_RT have.
const REALTIME: &str = "/sys/kernel/realtime";

/// Offsets and numbers that the programs need for the owner of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerLayout {
    /// Member offsets.
    pub offsets: OwnerOffsets,
    /// Further numbers that they need.
    pub numbers: OwnerNumbers,
}

impl OwnerLayout {
    /// None: owners are not told.
    pub const NONE: Self = Self { offsets: OwnerOffsets::ZERO, numbers: OwnerNumbers::ZERO };

    /// Resolves it.
    pub fn resolve(btf: &KernelBtf) -> Result<Self, BtfError> {
        // Without it senders are not told.
        let file_cred = btf.member_offset("file", "f_cred").ok();
        let stack_bytes = file_cred.map_or(0, |_| stack_bytes());
        let file_cred = file_cred.unwrap_or(0);
        let numbers = OwnerNumbers { wanted: 1, stack_bytes, file_cred };
        Ok(Self {
            offsets: OwnerOffsets::from_array(&btf.member_offsets(OwnerOffsets::MEMBERS)?),
            numbers,
        })
    }
}

/// Bytes of a task's kernel stack, where softirqs have a stack of their own: on x86_64 (THREAD_SIZE of
/// arch/x86/include/asm/page_64_types.h) without PREEMPT_RT.
fn stack_bytes() -> u32 {
    let realtime = fs::read_to_string(REALTIME).is_ok_and(|text| text.trim() == "1");
    if cfg!(target_arch = "x86_64") && !realtime { 4 << 12 } else { 0 }
}

/// The owner of a socket, as the programs report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Identifier of the control group.
    pub cgroup: Option<u64>,
    /// Inode number of the socket.
    pub inode: Option<u64>,
    /// The process that sent the packet, and its name.
    pub sender: Option<(u32, [u8; COMM_BYTES])>,
}

impl Owner {
    /// Decodes it; the caller has checked the length of `r`.
    pub(super) fn decode(r: &mut &[u8]) -> Self {
        let known = |number: u64| (number != 0).then_some(number);
        let cgroup = known(r.get_u64_ne());
        let inode = known(r.get_u64_ne());
        let uid = r.get_u32_ne();
        let pid = r.get_u32_ne();
        let mut comm = [0; COMM_BYTES];
        r.copy_to_slice(&mut comm);
        Self { uid, cgroup, inode, sender: (pid != 0).then_some((pid, comm)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::btf::fixtures::{KERNELS, kernel};

    #[test]
    fn every_kernel_has_what_owners_need() {
        for name in KERNELS {
            let OwnerLayout { offsets, .. } = OwnerLayout::resolve(&kernel(name)).unwrap();
            // `struct sock_common` has kept its beginning.
            let OwnerOffsets { sk_num, sk_family, sk_state, .. } = offsets;
            assert_eq!((sk_num, sk_family, sk_state), (14, 16, 18), "{name}");
        }
    }
}
