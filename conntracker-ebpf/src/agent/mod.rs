//! Programs that the agent runs itself, off the packet path: reading kernel memory, and the table of conntrack.

pub mod kernel_memory;
pub mod table;
