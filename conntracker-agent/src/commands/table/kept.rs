//! Entries that outlive the receive buffer.

use crate::{conntrack::Entry, netlink::wire::DecodeError};

/// An entry that is kept.
pub(super) enum Kept {
    /// The attributes from netlink, which take a third of the size of a decoded entry and are decoded again on use.
    Attributes { family: u8, raw: Box<[u8]> },
    /// The fields from the kernel's memory, which has no attributes.
    Fields(Box<Fields>),
}

/// An entry, and the bytes that it borrows.
pub(super) struct Fields {
    /// Without what it borrows.
    entry: Entry<'static>,
    secctx: Option<Box<[u8]>>,
    helper: Option<Box<[u8]>>,
    helper_info: Option<Box<[u8]>>,
    labels: Option<Box<[u8]>>,
}

impl Kept {
    /// Keeps an entry.
    pub fn new(entry: &Entry<'_>) -> Self {
        // A message always has attributes, those of a tuple.
        if entry.raw.is_empty() {
            Self::Fields(Box::new(Fields::new(entry)))
        } else {
            Self::Attributes { family: entry.family, raw: entry.raw.into() }
        }
    }

    /// The entry again.
    pub fn entry(&self) -> Result<Entry<'_>, DecodeError> {
        match self {
            Self::Attributes { family, raw } => Entry::of_attributes(*family, raw),
            Self::Fields(fields) => Ok(fields.entry()),
        }
    }
}

impl Fields {
    fn new(entry: &Entry<'_>) -> Self {
        // The pattern names every field, so that the compiler reports a new one that is missing here.
        let fields = Entry {
            family: entry.family,
            orig: entry.orig,
            reply: entry.reply,
            master: entry.master,
            zone: entry.zone,
            zone_orig: entry.zone_orig,
            zone_reply: entry.zone_reply,
            status: entry.status,
            timeout: entry.timeout,
            mark: entry.mark,
            secmark: entry.secmark,
            secctx: None,
            id: entry.id,
            use_count: entry.use_count,
            counters: entry.counters,
            start: entry.start,
            stop: entry.stop,
            timestamp_event: entry.timestamp_event,
            helper: None,
            helper_info: None,
            labels: None,
            state: entry.state,
            seqadj: entry.seqadj,
            synproxy: entry.synproxy,
            unknown: entry.unknown,
            raw: &[],
        };
        Self {
            entry: fields,
            secctx: entry.secctx.map(Into::into),
            helper: entry.helper.map(Into::into),
            helper_info: entry.helper_info.map(Into::into),
            labels: entry.labels.map(Into::into),
        }
    }

    fn entry(&self) -> Entry<'_> {
        let Self { entry, secctx, helper, helper_info, labels } = self;
        Entry {
            secctx: secctx.as_deref(),
            helper: helper.as_deref(),
            helper_info: helper_info.as_deref(),
            labels: labels.as_deref(),
            ..*entry
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::wire::Messages;

    #[test]
    fn an_entry_is_the_same_again_with_and_without_attributes() {
        let dump = include_bytes!("../../netlink/ctnetlink/fixtures/dump.bin");
        let mut seen = 0;
        for message in Messages::new(dump).flatten() {
            let Ok(entry) = Entry::decode(message.payload) else { continue };
            assert_eq!(Kept::new(&entry).entry(), Ok(entry));
            let (helper, labels) = (Some(&b"ftp"[..]), Some(&[1; 16][..]));
            let read = Entry { raw: &[], helper, labels, ..entry };
            assert_eq!(Kept::new(&read).entry(), Ok(read));
            seen += 1;
        }
        assert_eq!(seen, 17);
    }

    #[test]
    fn what_cannot_be_decoded_again_is_an_error() {
        let raw = Box::new([8, 0, 1]);
        assert!(Kept::Attributes { family: 2, raw }.entry().is_err());
    }
}
