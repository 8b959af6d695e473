//! The operating system, but for BPF and netlink: namespaces, the clock, processes, files, what is said to the user.

pub(crate) mod ahead;
pub mod clock;
pub mod daemon;
pub mod descriptors;
pub mod messages;
pub mod netns;
pub mod output;
pub mod signals;
pub mod sockopt;
pub mod threads;
pub mod watch;
