//! The operating system without BPF and netlink: namespaces, the clock, processes, files, messages to the user.

#[cfg(feature = "cli")]
pub mod agent_socket;
pub(crate) mod ahead;
#[cfg(feature = "cli")]
pub mod clock;
#[cfg(feature = "cli")]
pub mod daemon;
#[cfg(feature = "cli")]
pub mod descriptors;
#[cfg(feature = "cli")]
pub(crate) mod event_loop;
#[cfg(feature = "cli")]
pub(crate) mod memory;
#[cfg(feature = "cli")]
pub mod messages;
#[cfg(feature = "cli")]
pub mod netns;
#[cfg(feature = "cli")]
pub mod output;
#[cfg(feature = "cli")]
pub mod signals;
pub mod sockopt;
#[cfg(feature = "cli")]
pub mod threads;
#[cfg(feature = "tokio")]
pub mod watch;
