//! Keys of groups that stay while flows come and go.

use typed_arena::Arena;

use super::keys::KeyText;
use crate::{model::path::Site, report::text::marks::By};

/// Names and sites that keys refer to, each once.
#[derive(Default)]
pub(in crate::report) struct KeptKeys {
    names: Arena<u8>,
    sites: Arena<Site>,
}

impl KeptKeys {
    /// The same key, of names that stay.
    pub fn keep(&self, key: KeyText<'_>) -> KeyText<'_> {
        match key {
            KeyText::Name(name) => KeyText::Name(self.names.alloc_str(name)),
            KeyText::User(uid, name) => {
                KeyText::User(uid, name.map(|name| &*self.names.alloc_str(name)))
            }
            KeyText::Rule(site) => KeyText::Rule(self.sites.alloc(site.clone())),
            KeyText::Address(address) => KeyText::Address(address),
            KeyText::Service(port, proto) => KeyText::Service(port, proto),
            KeyText::Protocol(proto) => KeyText::Protocol(proto),
            KeyText::Zone(zone) => KeyText::Zone(zone),
            KeyText::Reason(cause) => KeyText::Reason(cause),
            KeyText::Mark(value, mask) => KeyText::Mark(value, mask),
            KeyText::UnknownRule => KeyText::UnknownRule,
            KeyText::None => KeyText::None,
        }
    }

    /// The same rule or chain, which stays.
    pub fn keep_setter(&self, by: By<'_>) -> By<'_> {
        let kept = |site: &Site| &*self.sites.alloc(site.clone());
        match by {
            By::Rule(site) => By::Rule(kept(site)),
            By::Chain(site) => By::Chain(kept(site)),
            By::Table(site) => By::Table(kept(site)),
            By::Unknown => By::Unknown,
        }
    }
}
