//! The nouns: tuples, flows, paths and filters, and when two of them are equal. Nothing here does I/O or knows ring
//! records, netlink attributes or listings of rules.

pub mod counters;
mod drops;
#[cfg(feature = "cli")]
pub mod event;
pub mod filter;
pub mod flow;
#[cfg(feature = "cli")]
mod flow_bytes;
#[cfg(feature = "cli")]
pub mod harmless;
pub mod hook;
#[cfg(feature = "cli")]
mod intern;
pub mod loss;
mod mark;
pub mod order;
#[cfg(feature = "cli")]
pub mod other;
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
#[cfg(feature = "cli")]
pub(crate) use flow_bytes::FlowBytes;
#[cfg(feature = "cli")]
pub(crate) use intern::intern_name;
pub use mark::Mark;
pub use path::Paths;
pub use status::Status;
pub use time::TimeOfDay;
pub use tuple::{L4, Tuple};
pub use zone::Zone;
