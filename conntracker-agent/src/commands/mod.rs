//! What conntracker does for each of its commands: messages and exit codes are said here alone.

pub mod doctor;
pub mod dump;
pub mod rules;
pub mod table;
pub mod trace;
