//! What a rule asks NAT to do.

use std::net::IpAddr;

use super::unknown::Attr;

/// How the new address is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TranslationKind {
    /// `snat`: a new source.
    Source,
    /// `dnat`: a new destination.
    Destination,
    /// `masquerade`: the address of the interface of output as source.
    Masquerade,
    /// `redirect`: this host as destination.
    Redirect,
}

/// A translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Translation {
    /// How.
    pub kind: TranslationKind,
    /// The first and the last address; `None`: addresses stay.
    pub addresses: Option<[Attr<IpAddr>; 2]>,
    /// The first and the last port; `None`: ports stay where they can.
    pub ports: Option<[Attr<u16>; 2]>,
    /// NF_NAT_RANGE_ flags: random and fully random ports, persistent addresses, networks.
    pub flags: u32,
}
