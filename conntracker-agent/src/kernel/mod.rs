//! Every contact with the kernel.

pub mod netlink;
