//! The sources of live flows: BPF programs that see packets (`links`, `probes`), or conntrack's dumps and events
//! (`netlink`); and the rules that the packets met ([`tracing`]).

pub mod backend;
mod config;
mod dropped;
pub(crate) mod dumps;
mod events;
mod hurry;
mod intake;
pub(crate) mod interfaces;
pub(crate) mod kernel;
pub(crate) mod owners;
mod packets;
pub(crate) mod statistics;
pub mod tracing;

pub use self::{
    config::{BackendChoice, Config, NetnsChoice},
    hurry::Hurry,
};
pub(crate) use self::{
    dropped::{DroppedEvent, DroppedQueue},
    intake::{Intake, Tally, drain_all},
};
