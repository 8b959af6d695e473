//! Flows: that begin, are answered, end; and packets that are dropped or lost.

pub mod confirm;
pub mod drop_counts;
pub mod drops;
pub mod ends;
pub mod seen;
pub mod stats;
