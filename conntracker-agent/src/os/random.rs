//! Random bytes.

use std::{
    fs::File,
    io::{self, Read},
};

/// As many random bytes, which nobody can predict.
///
/// # Errors
/// The kernel's generator cannot be opened: there is no /dev.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
