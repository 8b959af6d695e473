//! Values that are written as they stand, without a copy of them being made first.

use serde::{Serialize, Serializer};

use crate::{
    flow::Status,
    kernel::netlink::ctnetlink::{ProtoState, label_numbers},
    report::names,
};

/// A time, nanoseconds since the epoch.
pub(super) struct Time(pub u64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&names::time(self.0))
    }
}

/// The names whose condition holds.
pub(super) struct Set<const N: usize>(pub [(&'static str, bool); N]);

impl<const N: usize> Set<N> {
    pub(super) fn is_empty(&self) -> bool {
        !self.0.iter().any(|(_, holds)| *holds)
    }
}

impl<const N: usize> Serialize for Set<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().filter_map(|(name, holds)| holds.then_some(name)))
    }
}

/// Names of status bits.
pub(super) struct StatusNames(pub Status);

impl Serialize for StatusNames {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.names())
    }
}

/// The state of a protocol: its name in lower case, or the number of what has none here.
pub(super) struct State(pub ProtoState);

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut buffer = [0; 32];
        let name = self.0.name().map(str::as_bytes);
        let lower = name.and_then(|name| {
            let lower = buffer.get_mut(..name.len())?;
            lower.copy_from_slice(name);
            lower.make_ascii_lowercase();
            str::from_utf8(lower).ok()
        });
        match lower {
            Some(name) => serializer.serialize_str(name),
            None => serializer.serialize_u8(self.0.number()),
        }
    }
}

/// Labels, by number.
pub(super) enum Labels<'a> {
    Numbers(&'a [u16]),
    /// As [`crate::conntrack::Entry::labels`] has them.
    Bitmap(&'a [u8]),
}

impl Labels<'_> {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Numbers(numbers) => numbers.is_empty(),
            Self::Bitmap(bitmap) => bitmap.iter().all(|byte| *byte == 0),
        }
    }
}

impl Serialize for Labels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Numbers(numbers) => serializer.collect_seq(*numbers),
            Self::Bitmap(bitmap) => serializer.collect_seq(label_numbers(bitmap)),
        }
    }
}
