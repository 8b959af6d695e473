//! What `--explain` says below a flow: `key: value` lines of what is known, and only that.

use std::{
    fmt,
    io::{self, Write},
    net::SocketAddr,
};

use super::{INDENT, marks};
use crate::flow::{DropPlace, Drops, Flow, L4, Status, Tuple};
use crate::report::names::{self, Name, Names, time};

/// A flow, and what is needed to explain it.
pub(super) struct Explanation<'a> {
    pub(super) flow: &'a Flow,
    pub(super) folded: bool,
    pub(super) names: &'a Names<'a>,
}

impl Explanation<'_> {
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let flow = self.flow;
        let mut say =
            |key: &str, value: &dyn fmt::Display| writeln!(out, "{:INDENT$}{key}: {value}", "");
        if flow.merged() > 0 {
            say("flows", &flow.merged())?;
        }
        if let Some(reply) = self.translated_reply() {
            say("reply", &ends(reply))?;
        }
        if let Some(state) = flow.state {
            say("state", &names::state(state))?;
        }
        // No mark and a mark of 0 are the same thing to the kernel.
        if let Some(mark) = flow.mark.filter(|&mark| mark != 0) {
            say("mark", &format_args!("{mark:#x}"))?;
        }
        if let Some(mark) = flow.packet_mark.filter(|&mark| mark != 0) {
            say("packet mark", &format_args!("{mark:#x}"))?;
        }
        if let Some([original, reply]) = flow.counters {
            say("packets", &format_args!("{}, reply {}", original.packets, reply.packets))?;
            say("bytes", &format_args!("{}, reply {}", original.bytes, reply.bytes))?;
        }
        if let Some((iif, oif)) = flow.interfaces {
            say("interfaces", &self.way(iif, oif))?;
        }
        if let Some(drops) = &flow.drops {
            say("dropped", &fmt::from_fn(|f| self.dropped(drops, f)))?;
        }
        for marked in marks::changes(flow, marks::Kind::Connmark) {
            say("connmark", &marked)?;
        }
        for marked in marks::changes(flow, marks::Kind::Packet) {
            say("packet mark", &marked)?;
        }
        say("first seen", &time(flow.first_ns))?;
        say("last seen", &time(flow.last_ns))
    }

    /// The reply direction, unless it says nothing that the original one does not.
    fn translated_reply(&self) -> Option<Tuple> {
        let Flow { key, reply, status, .. } = self.flow;
        let reply = (*reply)?;
        let seen_as = reply.inverted().map(|orig| if self.folded { orig.folded() } else { orig });
        // Folding hides the translation of a source port; the status does not.
        let translated = status.contains(Status::SRC_NAT) || status.contains(Status::DST_NAT);
        (translated || seen_as != Some(key.orig)).then_some(reply)
    }

    fn way(&self, iif: u32, oif: u32) -> impl fmt::Display {
        let name = |index| {
            let name = self.names.interface(self.flow.key.netns, index);
            name.unwrap_or(Name::Known("-".into()))
        };
        let (iif, oif) = (name(iif), name(oif));
        fmt::from_fn(move |f| write!(f, "{iif} -> {oif}"))
    }

    fn dropped(&self, drops: &Drops, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packets = drops.packets();
        write!(f, "{packets} packet{}", if packets == 1 { "" } else { "s" })?;
        for (n, DropPlace { hook, iif, oif }) in drops.places().iter().enumerate() {
            f.write_str(if n == 0 { " at " } else { ", " })?;
            match hook {
                Some(hook) => write!(f, "{}", names::hook(*hook))?,
                None => f.write_str("unknown hook")?,
            }
            write!(f, " ({})", self.way(*iif, *oif))?;
        }
        Ok(())
    }
}

fn ends(tuple: Tuple) -> impl fmt::Display {
    let Tuple { src, dst, proto: _, l4 } = tuple;
    fmt::from_fn(move |f| match l4 {
        L4::Ports { src: sport, dst: dport } => {
            write!(f, "{} -> {}", SocketAddr::new(src, sport), SocketAddr::new(dst, dport))
        }
        L4::Icmp { kind, code, id } => {
            write!(f, "{src} -> {dst} (type={kind} | code={code} | id={id})")
        }
        L4::Gre { src: skey, dst: dkey } => write!(f, "{src} (key={skey}) -> {dst} (key={dkey})"),
        L4::None => write!(f, "{src} -> {dst}"),
    })
}
