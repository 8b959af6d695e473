//! Flows: what one is, when two are the same, how they are ordered, and the table that merges what
//! the sources say of them. Nothing here touches the kernel.

mod drops;
pub mod filter;
mod model;
pub mod order;
pub mod path;
pub mod process;
pub mod protocol;
pub mod status;
pub mod table;
mod time;
pub mod tuple;

pub use drops::{Cause, Clash, ConntrackCause, DropPlace, DroppedAt, Drops};
pub use model::{Counting, Details, Flow, FlowKey, NetnsId, Origins, ZoneDir};
pub use path::Paths;
pub use status::Status;
pub use table::FlowTable;
pub use time::TimeOfDay;
pub use tuple::{L4, Tuple};
