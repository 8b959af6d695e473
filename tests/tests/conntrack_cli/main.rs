//! `conntracker conntrack` against conntrack(8) of the machine: the same arguments in the same namespace, or in
//! twin namespaces prepared alike.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod callers;
mod commands;
mod entries;
mod events;
mod expectations;
mod fixed;
mod lists;
mod programs;
mod round_trips;
mod table;
mod usage;
mod via_bpf;
