//! The namespace lab of conntracker's tests, demo and benchmarks.
//!
//! [`lab::Lab`] is a client, a router and a server in network namespaces of their own, and
//! [`traffic`] makes the packets. Nothing here touches the machine's own network, and any number of
//! labs can exist at the same time. [`tracer`] runs the program under test, and reads what it and
//! conntrack(8) say into flows that can be compared.

pub mod browser;
pub mod burst;
pub mod disk;
pub mod drain;
pub mod flood;
pub mod lab;
pub mod memory;
pub mod oracle;
pub mod programs;
pub mod rulesets;
pub mod tracer;
pub mod traffic;
pub mod trial;

/// Whether less of what takes long is asked for (`CONNTRACKER_TESTS=quick`, as in CI).
#[must_use]
pub fn is_quick() -> bool {
    std::env::var("CONNTRACKER_TESTS").as_deref() == Ok("quick")
}
