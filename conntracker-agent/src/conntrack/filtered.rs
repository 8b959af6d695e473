//! Filters on entries of conntrack's table.

use crate::model::filter::{CommonFields, Filter};
use crate::netlink::ctnetlink::Entry;

impl Filter {
    /// Whether an entry of conntrack's table passes. Options that only packets can answer ([`Self::of_packets`]) are
    /// ignored.
    #[must_use]
    pub fn allows_entry(&self, entry: &Entry<'_>) -> bool {
        let Entry { orig, reply, zone, status, state, mark, .. } = entry;
        let known =
            CommonFields { reply: reply.as_ref(), status: *status, state: *state, mark: *mark };
        self.allows_tuple(orig, *zone)
            && self.allows_ends(orig, known.reply)
            && self.allows_common(&known)
            && self.label.allows(|wanted| entry.label_numbers().any(|label| label == *wanted))
            && self.helper.allows(|wanted| entry.helper == Some(wanted.as_bytes()))
    }
}
