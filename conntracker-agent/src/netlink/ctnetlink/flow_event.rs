//! An entry as an event of the flow that it is of.

use super::{Entry, Kind};
use crate::model::{ZoneDir, event};

impl From<&Entry<'_>> for event::Entry {
    fn from(entry: &Entry<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            zone: entry.zone,
            orig: entry.orig,
            reply: entry.reply,
            parent: entry.master,
            zone_dir: ZoneDir::of_zones(entry.zone_orig, entry.zone_reply),
            status: entry.status,
            state: entry.state,
            mark: entry.mark,
            timeout: entry.timeout,
            counters: entry.counters,
            id: entry.id,
            use_count: entry.use_count,
            helper: entry.helper.map(text),
            labels: entry.label_numbers().collect(),
            secctx: entry.secctx.map(text),
            start_ns: entry.start,
            stop_ns: entry.stop,
        }
    }
}

impl From<Kind> for event::EntrySource {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::New => Self::NewEvent,
            Kind::Update => Self::UpdateEvent,
            Kind::Destroy => Self::EndEvent,
        }
    }
}
