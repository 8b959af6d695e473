//! Which flows exist on this firewall, and what became of them, without a TRACE rule.
//!
//! Each module is a room, and imports only from those below it (`cargo xtask lint` checks that; the table is in
//! xtask/src/lint/rooms.rs). From the top:
//!
//! - [`conntrack8`] is the command line of conntrack(8), [`commands`] are those of conntracker;
//! - [`live`] is a live run: the loop, the schedule, namespaces that come and go;
//! - [`capture`] has the backends, and traces rules;
//! - [`report`] is what is printed;
//! - [`flowtable`] merges what the sources tell into flows;
//! - [`mod@conntrack`] is the library's front door to the kernel's table;
//! - [`bpf`] loads programs, reads kernel memory and decodes records, [`netlink`] speaks to ctnetlink and nf_tables;
//! - [`attribution`] finds the rules that packets met, in a [`firewall`], which is the ruleset as data;
//! - [`os`] is everything else of the operating system: namespaces, the clock, files, processes;
//! - [`model`] has the nouns: tuples, flows, paths, filters. It does no I/O.
//!
//! Without the feature `cli` there are [`mod@conntrack`], [`netlink`] and [`model`] alone, for programs that read or
//! change conntrack's table: they need neither aya nor clap, and tokio only with the feature `tokio`.

#[cfg(feature = "cli")]
pub mod attribution;
#[cfg(feature = "cli")]
pub mod bpf;
#[cfg(feature = "cli")]
pub mod capture;
#[cfg(feature = "cli")]
pub mod commands;
pub mod conntrack;
#[cfg(feature = "cli")]
pub mod conntrack8;
#[cfg(feature = "cli")]
pub mod firewall;
#[cfg(feature = "cli")]
pub mod flowtable;
#[cfg(feature = "cli")]
pub mod live;
pub mod model;
pub mod netlink;
pub mod os;
#[cfg(feature = "cli")]
pub mod report;

pub use conntrack::Conntrack;
