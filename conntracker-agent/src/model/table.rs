//! What identifies a table of the firewall: its family, the part of the kernel that holds it, and its name.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Address family of a table (nft(8), "Address families"), in the order of that page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// IPv4 and IPv6.
    Inet,
    /// ARP.
    Arp,
    /// Frames that cross a bridge.
    Bridge,
    /// Frames at one device, before or after everything else.
    Netdev,
}

impl Family {
    /// By its number (NFPROTO_ of include/uapi/linux/netfilter.h). Others than these have no tables.
    #[must_use]
    pub fn of_number(number: u8) -> Self {
        match number {
            2 => Self::Ip,
            3 => Self::Arp,
            5 => Self::Netdev,
            7 => Self::Bridge,
            10 => Self::Ip6,
            // 1.
            _ => Self::Inet,
        }
    }

    /// By its name in nft.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "ip" => Self::Ip,
            "ip6" => Self::Ip6,
            "inet" => Self::Inet,
            "arp" => Self::Arp,
            "bridge" => Self::Bridge,
            "netdev" => Self::Netdev,
            _ => return None,
        })
    }

    /// Its name in nft.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            Self::Arp => "arp",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
        }
    }
}

/// The part of the kernel that holds a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Backend {
    /// nf_tables: nft and iptables-nft.
    Nft,
    /// ip_tables and ip6_tables: iptables-legacy.
    Legacy,
}

impl Backend {
    /// What tells tables of one name apart.
    fn mark(self) -> &'static str {
        match self {
            Self::Nft => "(nft)",
            Self::Legacy => "(legacy)",
        }
    }
}

/// What trace lines call a table: `filter` for one of iptables-nft, `filter (legacy)` for one of
/// iptables-legacy, `inet fw4` for others.
#[must_use]
pub fn label(backend: Backend, family: Family, iptables: bool, name: &str) -> Cow<'_, str> {
    match (backend, iptables) {
        (Backend::Legacy, _) => Cow::Owned(format!("{name} {}", backend.mark())),
        (Backend::Nft, true) => Cow::Borrowed(name),
        (Backend::Nft, false) => Cow::Owned(format!("{} {name}", family.name())),
    }
}

/// What follows the name of this table in `text`, for each form of the name that `text` begins with: its name, or
/// family and name, each with or without its backend (`filter`, `ip filter`, `filter (legacy)`, `filter (nft)`).
/// Names may hold any character, so a text can only be split by comparing it with a table.
pub(crate) fn after_table<'a>(
    text: &'a str,
    backend: Backend,
    family: Family,
    name: &str,
) -> impl Iterator<Item = &'a str> {
    let qualified = text.strip_prefix(family.name()).and_then(|rest| rest.strip_prefix(' '));
    let named = [Some(text), qualified].into_iter().flatten();
    let rests = named.filter_map(move |text| text.strip_prefix(name));
    rests.flat_map(move |rest| {
        let marked = rest.strip_prefix(' ').and_then(|rest| rest.strip_prefix(backend.mark()));
        [Some(rest), marked].into_iter().flatten()
    })
}
