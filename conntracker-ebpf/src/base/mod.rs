//! What all programs stand on: memory of the kernel, constants of the agent, counters, namespaces, loops.

pub mod counters;
pub mod globals;
pub mod memory;
pub mod mode;
pub mod netns;
pub mod rounds;
