//! Whose socket a packet is of: behind the tuples of a record with [`FLAG_OWNER`].
//!
//! [`FLAG_OWNER`]: crate::record::FLAG_OWNER

use crate::record::{FlowRecord4, FlowRecord6};

/// Bytes of a task's name (TASK_COMM_LEN).
pub const COMM_BYTES: usize = 16;

/// The owner of a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Identifier of its control group (version 2), 0 if it has none.
    pub cgroup: u64,
    /// Inode number of the socket, 0 if nobody has it open any more.
    pub inode: u64,
    /// User, as the initial user namespace has it.
    pub uid: u32,
    /// The process that sent the packet, as the initial pid namespace has it; 0 if that is not known.
    pub pid: u32,
    /// The name of that process.
    pub comm: [u8; COMM_BYTES],
}

impl Owner {
    /// Nobody.
    pub const NONE: Self = Self { cgroup: 0, inode: 0, uid: 0, pid: 0, comm: [0; COMM_BYTES] };
}

/// A record of an IPv4 flow, and the owner.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnedRecord4 {
    /// The record.
    pub record: FlowRecord4,
    /// The owner.
    pub owner: Owner,
}

/// A record of an IPv6 flow, and the owner.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnedRecord6 {
    /// The record.
    pub record: FlowRecord6,
    /// The owner.
    pub owner: Owner,
}

/// What the programs need for it besides [`crate::offsets::OwnerOffsets`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerNumbers {
    /// 1: owners are told.
    pub wanted: u32,
    /// Bytes of a task's stack in the kernel: a program that runs there runs for that task. 0 where that
    /// tells nothing.
    pub stack_bytes: u32,
    /// Offset of `file.f_cred`.
    pub file_cred: u32,
}

impl OwnerNumbers {
    /// What the object carries until the agent fills it in.
    pub const ZERO: Self = Self { wanted: 0, stack_bytes: 0, file_cred: 0 };

    /// The words in order, which is their layout in memory.
    #[must_use]
    pub fn to_array(self) -> [u32; size_of::<Self>() / 4] {
        let Self { wanted, stack_bytes, file_cred } = self;
        [wanted, stack_bytes, file_cred]
    }
}

const _: () = {
    assert!(size_of::<Owner>() == 40);
    assert!(size_of::<OwnedRecord4>() == size_of::<FlowRecord4>() + 40);
    assert!(size_of::<OwnedRecord6>() == size_of::<FlowRecord6>() + 40);
    assert!(size_of::<OwnerNumbers>() == 12);
};
