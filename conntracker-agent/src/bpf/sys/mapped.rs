//! Maps in our own memory.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
};

/// The one value of an array map, mapped into our memory (BPF_F_MMAPABLE, Linux 5.5+).
#[derive(Debug)]
pub struct MappedArray {
    address: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory that is accessed through `&mut self` alone.
unsafe impl Send for MappedArray {}

impl MappedArray {
    /// Maps a value of `len` bytes.
    pub fn new(map: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        // SAFETY: a new mapping somewhere; nothing that exists is touched.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        match NonNull::new(address.cast()) {
            Some(address) => Ok(Self { address, len }),
            None => Err(io::Error::other("mapped at address 0")),
        }
    }

    /// Writes at the beginning; bytes beyond the end are left out.
    pub fn write(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(self.len);
        // SAFETY: the mapping has at least `len` bytes and is ours; the program that reads it runs only
        // within a system call of ours.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.address.as_ptr(), len) }
    }

    /// The whole value. `&mut self` keeps the caller from running a program that writes there meanwhile.
    pub fn bytes(&mut self) -> &[u8] {
        // SAFETY: as in `write`; nobody writes while the borrow lasts.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.len) }
    }

    /// Copies the beginning; zeros behind its end.
    pub fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let len = len.min(self.len);
        bytes[..len].copy_from_slice(&self.bytes()[..len]);
        bytes
    }
}

impl Drop for MappedArray {
    fn drop(&mut self) {
        // SAFETY: our mapping, which nothing refers to any more.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.len) };
    }
}
