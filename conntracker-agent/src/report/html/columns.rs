//! Columns of the document: numbers or JSON, deflated, as base64.

use std::io::{self, BufWriter, Write};

use base64::{engine::general_purpose::STANDARD, write::EncoderWriter};
use flate2::{Compression, write::DeflateEncoder};
use serde::Serialize;

/// Numbers are collected to so many bytes before they are deflated.
const BUFFER: usize = 16 * 1024;

/// Writes columns: each an element of its own, which no browser takes for a script.
pub(super) struct Columns<'a> {
    out: &'a mut dyn Write,
}

impl<'a> Columns<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out }
    }

    /// Writes a value as JSON.
    pub(super) fn json(&mut self, name: &str, value: &impl Serialize) -> io::Result<()> {
        self.column(name, "json", |column| Ok(serde_json::to_writer(column, value)?))
    }

    /// Writes numbers: seven bits to a byte, the lowest first; the highest bit says that more follow.
    pub(super) fn numbers(
        &mut self,
        name: &str,
        numbers: impl IntoIterator<Item = u64>,
    ) -> io::Result<()> {
        self.column(name, "numbers", |column| {
            numbers.into_iter().try_for_each(|number| varint(number, column))
        })
    }

    fn column(
        &mut self,
        name: &str,
        kind: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        write!(self.out, "<script type=\"application/octet-stream\" data-{kind}=\"{name}\">")?;
        let base64 = EncoderWriter::new(&mut *self.out, &STANDARD);
        let mut column =
            BufWriter::with_capacity(BUFFER, DeflateEncoder::new(base64, Compression::default()));
        write(&mut column)?;
        let deflate = column.into_inner().map_err(io::IntoInnerError::into_error)?;
        deflate.finish()?.finish()?;
        self.out.write_all(b"</script>\n")
    }
}

fn varint(mut number: u64, out: &mut dyn Write) -> io::Result<()> {
    let mut bytes = [0; 10];
    let mut length = 0;
    for byte in &mut bytes {
        length += 1;
        *byte = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            break;
        }
        *byte |= 0x80;
    }
    out.write_all(&bytes[..length])
}

/// A number that may be negative as one that is small if it is near 0.
pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}
