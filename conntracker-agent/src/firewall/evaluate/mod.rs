//! What the firewall would do with a packet: a pure evaluation of the rules that the kernel has, with three values.
//!
//! A [`Packet`] has attributes of which each may be unknown, with the reason ([`unknown`]). Where a rule reads
//! something unknown both possibilities are followed, and the answer is undecided only where they differ.

mod alone;
mod bytes;
mod chain;
mod classes;
pub mod code;
pub(super) mod compiled;
mod compute;
pub mod context;
pub mod decision;
mod effect;
pub(super) mod elements;
mod entry;
mod fib;
pub mod header;
mod hook;
pub mod interface;
mod ip_tables;
pub mod journey;
mod metadata;
mod nat;
mod order;
pub mod packet;
mod payload;
mod registers;
pub mod routes;
pub mod routing_tables;
mod rule;
mod ruleset;
pub mod single;
pub mod state;
mod statement;
pub mod tracking;
pub mod translation;
pub mod unknown;
pub mod word;
pub mod xt;

#[cfg(test)]
mod tests;

pub use self::{
    alone::{BaseHook, evaluate_at, evaluate_chain, evaluate_hook},
    classes::Classes,
    decision::Decision,
    hook::Part,
    journey::{Evaluation, Origin, evaluate},
    packet::Packet,
    ruleset::Firewall,
    unknown::{Attr, Unknown, UnknownSet},
};
