//! Where a packet is while it is evaluated, and who answers questions about the host.

use super::routes::Routes;
use crate::model::hook::Hook;

/// The hook that a packet is at, and the host's routes.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Hook.
    pub hook: Hook,
    /// Answers questions about routes.
    pub routes: &'a dyn Routes,
}
