//! Reading conntrack's hash table off the packet path: program `table` copies entries as they lie in memory
//! into one of the maps `TABLE_0` and `TABLE_1`, some buckets at a time.

/// Entries in one go, a power of two.
pub const SLOTS: usize = 256;

/// Bytes of a `struct nf_conn` that are copied at most.
pub const CONN_BYTES: usize = 256;

/// Bytes of a `struct nf_ct_ext` that are copied at most: its length is a byte.
pub const EXT_BYTES: usize = 256;

/// Bytes of a `struct nf_conntrack_tuple`, in whole words.
pub const TUPLE_BYTES: usize = 40;

/// Bytes of a helper's name (NF_CT_HELPER_NAME_LEN).
pub const NAME_BYTES: usize = 16;

/// The one value of map `WALK`: where the table is, and from where on it is wanted.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Address of the first bucket.
    pub buckets: u64,
    /// Address of the `struct net` whose entries are wanted.
    pub net: u64,
    /// How many buckets there are.
    pub size: u32,
    /// The one to begin with.
    pub bucket: u32,
    /// 0: entries go to map `TABLE_0`; 1: to `TABLE_1`.
    pub part: u32,
    /// Explicit padding.
    pub reserved: u32,
}

/// One entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Name of its helper; empty if it has none.
    pub helper: [u8; NAME_BYTES],
    /// `struct nf_conn`, as much of it as is wanted.
    pub conn: [u8; CONN_BYTES],
    /// `struct nf_ct_ext` with what follows it; all zeros at its beginning if it has none.
    pub ext: [u8; EXT_BYTES],
}

/// The one value of map `TABLE_0`, and of `TABLE_1`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The kernel's clock, in ticks.
    pub jiffies: u64,
    /// The bucket to go on with.
    pub bucket: u32,
    /// How many slots are filled.
    pub filled: u32,
    /// What came in between: 0, [`UNREADABLE`] or [`CHANGING`].
    pub failed: u32,
    /// Explicit padding.
    pub reserved: u32,
    /// The slots.
    pub slots: [Slot; SLOTS],
}

/// The table's memory could not be read.
pub const UNREADABLE: u32 = 1;
/// A bucket was read many times, and its chain changed each time.
pub const CHANGING: u32 = 2;

/// Bytes of a [`Part`] before its slots.
pub const PART_HEADER: usize = size_of::<Part>() - SLOTS * size_of::<Slot>();

/// What the program needs to know besides offsets.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableNumbers {
    /// Bytes of a `struct nf_conn` that are copied, at most [`CONN_BYTES`].
    pub conn_bytes: u32,
    /// NF_CT_EXT_HELPER.
    pub ext_helper: u32,
}

impl TableNumbers {
    /// What the object carries until the agent fills it in.
    pub const ZERO: Self = Self { conn_bytes: 0, ext_helper: 0 };

    /// In the order of the fields, which is their layout in memory.
    #[must_use]
    pub fn to_array(self) -> [u32; 2] {
        let Self { conn_bytes, ext_helper } = self;
        [conn_bytes, ext_helper]
    }
}

const _: () = {
    assert!(SLOTS.is_power_of_two());
    assert!(size_of::<Walk>() == 32);
    assert!(size_of::<Slot>() == 528);
    assert!(PART_HEADER == 24);
};
