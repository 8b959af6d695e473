//! Values that are written as they stand, without a copy of them being made first.

use serde::{Serialize, Serializer};

use crate::{
    model::{Status, state::ProtoState},
    report::names,
};

/// A time.
#[derive(Clone, Copy)]
pub(super) enum Time<'a> {
    /// Nanoseconds since the epoch.
    Number(u64),
    /// As it is written: many objects have the time at which the table was read.
    Text(&'a str),
}

impl Serialize for Time<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(ns) => serializer.collect_str(&names::time(*ns)),
            Self::Text(text) => serializer.serialize_str(text),
        }
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
        let mut buffer = [0; LONGEST];
        match lower_case(self.0, &mut buffer) {
            Some(name) => serializer.serialize_str(name),
            None => serializer.serialize_u8(self.0.number()),
        }
    }
}

/// The longest name of a state.
const LONGEST: usize = 32;

/// The name of a state in lower case.
fn lower_case(state: ProtoState, buffer: &mut [u8; LONGEST]) -> Option<&str> {
    let name = state.name()?.as_bytes();
    let lower = buffer.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    str::from_utf8(lower).ok()
}
