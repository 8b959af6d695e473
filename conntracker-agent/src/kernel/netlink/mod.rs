//! Netlink: sockets (neli), the ctnetlink codec, interface names.
//!
//! Reading order: [`wire`] cuts bytes into messages and attributes, [`request`] makes them,
//! [`socket`] moves them, [`exchange`] pairs a request with its answer. On top of these stand
//! [`ctnetlink`] (conntrack entries), [`link`] (interface names) and [`nftables`] (changes of rules).

pub mod ctnetlink;
pub mod exchange;
pub mod link;
pub mod nftables;
pub mod request;
pub mod socket;
pub mod wire;

pub use socket::{Error, Socket};
pub use wire::DecodeError;
