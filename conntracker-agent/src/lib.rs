//! Which flows exist on this firewall, and what became of them, without a TRACE rule.
//!
//! # For programs
//!
//! Without the feature `cli` this crate is a library for conntrack's table: [`Conntrack`] lists, makes, changes and
//! removes entries, and tells what happens to them. It needs Linux and CAP_NET_ADMIN, neither aya nor clap, and
//! tokio only with the feature `tokio`. [`mod@conntrack`] has an overview of its calls.
//!
//! ```toml
//! conntracker = { git = "…", default-features = false }
//! ```
//!
//! What flows there are, and how many of them were not answered:
//!
//! ```no_run
//! use conntracker::conntrack::{Conntrack, DumpRequest, Error};
//! use conntracker::model::Status;
//!
//! fn main() -> Result<(), Error> {
//!     let mut conntrack = Conntrack::connect()?;
//!     // What the kernel can pick out, it does: IPv4 alone.
//!     let mut dump = conntrack.dump_filtered(&DumpRequest::default().family(2))?;
//!     let mut unanswered = 0;
//!     while let Some(entry) = dump.next()? {
//!         unanswered += u32::from(!entry.status.contains(Status::SEEN_REPLY));
//!         println!("{} -> {} {:?}", entry.orig.src, entry.orig.dst, entry.orig.l4);
//!     }
//!     println!("{unanswered} of {} flows were not answered", dump.stats().entries);
//!     Ok(())
//! }
//! ```
//!
//! Structures and enumerations may get more members and variants, with what kernels learn to tell: they are
//! `#[non_exhaustive]`, and what a program makes of them has methods to make it with
//! (`DumpRequest::default().family(2)`). Nothing else is promised before version 1.0; docs/api.txt is the whole API,
//! and CHANGELOG.md says what changed in it.
//!
//! # Rooms
//!
//! Each module is a room, and imports only from those below it (`cargo xtask lint` checks that; the table is in
//! xtask/src/lint/rooms.rs). From the top:
//!
//! - `conntrack8` is the command line of conntrack(8), `commands` are those of conntracker;
//! - `live` is a live run: the loop, the schedule, namespaces that come and go;
//! - `capture` has the backends, and traces rules;
//! - `report` is what is printed;
//! - `recording` is the file from which every offline answer is made;
//! - `flowtable` merges what the sources tell into flows;
//! - [`mod@conntrack`] is the library's front door to the kernel's table;
//! - `bpf` loads programs, reads kernel memory and decodes records, [`netlink`] speaks to ctnetlink and nf_tables;
//! - `attribution` finds the rules that packets met, in a `firewall`, which is the ruleset as data;
//! - `os` is everything else of the operating system: namespaces, the clock, files, processes;
//! - [`model`] has the nouns: tuples, flows, paths, filters. It does no I/O.
//!
//! Without the feature `cli` there are [`mod@conntrack`], [`netlink`] and [`model`] alone.

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
#[cfg(feature = "cli")]
pub mod os;
#[cfg(not(feature = "cli"))]
mod os;
#[cfg(feature = "cli")]
pub mod recording;
#[cfg(feature = "cli")]
pub mod report;

pub use conntrack::Conntrack;
