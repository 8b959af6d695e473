//! Interfaces, addresses, routes and rules of routing over rtnetlink(7) (include/uapi/linux/rtnetlink.h).
//!
//! [`dump`] reads all of them, as the bytes that the kernel sends: a recording can keep these. [`objects`] decodes them,
//! then or later. [`pair`] makes interfaces.

pub mod dump;
pub mod objects;
pub mod pair;

#[cfg(test)]
mod tests;
