//! The lines of `--explain` below a flow: `key: value`, only for known facts.

use std::{
    fmt,
    io::{self, Write},
    net::SocketAddr,
};

use super::{joined, marks};
use crate::model::{
    Cause, Clash, ConntrackCause, DropPoint, DroppedAt, Drops, Flow, L4, Mark, Status, Tuple,
    path::{Direction, Step},
    process::Process,
};
use crate::report::names::{self, Name, Names, OneLine, time};

/// A flow, and the names that explaining it needs.
pub(in crate::report) struct Explanation<'a> {
    pub(in crate::report) flow: &'a Flow,
    pub(in crate::report) folded: bool,
    pub(in crate::report) names: &'a Names<'a>,
    /// Blanks before each line.
    pub(in crate::report) indent: usize,
}

impl Explanation<'_> {
    /// All that is known, but for the rules.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let flow = self.flow;
        if flow.merged() > 0 {
            self.say("flows", &flow.merged(), out)?;
        }
        if flow.resumed {
            self.say("resumed", &"it was summed up before: see `other`", out)?;
        }
        self.unconfirmed(out)?;
        self.reply(out)?;
        self.related(out)?;
        if let Some(state) = flow.state {
            self.say("state", &names::state(state), out)?;
        }
        // To the kernel no mark and a mark of 0 are the same.
        if let Some(mark) = flow.mark.filter(|&mark| mark != Mark::NONE) {
            self.say("mark", &format_args!("{mark:#x}"), out)?;
        }
        if let Some(mark) = flow.packet_mark.filter(|&mark| mark != Mark::NONE) {
            self.say("packet mark", &format_args!("{mark:#x}"), out)?;
        }
        if let Some([original, reply]) = flow.counters {
            let packets = format_args!("{}, reply {}", original.packets, reply.packets);
            self.say("packets", &packets, out)?;
            self.say("bytes", &format_args!("{}, reply {}", original.bytes, reply.bytes), out)?;
        }
        if let Some((iif, oif)) = flow.interfaces {
            self.say("interfaces", &self.way(iif, oif), out)?;
        }
        self.process(out)?;
        self.drops(out)?;
        for kind in [marks::Kind::Connmark, marks::Kind::Packet] {
            for marked in marks::changes(flow, kind) {
                self.say(kind.name(), &marked, out)?;
            }
        }
        self.say("first seen", &time(flow.first_ns), out)?;
        self.say("last seen", &time(flow.last_ns), out)?;
        if flow.ended > 0 {
            self.say("ended", &fmt::from_fn(|f| self.ended(f)), out)?;
        }
        Ok(())
    }

    /// What the paths of the flow's packets do not tell: other flows that it belongs to, its process, and what became
    /// of packets that did not arrive.
    pub(in crate::report) fn beside_paths(&self, out: &mut dyn Write) -> io::Result<()> {
        self.unconfirmed(out)?;
        self.reply(out)?;
        self.related(out)?;
        self.process(out)?;
        self.drops(out)
    }

    /// What few flows have.
    pub(in crate::report) fn remarks(&self, out: &mut dyn Write) -> io::Result<()> {
        self.unconfirmed(out)?;
        self.related(out)?;
        self.drops(out)
    }

    fn say(&self, key: &str, value: &dyn fmt::Display, out: &mut dyn Write) -> io::Result<()> {
        let indent = self.indent;
        writeln!(out, "{:indent$}{key}: {value}", "")
    }

    fn unconfirmed(&self, out: &mut dyn Write) -> io::Result<()> {
        let Some(entries) = self.flow.never_confirmed() else { return Ok(()) };
        let plural = if entries == 1 { "entry" } else { "entries" };
        let ended = format_args!("{entries} {plural} ended before the flow was confirmed");
        self.say("unconfirmed", &ended, out)
    }

    /// The reply direction, if an address or a port is translated.
    fn reply(&self, out: &mut dyn Write) -> io::Result<()> {
        self.translated_reply().map_or(Ok(()), |reply| self.say("reply", &ends(reply), out))
    }

    /// The flow that expected this one, and the flow that an error quotes.
    fn related(&self, out: &mut dyn Write) -> io::Result<()> {
        for (key, other) in [("parent", &self.flow.parent), ("quotes", &self.flow.quotes)] {
            if let Some(other) = other {
                self.say(key, &fmt::from_fn(|f| protocol_and_ends(**other, f)), out)?;
            }
        }
        Ok(())
    }

    fn process(&self, out: &mut dyn Write) -> io::Result<()> {
        let process = self.flow.process.as_deref();
        process.map_or(Ok(()), |process| self.say("process", &owner(process), out))
    }

    /// Dropped and lost packets.
    fn drops(&self, out: &mut dyn Write) -> io::Result<()> {
        let Some(drops) = self.flow.drops.as_ref() else { return Ok(()) };
        if self.flow.dropped() {
            self.say("dropped", &fmt::from_fn(|f| self.dropped(drops, f)), out)?;
        }
        for (by, packets) in by_dropper(drops) {
            self.say("dropped by", &fmt::from_fn(|f| dropped_by(by, packets, f)), out)?;
        }
        if let Some(Clash { reply, holder }) = drops.clash() {
            let taken = fmt::from_fn(|f| {
                write!(f, "reply {}", ends(reply))?;
                holder.map_or(Ok(()), |orig| write!(f, ", by {}", ends(orig)))
            });
            self.say("tuple taken", &taken, out)?;
        }
        for at in drops.lost() {
            self.say("lost", &fmt::from_fn(|f| self.lost(at, f)), out)?;
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
    pub(in crate::report) fn translated_reply(&self) -> Option<Tuple> {
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
pub(in crate::report) fn owner(process: &Process) -> impl fmt::Display {
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
