//! Dropped packets as they happen, as JSON: an object in a line.

use std::io;

use super::{
    flow::{InterfacesObject, ProcessObject},
    object::{Object, Time},
    path::StepObject,
};
use crate::{
    model::{Cause, Zone},
    report::{
        drops::DropLine,
        names::{self, Name},
    },
};

/// Appends the object and the end of its line.
pub fn write(line: &DropLine, out: &mut Vec<u8>) -> io::Result<()> {
    let DropLine { at_ns, first_ns, netns, zone, orig, folded, has_entry, point, .. } = line;
    let mut object = Object::begin(out, "drop");
    object.time("time", Time::Number(*at_ns));
    if line.packets > 1 {
        object.time("first", Time::Number(*first_ns));
    }
    object.number("packets", line.packets);
    object.value("netns", netns)?;
    if *zone != Zone::DEFAULT {
        object.number("zone", *zone);
    }
    object.word("family", if orig.is_ipv4() { "ipv4" } else { "ipv6" });
    object.protocol(orig.proto);
    object.tuple("original", orig);
    object.if_so("folded", *folded);
    object.if_so("no_entry", !*has_entry);
    if let Some(direction) = line.direction() {
        object.word("direction", direction.name());
    }
    let hook = point.hook.map(names::hook);
    object
        .optional_value(if point.cause.is_elsewhere() { "after" } else { "hook" }, hook.as_ref())?;
    let name = |name: &'_ Option<String>| name.clone().map(|name| Name::Known(name.into()));
    object.value("interfaces", &InterfacesObject { iif: name(&line.iif), oif: name(&line.oif) })?;
    match point.cause {
        Cause::Netfilter => object.optional_value("by", line.by().map(StepObject::new).as_ref())?,
        Cause::Conntrack(cause) => object.word("conntrack", cause.name()),
        Cause::Reason(name) => object.word("reason", name),
        Cause::Function(name) => object.word("function", name),
    }
    if let Some(meaning) = point.cause.elsewhere().and_then(names::meaning) {
        object.value("meaning", &meaning)?;
    }
    if let Some(path) = &line.path {
        object.word("state", path.state.name());
    }
    object.optional_value("process", line.process.as_deref().map(ProcessObject::from).as_ref())?;
    object.end();
    out.push(b'\n');
    Ok(())
}

/// Appends the object about packets that no line tells of.
pub fn not_printed(at_ns: u64, packets: u64, out: &mut Vec<u8>) {
    let mut object = Object::begin(out, "drops_not_printed");
    object.time("time", Time::Number(at_ns));
    object.number("packets", packets);
    object.end();
    out.push(b'\n');
}
