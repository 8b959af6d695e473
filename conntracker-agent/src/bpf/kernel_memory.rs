//! Reads kernel memory with program `read_memory`, off the packet path.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use anyhow::{Result, bail};
use bytes::{Buf, BufMut};
use conntracker_common::kernel_memory::{BYTES, PIECE_BYTES, PIECES, Reply, Request};

use super::{
    index::memory::{Gone, Memory},
    sys::{self, MappedArray},
};
use crate::os::netns::Netns;

/// Bytes of a reply before its data.
const REPLY_HEADER: usize = 24;

/// A reply before its data; see [`Reply`].
struct Header {
    net: u64,
    task: u64,
    copied: u64,
}

impl Header {
    /// Decodes it; the caller has checked the length.
    fn decode(mut bytes: &[u8]) -> Self {
        let mut word = || bytes.get_u64_ne();
        Self { net: word(), task: word(), copied: word() }
    }
}

/// The program and its two maps.
pub struct KernelMemory {
    program: OwnedFd,
    request: MappedArray,
    reply: MappedArray,
}

impl KernelMemory {
    /// Maps the maps.
    pub(super) fn new(
        program: OwnedFd,
        request: BorrowedFd<'_>,
        reply: BorrowedFd<'_>,
    ) -> Result<Self> {
        Ok(Self {
            program,
            request: MappedArray::new(request, size_of::<Request>())?,
            reply: MappedArray::new(reply, size_of::<Reply>())?,
        })
    }

    /// Address of the `struct net` of a namespace.
    pub fn net(&mut self, netns: &Netns) -> Result<u64> {
        Ok(self.thread(|program| netns.enter(|| sys::run(program)))?.net)
    }

    /// Address of the `struct task_struct` of the calling thread.
    pub fn task(&mut self) -> Result<u64> {
        Ok(self.thread(sys::run)?.task)
    }

    /// The program's answer about the thread that runs it.
    fn thread(&mut self, run: impl FnOnce(BorrowedFd<'_>) -> io::Result<u32>) -> Result<Header> {
        self.ask(&[])?;
        if run(self.program.as_fd())? != 0 {
            bail!("the kernel's memory could not be read");
        }
        Ok(Header::decode(&self.reply.read(REPLY_HEADER)))
    }

    /// Writes a request; returns the number of bytes that it asks for.
    fn ask(&mut self, pieces: &[(u64, u32)]) -> Result<usize> {
        let mut request = Vec::with_capacity(8 + 16 * pieces.len());
        request.put_u64_ne(pieces.len() as u64);
        let mut end = 0;
        for &(address, len) in pieces {
            request.put_u64_ne(address);
            request.put_u32_ne(len);
            request.put_u32_ne(end);
            end += len;
            if len as usize > PIECE_BYTES || end as usize > BYTES {
                bail!("too much kernel memory asked for at once");
            }
        }
        if pieces.len() > PIECES {
            bail!("too many pieces of kernel memory asked for at once");
        }
        self.request.write(&request);
        Ok(end as usize)
    }
}

impl Memory for KernelMemory {
    fn pieces(&mut self, pieces: &[(u64, u32)]) -> Result<Vec<u8>> {
        let len = self.ask(pieces)?;
        let failed = sys::run(self.program.as_fd())?;
        let mut reply = self.reply.read(REPLY_HEADER + len);
        if failed != 0 || Header::decode(&reply).copied != pieces.len() as u64 {
            return Err(Gone.into());
        }
        reply.drain(..REPLY_HEADER);
        Ok(reply)
    }
}
