//! A line for dropped packets as they happen.

use std::{
    fmt,
    io::{self, Write},
};

use super::explain;
use crate::{
    model::{Cause, L4, Tuple, Zone, path::Direction, process::Process},
    report::{
        drops::DropLine,
        names::{self, OneLine, time},
        text::protocol_name,
    },
};

/// Appends the line.
pub fn write(line: &DropLine, out: &mut Vec<u8>) -> io::Result<()> {
    let DropLine { at_ns, netns, several_namespaces, zone, orig, folded, point, iif, oif, .. } =
        line;
    write!(out, "{} ", time(*at_ns))?;
    if *several_namespaces {
        write!(out, "[netns {}] ", OneLine(netns))?;
    }
    if *zone != Zone::DEFAULT {
        write!(out, "[zone {zone}] ")?;
    }
    write!(out, "{} {}", protocol_name(orig.proto), Ends { orig, folded: *folded })?;
    if line.direction() == Some(Direction::Reply) {
        out.extend_from_slice(b" (reply)");
    }
    if !line.has_entry {
        out.extend_from_slice(b" (no entry)");
    }
    if line.packets > 1 {
        write!(out, " packets={}", line.packets)?;
    }
    if let Some(process) = line.process.as_deref() {
        write!(out, " process={}", owner(process))?;
    }
    let elsewhere = point.cause.is_elsewhere();
    out.extend_from_slice(if elsewhere { b" after " } else { b" at " });
    match point.hook {
        Some(hook) => write!(out, "{}", names::hook(hook))?,
        None => out.extend_from_slice(b"an unknown hook"),
    }
    let interface = |name: &Option<String>| OneLine(name.as_deref().unwrap_or("-")).to_string();
    write!(out, " ({} -> {}): ", interface(iif), interface(oif))?;
    why(line, out)?;
    out.push(b'\n');
    Ok(())
}

/// Appends the line about packets that no line tells of.
pub fn not_printed(at_ns: u64, packets: u64, out: &mut Vec<u8>) -> io::Result<()> {
    let plural = if packets == 1 { "drop was" } else { "drops were" };
    writeln!(out, "{} … and {packets} more {plural} not printed", time(at_ns))
}

/// Who dropped them.
fn why(line: &DropLine, out: &mut Vec<u8>) -> io::Result<()> {
    match (line.point.cause, line.by()) {
        (Cause::Conntrack(cause), _) => write!(out, "conntrack: {}", cause.name()),
        (Cause::Netfilter, Some(step)) => {
            write!(out, "{}", explain::site_and_verdict(step))?;
            if let Some(handle) = step.site.handle {
                write!(out, ", handle: {handle}")?;
            }
            // The text is last, because it may have any characters.
            match &step.site.text {
                Some(text) => write!(out, ", rule: {}", OneLine(text)),
                None => Ok(()),
            }
        }
        (Cause::Netfilter, None) => write!(out, "a rule that is not known"),
        (cause, _) => write!(out, "{}", explain::elsewhere(cause)),
    }
}

/// From where to where. `*` is a source port, or an ICMP identifier, that the kernel did not keep apart.
struct Ends<'a> {
    orig: &'a Tuple,
    folded: bool,
}

impl fmt::Display for Ends<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tuple { src, dst, proto: _, l4 } = *self.orig;
        match l4 {
            L4::Ports { dst: dport, .. } if self.folded => {
                let dst = std::net::SocketAddr::new(dst, dport);
                if src.is_ipv4() {
                    write!(f, "{src}:* -> {dst}")
                } else {
                    write!(f, "[{src}]:* -> {dst}")
                }
            }
            L4::Icmp { kind, code, .. } if self.folded => {
                write!(f, "{src} -> {dst} (type={kind} | code={code} | id=*)")
            }
            _ => write!(f, "{}", explain::ends(*self.orig)),
        }
    }
}

/// `curl[812]`.
fn owner(process: &Process) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        write!(f, "{}", OneLine(process.comm.as_deref().unwrap_or("-")))?;
        process.pid.map_or(Ok(()), |pid| write!(f, "[{pid}]"))
    })
}
