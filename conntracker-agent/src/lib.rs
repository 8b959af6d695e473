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

pub mod attribution;
pub mod bpf;
pub mod capture;
pub mod commands;
pub mod conntrack;
pub mod conntrack8;
pub mod firewall;
pub mod flowtable;
pub mod live;
pub mod model;
pub mod netlink;
pub mod os;
pub mod report;

pub use conntrack::Conntrack;
