//! Loops of many rounds. An ordinary one the verifier would walk round by round; of these it walks a
//! single round, in a function that the kernel calls back.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_for_each_map_elem, bpf_loop},
    macros::map,
    maps::Array,
};

use conntracker_common::loops;

use crate::base::globals::how_to_loop;

/// A loop.
pub trait Rounds {
    /// What its rounds work on.
    type Context;

    /// How many rounds there are, at most as many as [`ROUNDS`] has elements.
    fn number(context: &Self::Context) -> u32;

    /// One round, the first is 0. False ends the loop.
    fn round(context: &mut Self::Context, index: u32) -> bool;
}

/// An element for each round, where there is no bpf_loop: going over the elements of a map is a loop,
/// too. The agent says how many there are; what they are is of no interest.
#[map]
static ROUNDS: Array<u64> = Array::with_max_entries(1, 0);

/// Runs a loop; false where the kernel has no way to.
#[inline(always)]
pub fn run<L: Rounds>(context: &mut L::Context) -> bool {
    let number = L::number(context);
    let context: *mut L::Context = context;
    match how_to_loop() {
        loops::BY_NUMBER => {
            let callback: unsafe extern "C" fn(_, _) -> _ = by_number::<L>;
            // SAFETY: the callback has the type that the helper asks for, and gets the context.
            unsafe { bpf_loop(number, callback as *mut c_void, context.cast(), 0) };
        }
        loops::BY_ELEMENT => {
            let callback: unsafe extern "C" fn(_, _, _, _) -> _ = by_element::<L>;
            let map = (&raw const ROUNDS).cast_mut().cast();
            // SAFETY: as above.
            unsafe { bpf_for_each_map_elem(map, callback as *mut c_void, context.cast(), 0) };
        }
        _ => return false,
    }
    true
}

/// A round of bpf_loop; 0 goes on, 1 ends.
unsafe extern "C" fn by_number<L: Rounds>(index: u32, context: *mut L::Context) -> i64 {
    // SAFETY: the context that `run` passed.
    let context = unsafe { &mut *context };
    i64::from(!L::round(context, index))
}

/// A round of bpf_for_each_map_elem. The map may have more elements than the loop has rounds.
unsafe extern "C" fn by_element<L: Rounds>(
    _map: *mut c_void,
    key: *const u32,
    _value: *mut u64,
    context: *mut L::Context,
) -> i64 {
    // SAFETY: the key of an element, and the context that `run` passed.
    let (index, context) = unsafe { (*key, &mut *context) };
    i64::from(index >= L::number(context) || !L::round(context, index))
}
