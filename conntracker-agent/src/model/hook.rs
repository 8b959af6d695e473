//! Hooks of netfilter.

use conntracker_common::hook;
use serde::{Deserialize, Serialize};

/// A hook, in display order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Hook {
    /// Packets of one device, before all other hooks.
    Ingress,
    /// Received packets, before they are routed.
    Prerouting,
    /// Packets for this host.
    Input,
    /// Packets that are forwarded.
    Forward,
    /// Packets from this host.
    Output,
    /// Routed packets that leave this host.
    Postrouting,
    /// Packets of one device, after all other hooks.
    Egress,
}

impl Hook {
    /// The hooks of IPv4, IPv6 and inet by their numbers (`enum nf_inet_hooks`).
    pub const BY_NUMBER: [Self; hook::HOOKS as usize + 1] = {
        let mut hooks = [Self::Ingress; _];
        hooks[hook::PRE_ROUTING as usize] = Self::Prerouting;
        hooks[hook::LOCAL_IN as usize] = Self::Input;
        hooks[hook::FORWARD as usize] = Self::Forward;
        hooks[hook::LOCAL_OUT as usize] = Self::Output;
        hooks[hook::POST_ROUTING as usize] = Self::Postrouting;
        hooks
    };

    /// By its name in nft.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "ingress" => Self::Ingress,
            "prerouting" => Self::Prerouting,
            "input" => Self::Input,
            "forward" => Self::Forward,
            "output" => Self::Output,
            "postrouting" => Self::Postrouting,
            "egress" => Self::Egress,
            _ => return None,
        })
    }

    /// Its name in nft.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Egress => "egress",
        }
    }
}
