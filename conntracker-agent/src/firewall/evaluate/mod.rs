//! What the firewall would do with a packet: a pure evaluation of the rules that the kernel has, with three values.
//!
//! A [`Packet`] has attributes of which each may be unknown, with the reason ([`unknown`]). Where a rule reads
//! something unknown both possibilities are followed, and the answer is undecided only where they differ.

pub mod context;
pub mod decision;
pub mod header;
pub mod interface;
pub mod packet;
pub mod routes;
pub mod tracking;
pub mod translation;
pub mod unknown;
pub mod word;
pub mod xt;

pub use self::{
    decision::Decision,
    packet::Packet,
    unknown::{Attr, Unknown, UnknownSet},
};
