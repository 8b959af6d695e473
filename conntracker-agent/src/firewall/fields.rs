//! Fields of the kernel's C structures in bytes that come from outside.

/// A structure. Fields are in the byte order of the machine unless their method says otherwise; those behind the end
/// are `None`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// So many bytes at an offset.
    pub fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..)?.first_chunk().copied()
    }

    /// `__u8`.
    pub fn u8(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    /// `__u16`.
    pub fn u16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_ne_bytes)
    }

    /// `__u32`.
    pub fn u32(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_ne_bytes)
    }

    /// `int`.
    pub fn i32(self, at: usize) -> Option<i32> {
        self.array(at).map(i32::from_ne_bytes)
    }

    /// `__u64`.
    pub fn u64(self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_ne_bytes)
    }

    /// `__be16`.
    pub fn be16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_be_bytes)
    }

    /// `char[most]` that a zero ends, if it is shorter. Bytes that are no UTF-8 are replaced.
    pub fn text(self, at: usize, most: usize) -> Option<String> {
        let bytes = self.0.get(at..)?.get(..most)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(most);
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    /// The bytes from one offset up to another one.
    pub fn slice(self, from: usize, to: usize) -> Option<&'a [u8]> {
        self.0.get(from..to)
    }
}
