//! The lines of `--explain` below a flow: `key: value`, only for known facts.

use std::{
    fmt,
    io::{self, Write},
    net::SocketAddr,
};

use super::{INDENT, joined, marks};
use crate::model::{
    Cause, Clash, ConntrackCause, DropPoint, DroppedAt, Drops, Flow, L4, Mark, Status, Tuple,
    path::{Direction, Step},
    process::Process,
};
use crate::report::names::{self, Name, Names, OneLine, time};

/// A flow, and the names that explaining it needs.
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
        if flow.resumed {
            say("resumed", &"it was summed up before: see `other`")?;
        }
        if let Some(entries) = flow.never_confirmed() {
            let plural = if entries == 1 { "entry" } else { "entries" };
            say(
                "unconfirmed",
                &format_args!("{entries} {plural} ended before the flow was confirmed"),
            )?;
        }
        if let Some(reply) = self.translated_reply() {
            say("reply", &ends(reply))?;
        }
        for (key, other) in [("parent", &flow.parent), ("quotes", &flow.quotes)] {
            if let Some(other) = other {
                say(key, &fmt::from_fn(|f| protocol_and_ends(**other, f)))?;
            }
        }
        if let Some(state) = flow.state {
            say("state", &names::state(state))?;
        }
        // To the kernel no mark and a mark of 0 are the same.
        if let Some(mark) = flow.mark.filter(|&mark| mark != Mark::NONE) {
            say("mark", &format_args!("{mark:#x}"))?;
        }
        if let Some(mark) = flow.packet_mark.filter(|&mark| mark != Mark::NONE) {
            say("packet mark", &format_args!("{mark:#x}"))?;
        }
        if let Some([original, reply]) = flow.counters {
            say("packets", &format_args!("{}, reply {}", original.packets, reply.packets))?;
            say("bytes", &format_args!("{}, reply {}", original.bytes, reply.bytes))?;
        }
        if let Some((iif, oif)) = flow.interfaces {
            say("interfaces", &self.way(iif, oif))?;
        }
        if let Some(process) = flow.process.as_deref() {
            say("process", &owner(process))?;
        }
        if let Some(drops) = flow.drops.as_ref() {
            if flow.dropped() {
                say("dropped", &fmt::from_fn(|f| self.dropped(drops, f)))?;
            }
            for (by, packets) in by_dropper(drops) {
                say("dropped by", &fmt::from_fn(|f| dropped_by(by, packets, f)))?;
            }
            if let Some(Clash { reply, holder }) = drops.clash() {
                say(
                    "tuple taken",
                    &fmt::from_fn(|f| {
                        write!(f, "reply {}", ends(reply))?;
                        holder.map_or(Ok(()), |orig| write!(f, ", by {}", ends(orig)))
                    }),
                )?;
            }
            for at in drops.lost() {
                say("lost", &fmt::from_fn(|f| self.lost(at, f)))?;
            }
        }
        for marked in marks::changes(flow, marks::Kind::Connmark) {
            say("connmark", &marked)?;
        }
        for marked in marks::changes(flow, marks::Kind::Packet) {
            say("packet mark", &marked)?;
        }
        say("first seen", &time(flow.first_ns))?;
        say("last seen", &time(flow.last_ns))?;
        if flow.ended > 0 {
            say("ended", &fmt::from_fn(|f| self.ended(f)))?;
        }
        Ok(())
    }

    /// When the flow ended; of merged flows, how many have ended and when the last one did.
    fn ended(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Flow { ended, details, last_ns, .. } = self.flow;
        let stop = details.as_deref().and_then(|details| details.stop_ns).unwrap_or(*last_ns);
        match self.flow.merged() {
            1 => write!(f, "{}", time(stop)),
            flows => write!(f, "{ended} of {flows}, last {}", time(stop)),
        }
    }

    /// The reply direction, unless it is the inverted original one.
    fn translated_reply(&self) -> Option<Tuple> {
        let Flow { key, reply, status, .. } = self.flow;
        let reply = (*reply)?;
        let seen_as = reply.inverted().map(|orig| if self.folded { orig.folded() } else { orig });
        // Folding hides the translation of a source port, but the status has it.
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

    /// Packets that another part of the kernel dropped, and the hook before.
    fn lost(&self, at: &DroppedAt, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DroppedAt { place: DropPoint { cause, hook, iif, oif }, by: _, packets } = *at;
        write!(f, "{packets} packet{}", if packets == 1 { "" } else { "s" })?;
        match hook {
            Some(hook) => write!(f, " after {}", names::hook(hook))?,
            None => f.write_str(" after an unknown hook")?,
        }
        write!(f, " ({}): {}", self.way(iif, oif), elsewhere(cause))
    }

    fn dropped(&self, drops: &Drops, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packets = drops.packets();
        write!(f, "{packets} packet{}", if packets == 1 { "" } else { "s" })?;
        let netns = self.flow.key.netns;
        let places = self.names.drop_places(netns, drops);
        for (n, DropPoint { cause: _, hook, iif, oif }) in places.iter().enumerate() {
            f.write_str(if n == 0 { " at " } else { ", " })?;
            match hook {
                Some(hook) => write!(f, "{}", names::hook(*hook))?,
                None => f.write_str("unknown hook")?,
            }
            write!(f, " ({})", self.way(*iif, *oif))?;
        }
        let suspects = drops.at().iter().map(|at| self.names.suspects(netns, at));
        if let Some(suspects) = suspects.into_iter().find(|suspects| !suspects.is_empty()) {
            let suspects = joined(", ", suspects.iter().map(|chain| OneLine(chain)));
            write!(f, "; chains that are not traced may have dropped them: {suspects}")?;
        }
        Ok(())
    }
}

/// The rule, or the part of the kernel, that dropped packets.
#[derive(Clone, Copy, PartialEq)]
enum Dropper<'a> {
    Rule(&'a Step),
    Conntrack(ConntrackCause),
    Unknown,
}

/// Packets by dropper, if that is more than one rule, or conntrack.
fn by_dropper(drops: &Drops) -> Vec<(Dropper<'_>, u64)> {
    let mut all: Vec<(Dropper<'_>, u64)> = Vec::new();
    for DroppedAt { place, by, packets } in drops.dropped() {
        let dropper = match (place.cause, by) {
            (Cause::Conntrack(cause), _) => Dropper::Conntrack(cause),
            (_, Some(step)) => Dropper::Rule(step),
            (_, None) => Dropper::Unknown,
        };
        match all.iter_mut().find(|(known, _)| *known == dropper) {
            Some((_, sum)) => *sum += packets,
            None => all.push((dropper, *packets)),
        }
    }
    let plain = matches!(all[..], [] | [(Dropper::Rule(_) | Dropper::Unknown, _)]);
    if plain { Vec::new() } else { all }
}

fn dropped_by(by: Dropper<'_>, packets: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let plural = if packets == 1 { "" } else { "s" };
    let step = match by {
        Dropper::Rule(step) => step,
        Dropper::Conntrack(cause) => {
            return write!(f, "{packets} packet{plural} by conntrack: {}", cause.name());
        }
        Dropper::Unknown => {
            return write!(f, "{packets} packet{plural} by a rule that is not known");
        }
    };
    write!(f, "{packets} packet{plural}, {}", site_and_verdict(step))
}

/// A rule, policy or chain, and its verdict.
pub(super) fn site_and_verdict(Step { site, verdict, .. }: &Step) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        let (label, chain) = (site.label(), OneLine(&site.chain));
        write!(f, "table: {}, chain: {chain}", OneLine(&label))?;
        write!(f, ", type: {}, position: ", site.kind.name())?;
        match site.position {
            Some(position) => write!(f, "{position}")?,
            None => f.write_str("-")?,
        }
        write!(f, ", verdict: {}", verdict.name())
    })
}

/// The reason or the function of another part of the kernel than netfilter, and what it means.
pub(super) fn elsewhere(cause: Cause) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        match cause {
            Cause::Function(name) => write!(f, "in the kernel's {name}()")?,
            cause => f.write_str(cause.elsewhere().unwrap_or_default())?,
        }
        match cause.elsewhere().and_then(names::meaning) {
            Some(meaning) => write!(f, ", {meaning}"),
            None => Ok(()),
        }
    })
}

/// `ssh (pid 812, uid 1000 me, cgroup /user.slice)`, after `answers` for the process that sends the replies.
fn owner(process: &Process) -> impl fmt::Display {
    let Process { direction, uid, user, pid, comm, cgroup_id, cgroup, inode: _ } = process;
    fmt::from_fn(move |f| {
        write!(f, "{} (", OneLine(comm.as_deref().unwrap_or("-")))?;
        if *direction == Direction::Reply {
            f.write_str("answers, ")?;
        }
        if let Some(pid) = pid {
            write!(f, "pid {pid}, ")?;
        }
        write!(f, "uid {uid}")?;
        if let Some(user) = user {
            write!(f, " {}", OneLine(user))?;
        }
        match (cgroup, cgroup_id) {
            (Some(path), _) => write!(f, ", cgroup {}", OneLine(path))?,
            (None, Some(id)) => write!(f, ", cgroup {id}")?,
            (None, None) => {}
        }
        f.write_str(")")
    })
}

/// A flow of another protocol, perhaps.
fn protocol_and_ends(tuple: Tuple, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{} {}", super::protocol_name(tuple.proto), ends(tuple))
}

pub(super) fn ends(tuple: Tuple) -> impl fmt::Display {
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
