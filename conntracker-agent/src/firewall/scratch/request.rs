//! What the child process is asked, and what it answers.

use serde::{Deserialize, Serialize};

use super::file::RulesFile;

/// What it is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// Interfaces of the host: index and name; `None` if no host is known.
    pub interfaces: Option<Vec<(u32, String)>>,
    /// Tables of nf_tables that are loaded today.
    pub blocks: Vec<Block>,
    /// The host has rules of iptables-legacy.
    pub legacy: bool,
    /// Files, in order.
    pub files: Vec<RulesFile>,
}

/// A table that is loaded today.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Block {
    /// Family as nft has it.
    pub family: String,
    /// Name.
    pub name: String,
    /// In nft's notation; `None` if nft cannot load what it prints.
    pub text: Option<String>,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    /// What the programs printed that list rules, with their command lines.
    pub printed: Vec<(String, String)>,
    /// As [`crate::firewall::objects::KernelObjects`] has them.
    pub nf_tables: Vec<u8>,
    pub ip_tables: Vec<u8>,
    pub routing: Vec<u8>,
    pub missing: Vec<String>,
    /// Interfaces that files name and no host has.
    pub invented: Vec<String>,
}
