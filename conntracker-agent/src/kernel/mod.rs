//! Every contact with the kernel.

mod ahead;
pub mod bpf;
pub mod netlink;
pub mod netns;
pub mod sockopt;
pub mod watch;
