//! Shows on a terminal how much of the recordings is read.

use std::{
    cell::Cell,
    io::{self, Read},
    time::{Duration, Instant},
};

use super::inputs::Input;
use crate::os::messages;

/// Between two updates.
const EVERY: Duration = Duration::from_millis(200);

/// Bytes of all files, and those that were read.
pub(super) struct Progress {
    bytes: u64,
    read: Cell<u64>,
    shown: Cell<Instant>,
}

/// Counts the bytes that are read.
pub(super) struct Counting<'a, R> {
    from: R,
    progress: &'a Progress,
}

impl Progress {
    pub fn new(inputs: &[Input]) -> Self {
        let length = |input: &Input| match input {
            Input::Stdin => 0,
            Input::File(path) => path.metadata().map_or(0, |meta| meta.len()),
        };
        let bytes = inputs.iter().map(length).sum();
        Self { bytes, read: Cell::new(0), shown: Cell::new(Instant::now()) }
    }

    pub fn counting<R: Read>(&self, from: R) -> Counting<'_, R> {
        Counting { from, progress: self }
    }

    fn add(&self, length: usize) {
        let read = self.read.get() + length as u64;
        self.read.set(read);
        if messages::on_terminal() && self.shown.get().elapsed() >= EVERY {
            self.shown.set(Instant::now());
            let percent = (read * 100).checked_div(self.bytes);
            let percent = percent.map_or_else(String::new, |percent| format!(" ({percent} %)"));
            messages::show_status(format!("reading: {} MiB{percent}", read >> 20));
        }
    }
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(to)?;
        self.progress.add(length);
        Ok(length)
    }
}
