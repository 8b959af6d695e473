//! What a ruleset says by itself: which rules no packet can meet, what moves, which packets two rulesets treat
//! otherwise.
//!
//! In reading order: `values` and `field` are what conditions are about, `region` has conditions on several fields,
//! `condition` and [`reading`] read rules as regions, `cover` and `index` compare regions, `witness` makes packets of
//! them.

mod condition;
mod cover;
pub mod difference;
mod field;
mod index;
pub mod order;
pub mod reading;
mod region;
pub mod shadowed;
pub mod suggest;
mod values;
mod witness;
mod writes;
