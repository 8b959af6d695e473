//! Every contact with the kernel.

mod ahead;
pub mod bpf;
pub mod descriptors;
pub mod netlink;
pub mod netns;
pub mod sockopt;
pub mod threads;
pub mod watch;
