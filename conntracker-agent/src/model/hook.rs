//! Hooks of netfilter.

use serde::Serialize;

/// A hook, in display order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Hook {
    /// Of a device, before everything else.
    Ingress,
    /// Everything that came in.
    Prerouting,
    /// For this host.
    Input,
    /// For others.
    Forward,
    /// From this host.
    Output,
    /// Everything that goes out.
    Postrouting,
    /// Of a device, after everything else.
    Egress,
}

impl Hook {
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
