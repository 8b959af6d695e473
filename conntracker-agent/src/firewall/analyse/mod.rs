//! What a ruleset says by itself: which rules no packet can meet, what moves, which packets two rulesets treat
//! otherwise.
//!
//! In reading order: [`values`] and [`field`] are what conditions are about, [`region`] has conditions on several fields,
//! [`condition`] reads rules as regions, [`cover`] and [`index`] compare regions, [`witness`] makes packets of them.

mod condition;
mod cover;
mod field;
mod index;
mod region;
pub mod shadowed;
mod values;
mod witness;
mod writes;
