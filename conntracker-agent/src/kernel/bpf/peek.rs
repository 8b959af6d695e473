//! Kernel memory by way of program `peek`, off the packet path.

use anyhow::{Result, bail};
use aya::maps::Array;
use bytes::Buf;
use conntracker_common::peek::{BYTES, PIECE_BYTES, PIECES, Reply};

use super::{
    index::memory::{Gone, Memory},
    object::Programs,
    sys,
};
use crate::kernel::netns::Netns;

/// Words of a request.
const REQUEST_WORDS: usize = 1 + 2 * PIECES;

/// Bytes of a reply before its data.
const REPLY_HEADER: usize = 16;

impl Programs {
    /// Address of the `struct net` of a namespace.
    pub fn net(&mut self, netns: &Netns) -> Result<u64> {
        self.request(&[])?;
        let failed = netns.enter(|| sys::run(self.peek_program()))?;
        if failed != 0 {
            bail!("the kernel's memory could not be read");
        }
        Ok(self.reply(0)?.0)
    }

    fn request(&mut self, pieces: &[(u64, u32)]) -> Result<u32> {
        let mut request = [0u64; REQUEST_WORDS];
        request[0] = pieces.len() as u64;
        let mut end = 0;
        for (words, &(address, len)) in request[1..].chunks_exact_mut(2).zip(pieces) {
            words.copy_from_slice(&[address, u64::from(len) | u64::from(end) << 32]);
            end += len;
            if len as usize > PIECE_BYTES || end as usize > BYTES {
                bail!("too much kernel memory asked for at once");
            }
        }
        if pieces.len() > PIECES {
            bail!("too many pieces of kernel memory asked for at once");
        }
        Array::<_, [u64; REQUEST_WORDS]>::try_from(self.map_mut("PEEK_REQUEST")?)?
            .set(0, request, 0)?;
        Ok(end)
    }

    /// (address of the namespace, pieces copied, the first `len` bytes of them).
    fn reply(&self, len: u32) -> Result<(u64, u64, Vec<u8>)> {
        let map: Array<_, [u8; size_of::<Reply>()]> = Array::try_from(self.map("PEEK")?)?;
        let reply = map.get(&0, 0)?;
        let mut header = &reply[..REPLY_HEADER];
        let (net, copied) = (header.get_u64_ne(), header.get_u64_ne());
        Ok((net, copied, reply[REPLY_HEADER..][..len as usize].to_vec()))
    }
}

impl Memory for Programs {
    fn pieces(&mut self, pieces: &[(u64, u32)]) -> Result<Vec<u8>> {
        let len = self.request(pieces)?;
        let failed = sys::run(self.peek_program())?;
        let (_, copied, bytes) = self.reply(len)?;
        if failed != 0 || copied != pieces.len() as u64 {
            return Err(Gone.into());
        }
        Ok(bytes)
    }
}
