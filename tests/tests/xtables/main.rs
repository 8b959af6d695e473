//! Rules of iptables as the kernel keeps them: what is decoded is what iptables-save writes.
//!
//! `CONNTRACKER_XT_RULES` is the number of rules that are generated for each family and program.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod decoded;
mod equal;
mod options;
mod render;
mod render_target;
