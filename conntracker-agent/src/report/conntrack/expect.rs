//! Expectations: the line and the XML of `conntrack -L expect`.

use super::digits::address;
use super::options::{Options, Timestamp};
use super::plain::{field, ports, word};
use super::xml;
use crate::conntrack::{EXPECT_INACTIVE, EXPECT_PERMANENT, EXPECT_USERSPACE, Expectation, Kind};
use crate::model::Tuple;

/// First line of a document, and the start tag of its root element.
pub(super) const HEADER: &[u8] = b"<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<expect>\n";
/// Last line.
pub(super) const FOOTER: &[u8] = b"</expect>\n";

const FLAGS: [(u32, &[u8], &[u8]); 3] = [
    (EXPECT_PERMANENT, b"PERMANENT", b"<permanent/>"),
    (EXPECT_INACTIVE, b"INACTIVE", b"<inactive/>"),
    (EXPECT_USERSPACE, b"USERSPACE", b"<userspace/>"),
];

/// Appends an expectation, without a line feed.
pub fn plain(out: &mut Vec<u8>, expectation: &Expectation<'_>) {
    if let Some(timeout) = expectation.timeout {
        field(out, b"", timeout);
    }
    field(out, b"proto=", expectation.tuple.proto);
    tuple(out, b"", &expectation.tuple);
    if let Some(mask) = &expectation.mask {
        tuple(out, b"mask-", mask);
    }
    if let Some(master) = &expectation.master {
        tuple(out, b"master-", master);
    }
    if let Some(zone) = expectation.zone {
        field(out, b"zone=", zone);
    }
    let flags = expectation.flags.unwrap_or(0);
    let mut separator = &b""[..];
    for (flag, name, _) in FLAGS {
        if flags & flag != 0 {
            out.extend_from_slice(separator);
            out.extend_from_slice(name);
            separator = b",";
        }
    }
    if separator == b"," {
        out.push(b' ');
    }
    if let Some(class) = expectation.class {
        field(out, b"class=", class);
    }
    if let Some(helper) = expectation.helper {
        word(out, b"helper=", helper);
    }
    if out.last() == Some(&b' ') {
        out.pop();
    }
}

fn tuple(out: &mut Vec<u8>, prefix: &[u8], tuple: &Tuple) {
    for (name, of) in [(&b"src="[..], tuple.src), (b"dst=", tuple.dst)] {
        out.extend_from_slice(prefix);
        out.extend_from_slice(name);
        address(out, of);
        out.push(b' ');
    }
    ports(out, tuple.l4);
}

/// Appends an expectation or an event of one as XML, without a line feed; with a time, if there is one.
pub fn xml(
    out: &mut Vec<u8>,
    kind: Option<Kind>,
    at: Option<Timestamp>,
    expectation: &Expectation<'_>,
    options: &Options<'_>,
) {
    let tuples = [
        (&b"expected"[..], Some(&expectation.tuple)),
        (b"mask", expectation.mask.as_ref()),
        (b"master", expectation.master.as_ref()),
    ];
    let each = |out: &mut Vec<u8>, write: fn(&mut Vec<u8>, &Tuple)| {
        for (name, tuple) in tuples {
            let Some(tuple) = tuple else { continue };
            for (bracket, write) in [(&b"<"[..], Some(write)), (b"</", None)] {
                out.extend_from_slice(bracket);
                out.extend_from_slice(name);
                out.push(b'>');
                if let Some(write) = write {
                    write(out, tuple);
                }
            }
        }
    };
    xml::begin(out, kind);
    xml::layer3(out, &expectation.tuple);
    each(out, xml::addresses);
    out.extend_from_slice(b"</layer3>");
    xml::layer4(out, expectation.tuple.proto);
    each(out, |out, tuple| xml::ports(out, tuple.l4));
    out.extend_from_slice(b"</layer4><meta>");
    if let Some(helper) = expectation.helper {
        xml::text(out, "helper-name", helper);
    }
    if let Some(timeout) = expectation.timeout {
        xml::number(out, "timeout", timeout);
    }
    if let Some(zone) = expectation.zone {
        xml::number(out, "zone", zone);
    }
    if let Some(class) = expectation.class {
        xml::number(out, "class", class);
    }
    if let Some(at) = at {
        options.calendar.write_xml(out, at.seconds);
    }
    let flags = expectation.flags.unwrap_or(0);
    for (flag, _, element) in FLAGS {
        if flags & flag != 0 {
            out.extend_from_slice(element);
        }
    }
    out.extend_from_slice(b"</meta></flow>");
}
