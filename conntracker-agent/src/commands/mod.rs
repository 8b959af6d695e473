//! The commands. Only they print messages and choose exit codes.

pub mod diff;
pub mod doctor;
pub mod dump;
pub mod explain;
pub mod report;
pub mod rules;
pub mod status;
pub mod table;
pub mod trace;
pub mod what_if;
