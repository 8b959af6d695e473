//! Reading kernel memory off the packet path: program `read_memory` copies pieces of it into map `READ_MEMORY`.

/// Pieces in one go.
pub const PIECES: usize = 256;

/// Bytes of one go.
pub const BYTES: usize = 1 << 16;

/// Bytes of one piece at most.
pub const PIECE_BYTES: usize = 4096;

/// One piece.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Address in the kernel.
    pub address: u64,
    /// Length in bytes, at most [`PIECE_BYTES`].
    pub len: u32,
    /// Where it goes in the map's value; at most [`BYTES`].
    pub at: u32,
}

/// The one value of map `MEMORY_REQUEST`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// How many pieces.
    pub count: u64,
    /// The pieces.
    pub pieces: [Piece; PIECES],
}

/// The one value of map `READ_MEMORY`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Address of the `struct net` of the thread that ran the program.
    pub net: u64,
    /// Address of its `struct task_struct`.
    pub task: u64,
    /// Pieces that were copied; the first that could not be read ends it.
    pub copied: u64,
    /// The pieces, and room for one that is longer than it should be.
    pub data: [u8; BYTES + PIECE_BYTES],
}

const _: () = {
    assert!(size_of::<Piece>() == 16);
    assert!(size_of::<Request>() == 8 + 16 * PIECES);
};
