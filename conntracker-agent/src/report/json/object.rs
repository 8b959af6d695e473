//! Writes the fields of a JSON object one by one. Tables have millions of entries, and serde takes several times as
//! long for their objects.

use std::io::{self, Write as _};

use serde::{Serialize, Serializer};

use super::tuple::l4_fields;
use crate::{
    model::{Tuple, counters::Counters, harmless, protocol},
    report::{
        conntrack::digits::{canonical_address, decimal},
        names,
    },
};

/// A time.
#[derive(Clone, Copy)]
pub(super) enum Time<'a> {
    /// Nanoseconds since the epoch.
    Number(u64),
    /// Already formatted: many objects have the time at which the table was read.
    Text(&'a str),
}

/// An object that is being written: everything but its last brace.
pub(super) struct Object<'o>(&'o mut Vec<u8>);

impl Serialize for Time<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(ns) => serializer.collect_str(&names::time(*ns)),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'o> Object<'o> {
    /// Begins an object with its field `type`.
    pub fn begin(out: &'o mut Vec<u8>, kind: &str) -> Self {
        out.extend_from_slice(br#"{"type":"#);
        let mut object = Self(out);
        object.quoted(kind);
        object
    }

    /// Ends it.
    pub fn end(self) {
        self.0.push(b'}');
    }

    fn name(&mut self, name: &str) {
        self.0.extend_from_slice(br#",""#);
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(br#"":"#);
    }

    fn quoted(&mut self, word: &str) {
        self.0.push(b'"');
        self.0.extend_from_slice(word.as_bytes());
        self.0.push(b'"');
    }

    /// A number.
    pub fn number(&mut self, name: &str, number: impl Into<u64>) {
        self.name(name);
        decimal(self.0, number);
    }

    /// A number, if there is one.
    pub fn optional(&mut self, name: &str, number: Option<impl Into<u64>>) {
        if let Some(number) = number {
            self.number(name, number);
        }
    }

    /// A word of our own, which needs no escapes.
    pub fn word(&mut self, name: &str, word: &str) {
        self.name(name);
        self.quoted(word);
    }

    /// `true` or `false`.
    pub fn flag(&mut self, name: &str, holds: bool) {
        self.name(name);
        self.0.extend_from_slice(if holds { b"true" } else { b"false" });
    }

    /// `true`, or nothing.
    pub fn if_so(&mut self, name: &str, holds: bool) {
        if holds {
            self.flag(name, holds);
        }
    }

    /// A word of our own in lower case.
    pub fn lower_case(&mut self, name: &str, word: &str) {
        self.name(name);
        let begin = self.0.len();
        self.quoted(word);
        self.0[begin..].make_ascii_lowercase();
    }

    /// A list of words of our own.
    pub fn words<'a>(&mut self, name: &str, words: impl Iterator<Item = &'a str>) {
        self.list(name, words, Self::quoted);
    }

    /// A list of numbers, if there are any.
    pub fn numbers(&mut self, name: &str, numbers: impl Iterator<Item = u16>) {
        let mut numbers = numbers.peekable();
        if numbers.peek().is_some() {
            self.list(name, numbers, |object, number| decimal(object.0, number));
        }
    }

    fn list<T>(
        &mut self,
        name: &str,
        values: impl Iterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.name(name);
        let mut before = b'[';
        for value in values {
            self.0.push(before);
            before = b',';
            write(self, value);
        }
        if before == b'[' {
            self.0.push(before);
        }
        self.0.push(b']');
    }

    /// A time.
    pub fn time(&mut self, name: &str, time: Time<'_>) {
        match time {
            // Writing to memory does not fail.
            Time::Number(ns) => {
                self.name(name);
                drop(write!(self.0, r#""{}""#, names::time(ns)));
            }
            Time::Text(text) => self.word(name, text),
        }
    }

    /// An IP protocol: its number, and its name if it has one.
    pub fn protocol(&mut self, proto: u8) {
        self.name("protocol");
        self.protocol_object(proto);
    }

    fn protocol_object(&mut self, proto: u8) {
        self.0.extend_from_slice(br#"{"number":"#);
        decimal(self.0, proto);
        if let Some(name) = protocol::name(proto) {
            self.word("name", name);
        }
        self.0.push(b'}');
    }

    /// A tuple.
    pub fn tuple(&mut self, name: &str, tuple: &Tuple) {
        self.name(name);
        self.0.push(b'{');
        self.tuple_fields(tuple);
        self.0.push(b'}');
    }

    /// A tuple of another flow, with its protocol.
    pub fn other_tuple(&mut self, name: &str, tuple: &Tuple) {
        self.name(name);
        self.0.extend_from_slice(br#"{"protocol":"#);
        self.protocol_object(tuple.proto);
        self.0.push(b',');
        self.tuple_fields(tuple);
        self.0.push(b'}');
    }

    fn tuple_fields(&mut self, Tuple { src, dst, proto: _, l4 }: &Tuple) {
        for (before, ip) in [(br#""src":""#.as_slice(), src), (br#"","dst":""#, dst)] {
            self.0.extend_from_slice(before);
            canonical_address(self.0, *ip);
        }
        self.0.push(b'"');
        for (name, value) in l4_fields(*l4) {
            self.number(name, value);
        }
    }

    /// Packets and bytes of both directions.
    pub fn counters(&mut self, counters: &[Counters; 2]) {
        self.name("counters");
        let directions = [br#"{"original":{"packets":"#.as_slice(), br#","reply":{"packets":"#];
        for (direction, Counters { packets, bytes }) in directions.into_iter().zip(counters) {
            self.0.extend_from_slice(direction);
            decimal(self.0, *packets);
            self.number("bytes", *bytes);
            self.0.push(b'}');
        }
        self.0.push(b'}');
    }

    /// Any other value, which serde writes.
    pub fn value(&mut self, name: &str, value: &impl Serialize) -> io::Result<()> {
        self.name(name);
        harmless::json(self.0, value)
    }

    /// Any other value, if there is one.
    pub fn optional_value(&mut self, name: &str, value: Option<&impl Serialize>) -> io::Result<()> {
        value.map_or(Ok(()), |value| self.value(name, value))
    }

    /// An object within this one, which `write` appends.
    pub fn nested(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.name(name);
        write(self.0)
    }
}
