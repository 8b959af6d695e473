//! Flows: what one is, when two are the same, how they are ordered, and the table that merges what
//! the sources say of them. Nothing here touches the kernel.

pub mod status;
pub mod tuple;

pub use status::Status;
pub use tuple::{L4, Tuple};
