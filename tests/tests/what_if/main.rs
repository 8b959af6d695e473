//! `report --against`: a firewall is traced, the prediction is made, the other rules are loaded, the same traffic is sent
//! again: what was predicted to change has changed, and nothing else.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod observed;
mod pairs;
mod single;
