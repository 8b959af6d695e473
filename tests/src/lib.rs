//! The namespace lab of conntracker's tests, demo and benchmarks.
//!
//! [`lab::Lab`] is a client, a router and a server in network namespaces of their own, and
//! [`traffic`] makes the packets. Nothing here touches the machine's own network, and any number of
//! labs can exist at the same time.

pub mod lab;
pub mod traffic;
