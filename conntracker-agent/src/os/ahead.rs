//! Two threads that share buffers: one receives from the kernel while the other reads what was received before.

use std::sync::mpsc::{channel, sync_channel};
use std::{io, thread};

/// Starts a thread that fills `buffers` again and again while the calling thread empties them in the same order.
/// `fill` says whether there is more. Buffers filled before an error of `fill` are emptied; an error of `empty` ends
/// both threads.
///
/// # Errors The outer error: the kernel refused a thread, and nothing was done.
pub fn ahead<B: Send, F: Send, E: From<F>>(
    buffers: Vec<B>,
    mut fill: impl FnMut(&mut B) -> Result<bool, F> + Send,
    mut empty: impl FnMut(&mut B) -> Result<(), E>,
) -> io::Result<Result<(), E>> {
    let (full, to_empty) = sync_channel(buffers.len());
    let (emptied, to_fill) = channel();
    for buffer in buffers {
        // The other end is below.
        let _ = emptied.send(buffer);
    }
    let fill_all = move || {
        for mut buffer in to_fill {
            let filled = fill(&mut buffer);
            let read = full.send(buffer);
            if !filled? || read.is_err() {
                break;
            }
        }
        Ok(())
    };
    thread::scope(move |scope| {
        let filling = thread::Builder::new().spawn_scoped(scope, fill_all)?;
        // When this loop ends, for whatever reason, both channels are closed, so the thread ends too.
        for mut buffer in to_empty {
            if let Err(error) = empty(&mut buffer) {
                return Ok(Err(error));
            }
            let _ = emptied.send(buffer);
        }
        match filling.join() {
            Ok(filled) => Ok(filled.map_err(E::from)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Empties buffers that are filled with 1, 2, …, of which the fifth is the last or fails.
    fn run(fails: bool, until: u32) -> (Vec<u32>, Result<(), &'static str>) {
        let mut next = 0;
        let mut seen = Vec::new();
        let fill = |buffer: &mut u32| {
            next += 1;
            *buffer = next;
            if next == 5 && fails { Err("failed") } else { Ok(next < 5) }
        };
        let empty = |buffer: &mut u32| {
            seen.push(*buffer);
            if *buffer < until { Ok(()) } else { Err("enough") }
        };
        let result = ahead(vec![0; 2], fill, empty).unwrap();
        (seen, result)
    }

    #[test]
    fn all_are_emptied_in_order_also_before_an_error_of_either_side() {
        assert_eq!(run(false, 9), (vec![1, 2, 3, 4, 5], Ok(())));
        assert_eq!(run(true, 9), (vec![1, 2, 3, 4, 5], Err("failed")));
        assert_eq!(run(false, 2), (vec![1, 2], Err("enough")));
    }
}
