//! `conntracker rules shadowed`, `unused`, `diff`, `order` and `suggest`: what they say of rules, compared with what the
//! kernel does with packets.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod difference;
mod order;
mod shadowed;
mod suggest;
mod unused;
