//! Socket options that nix does not have.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Reads an option of SOL_SOCKET whose value has N bytes.
///
/// # Errors
/// Those of getsockopt(2); ENOPROTOOPT if the kernel does not know it. EINVAL if its value is shorter.
pub fn get<const N: usize>(socket: &impl AsFd, option: libc::c_int) -> io::Result<[u8; N]> {
    let mut value = [0u8; N];
    match read(socket, libc::SOL_SOCKET, option, &mut value)? {
        len if len == N => Ok(value),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Reads an option of any level into `value` and returns the number of bytes that the kernel wrote. Some options,
/// those of ip_tables among them, read their request from `value` first.
///
/// # Errors
/// Those of getsockopt(2).
pub fn read(
    socket: &impl AsFd,
    level: libc::c_int,
    option: libc::c_int,
    value: &mut [u8],
) -> io::Result<usize> {
    let mut len = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and the kernel reads and writes at most `len` bytes of `value`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            value.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    match result {
        0 => Ok(len as usize),
        _ => Err(io::Error::last_os_error()),
    }
}
