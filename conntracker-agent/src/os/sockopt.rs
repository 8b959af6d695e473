//! Socket options that nix does not have.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Reads an option of SOL_SOCKET whose value has N bytes.
///
/// # Errors
/// Those of getsockopt(2); ENOPROTOOPT if the kernel does not know it. EINVAL if its value is shorter.
pub fn get<const N: usize>(socket: &impl AsFd, option: libc::c_int) -> io::Result<[u8; N]> {
    let mut value = [0u8; N];
    let mut len = N as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes at most `len` bytes to `value`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            value.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    match result {
        0 if len as usize == N => Ok(value),
        0 => Err(io::ErrorKind::InvalidInput.into()),
        _ => Err(io::Error::last_os_error()),
    }
}
