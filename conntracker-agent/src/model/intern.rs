//! Names that live as long as the process.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

/// Names of reasons and functions that are kept, and their length: the kernel has a few hundred reasons, and as many
/// functions that drop packets. A damaged or hostile file may have more.
const MOST_NAMES: usize = 16_384;
const LONGEST_NAME: usize = 512;

/// A name that lives as long as the process: equal names are one.
pub(crate) fn intern_name(name: &str) -> &'static str {
    static NAMES: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let names = names.get_or_insert_default();
    if let Some(interned) = names.get(name) {
        return interned;
    }
    if names.len() >= MOST_NAMES || name.len() > LONGEST_NAME {
        return "(one of too many names)";
    }
    let interned: &'static str = Box::leak(name.to_owned().into_boxed_str());
    names.insert(interned);
    interned
}
