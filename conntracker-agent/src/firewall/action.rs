//! The actions of rules.

use serde::Serialize;

/// What a rule can do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Lets it pass this base chain.
    Accept,
    /// Drops it.
    Drop,
    /// Drops it and sends an answer.
    Reject,
    /// Goes to another chain and comes back.
    Jump,
    /// Goes to another chain for good.
    Goto,
    /// Leaves the chain.
    Return,
    /// Gives it to a program.
    Queue,
    /// Translates an address and lets it pass.
    Nat,
    /// Answers the handshake in place of the server.
    Synproxy,
    /// Sends it out of a device (netdev).
    Forward,
    /// An action that this version does not know.
    Unknown,
}

/// How a rule goes to another chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// The packet returns to the next rule after the end of that chain.
    Jump,
    /// The packet leaves that chain to where the end of this chain would lead.
    Goto,
}

/// A chain that a rule can go to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Target {
    /// How.
    pub via: Via,
    /// Name of a chain of the same table.
    pub chain: String,
}
