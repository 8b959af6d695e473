//! A 64-bit hash of keys, for caches in which a collision means that a packet is not traced. Senders of packets must
//! not be able to cause collisions: it is SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast
//! short-input PRF"), of whole words, with a key that the agent draws at each start.

use crate::{
    base::globals::{HASH_KEY, frozen},
    packet::tuple::KernelTuple,
};

/// The state of SipHash.
#[derive(Clone, Copy)]
pub struct Hash([u64; 4]);

impl Hash {
    /// An empty one; different seeds have nothing in common.
    #[inline(always)]
    pub fn new(seed: u64) -> Self {
        let [low, high] = frozen(&HASH_KEY);
        let mut hash = Self([
            low ^ 0x736f_6d65_7073_6575,
            high ^ 0x646f_7261_6e64_6f6d,
            low ^ 0x6c79_6765_6e65_7261,
            high ^ 0x7465_6462_7974_6573,
        ]);
        hash.add(seed);
        hash
    }

    #[inline(always)]
    fn round(&mut self) {
        let Self([a, b, c, d]) = *self;
        let a = a.wrapping_add(b);
        let b = b.rotate_left(13) ^ a;
        let a = a.rotate_left(32);
        let c = c.wrapping_add(d);
        let d = d.rotate_left(16) ^ c;
        let a = a.wrapping_add(d);
        let d = d.rotate_left(21) ^ a;
        let c = c.wrapping_add(b);
        let b = b.rotate_left(17) ^ c;
        let c = c.rotate_left(32);
        *self = Self([a, b, c, d]);
    }

    /// Adds a word.
    #[inline(always)]
    pub fn add(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.0[0] ^= word;
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
    pub fn finish(mut self) -> u64 {
        self.0[2] ^= 0xff;
        for _ in 0..3 {
            self.round();
        }
        let Self([a, b, c, d]) = self;
        a ^ b ^ c ^ d
    }
}

/// Hash of a tuple. Not inlined, so that its stack is not added to that of its callers, which hold tuples.
#[inline(never)]
pub fn tuple_hash(tuple: &KernelTuple) -> u64 {
    let mut hash = Hash::new(0);
    hash.tuple(tuple);
    hash.finish()
}
