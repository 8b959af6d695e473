//! The nouns: what a tuple, a flow, a path, a filter is, and when two are the same. No I/O, and nothing here knows a
//! ring record, a netlink attribute or a listing.

pub mod counters;
mod drops;
#[cfg(feature = "cli")]
pub mod event;
pub mod filter;
pub mod flow;
#[cfg(feature = "cli")]
pub mod harmless;
pub mod hook;
pub mod loss;
mod mark;
pub mod order;
pub mod path;
pub mod process;
pub mod protocol;
pub mod state;
pub mod status;
pub mod table;
mod time;
pub mod tuple;
mod zone;

pub use drops::{Cause, Clash, ConntrackCause, DropPoint, DroppedAt, Drops};
pub use flow::{Counting, Details, Flow, FlowKey, NetnsId, Origins, ZoneDir};
pub use mark::Mark;
pub use path::Paths;
pub use status::Status;
pub use time::TimeOfDay;
pub use tuple::{L4, Tuple};
pub use zone::Zone;
