//! A 64-bit hash of keys, for caches in which a collision means that something is not looked at.

use crate::conntrack::KernelTuple;

/// Multiply and fold, as in wyhash and FxHash.
#[derive(Clone, Copy)]
pub struct Hash(u64);

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hash {
    /// An empty one; different seeds have nothing in common.
    #[inline(always)]
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x51_7c_c1_b7_27_22_0a_95)
    }

    /// Adds a word.
    #[inline(always)]
    pub fn add(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(FACTOR);
        self.0 = mixed ^ mixed >> 29;
    }

    #[inline(always)]
    fn address(&mut self, address: &[u8; 16]) {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
        self.add(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
        self.add(u64::from_ne_bytes([i, j, k, l, m, n, o, p]));
    }

    #[inline(always)]
    fn ports(&mut self, src: [u8; 2], dst: [u8; 2], rest: u32) {
        let ports = u32::from(u16::from_ne_bytes(src)) << 16 | u32::from(u16::from_ne_bytes(dst));
        self.add(u64::from(ports) << 32 | u64::from(rest));
    }

    /// Adds a tuple.
    #[inline(always)]
    pub fn tuple(&mut self, tuple: &KernelTuple) {
        self.address(&tuple.src);
        self.address(&tuple.dst);
        self.ports(tuple.src_l4, tuple.dst_l4, u32::from(tuple.proto));
    }

    /// The hash.
    #[inline(always)]
    pub fn finish(self) -> u64 {
        let Self(value) = self;
        let mixed = value.wrapping_mul(FACTOR);
        mixed ^ mixed >> 32
    }
}
