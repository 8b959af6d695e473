//! A packet: its entry in the table of conntrack, its headers, its route, its socket; and the record that tells of it.

pub mod conntrack;
pub mod dst;
pub mod emit;
pub mod facts;
pub mod hash;
pub mod headers;
pub mod owner;
pub mod task;
pub mod tuple;
pub mod view;
