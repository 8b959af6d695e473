//! Kernel memory as the walkers see it.

use anyhow::Result;
use conntracker_common::kernel_memory;

/// Reads kernel memory. The kernel may change or free it at any time, so the caller checks afterwards that nothing
/// changed (see [`super::Index::read`]).
pub trait Memory {
    /// Copies pieces, given as (address, length), into one buffer. Their lengths and number are within the limits of
    /// [`kernel_memory`].
    ///
    /// # Errors A piece cannot be read ([`Gone`]), or the program failed.
    fn pieces(&mut self, pieces: &[(u64, u32)]) -> Result<Vec<u8>>;
}

/// The kernel has freed or changed the memory.
#[derive(Debug, thiserror::Error)]
#[error("the kernel's tables changed while they were read")]
pub struct Gone;

/// The most bytes of a structure. More of them mean that the memory was freed and reused.
const MOST_BYTES: u64 = 64 << 20;

/// Bytes of a long piece that are copied at once.
const PER_GO: u64 = (kernel_memory::BYTES - kernel_memory::PIECE_BYTES) as u64;

/// What walkers need, on top of [`Memory`].
pub(super) struct Reader<'a> {
    memory: &'a mut dyn Memory,
}

impl<'a> Reader<'a> {
    pub fn new(memory: &'a mut dyn Memory) -> Self {
        Self { memory }
    }

    /// Numbers at many addresses.
    pub fn words(&mut self, addresses: &[u64]) -> Result<Vec<u64>> {
        let mut words = Vec::with_capacity(addresses.len());
        for some in addresses.chunks(kernel_memory::PIECES) {
            let pieces: Vec<(u64, u32)> = some.iter().map(|&address| (address, 8)).collect();
            let bytes = self.memory.pieces(&pieces)?;
            words.extend(bytes.chunks_exact(8).map(|word| u64_at(word, 0)));
        }
        Ok(words)
    }

    /// A number.
    pub fn word(&mut self, address: u64) -> Result<u64> {
        Ok(u64_at(&self.memory.pieces(&[(address, 8)])?, 0))
    }

    /// A stretch of memory.
    pub fn bytes(&mut self, address: u64, len: u64) -> Result<Vec<u8>> {
        self.stretches(&[(address, len)])
    }

    /// Copies pieces of any length, given as (address, length), into one buffer.
    pub fn stretches(&mut self, wanted: &[(u64, u64)]) -> Result<Vec<u8>> {
        let total = wanted.iter().try_fold(0u64, |total, (_, len)| total.checked_add(*len));
        if total.is_none_or(|total| total > MOST_BYTES) {
            return Err(Gone.into());
        }
        let mut all = Vec::new();
        let (mut pieces, mut together) = (Vec::new(), 0);
        for &(address, len) in wanted {
            for at in (0..len).step_by(kernel_memory::PIECE_BYTES) {
                let piece = (len - at).min(kernel_memory::PIECE_BYTES as u64);
                if pieces.len() == kernel_memory::PIECES || together + piece > PER_GO {
                    all.extend(self.memory.pieces(&pieces)?);
                    pieces.clear();
                    together = 0;
                }
                pieces.push((address.wrapping_add(at), piece as u32));
                together += piece;
            }
        }
        if !pieces.is_empty() {
            all.extend(self.memory.pieces(&pieces)?);
        }
        Ok(all)
    }

    /// A string that ends with a zero byte and is at most `N - 1` bytes long.
    pub fn string<const N: usize>(&mut self, address: u64) -> Result<String> {
        let bytes = self.memory.pieces(&[(address, N as u32)])?;
        let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}

/// The number at an offset; 0 beyond the end.
pub(in crate::bpf) fn u64_at(bytes: &[u8], at: u64) -> u64 {
    u64::from_ne_bytes(array(bytes, at))
}

/// The number at an offset; 0 beyond the end.
pub(in crate::bpf) fn u32_at(bytes: &[u8], at: u64) -> u32 {
    u32::from_ne_bytes(array(bytes, at))
}

/// The number at an offset; 0 beyond the end.
pub(in crate::bpf) fn u16_at(bytes: &[u8], at: u64) -> u16 {
    u16::from_ne_bytes(array(bytes, at))
}

/// The bytes at an offset; zeros beyond the end.
pub(in crate::bpf) fn array<const N: usize>(bytes: &[u8], at: u64) -> [u8; N] {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}
