//! The answer for people: hook by hook the steps in order, indented at jumps.

use std::{
    fmt,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
};

use super::{AskedPacket, Explanation, observe::ObservedHook, path::Path};
use crate::{
    firewall::evaluate::{Attr, Packet, packet::Side, state::Fate},
    model::{harmless::one_line, path::Verdict},
    report::{
        path::{WIDEST, chain, described},
        text::protocol_name,
    },
};

/// Indents of hooks and of steps.
const HOOK: usize = 2;
const STEP: usize = 4;

/// Writes the answer.
pub(super) fn render(all: &Explanation<'_>, out: &mut dyn Write) -> io::Result<()> {
    let Explanation { asked, arrives, answer, today, observed } = all;
    writeln!(out, "{}, {}, {arrives}", packet(asked), asked.state.name())?;
    let several = answer.paths.len() > 1;
    for (index, path) in answer.paths.iter().enumerate() {
        if several {
            let word = if index == 0 { "either" } else { "or" };
            writeln!(out, "{word} ({}):", path.why)?;
        }
        steps(asked, path, out)?;
    }
    writeln!(out, "verdict: {}", answer.sentence())?;
    if let Some(today) = today {
        writeln!(out, "today: {}", today.sentence())?;
    }
    observed.as_deref().map_or(Ok(()), |hooks| self::observed(hooks, out))
}

/// What became of packets that were observed: where it is not what was predicted, the steps, those marked that were
/// not.
fn observed(hooks: &[ObservedHook], out: &mut dyn Write) -> io::Result<()> {
    if hooks.is_empty() {
        return writeln!(out, "observed: no such packet");
    }
    writeln!(out, "observed:")?;
    for hook in hooks {
        let packets = if hook.packets == 1 { "packet" } else { "packets" };
        let dropped = if hook.dropped { ", dropped" } else { "" };
        let agrees = if hook.agrees() { "as predicted" } else { "not as predicted (!)" };
        writeln!(
            out,
            "{:HOOK$}{}: {} {packets}{dropped}, {agrees}",
            "",
            hook.hook.name(),
            hook.packets
        )?;
        for (step, predicted) in hook.steps.iter().filter(|_| !hook.agrees()) {
            let mark = if *predicted { ' ' } else { '!' };
            let site = chain(&step.site, 0);
            write!(out, "{:HOOK$}{mark} {site}  {:8}  ", "", step.verdict.name())?;
            writeln!(out, "{}", described(&step.site, &step.verdict))?;
        }
    }
    Ok(())
}

/// Protocol and both ends of a packet.
pub(super) fn packet(asked: &AskedPacket) -> impl fmt::Display {
    let [from, to] = [0, 1].map(|side| end(asked.addresses[side], asked.ports[side]));
    let proto = protocol_name(asked.proto);
    fmt::from_fn(move |f| write!(f, "{proto} {from} -> {to}"))
}

fn steps(asked: &AskedPacket, path: &Path, out: &mut dyn Write) -> io::Result<()> {
    let widths = path.steps.iter().map(|step| chain(&step.site, step.depth).chars().count());
    let width = widths.max().unwrap_or_default().min(WIDEST);
    let mut hook = None;
    for step in &path.steps {
        if hook.replace(step.hook) != Some(step.hook) {
            writeln!(out, "{:HOOK$}{}", "", step.hook.name())?;
        }
        let name = match step.verdict {
            Verdict::Drop | Verdict::Reject => step.verdict.name().to_ascii_uppercase(),
            _ => step.verdict.name().to_owned(),
        };
        write!(out, "{:STEP$}{:width$}  {name:8}  ", "", chain(&step.site, step.depth))?;
        write!(out, "{}", described(&step.site, &step.verdict))?;
        if step.why.is_empty() {
            writeln!(out)?;
        } else {
            writeln!(out, " (perhaps: {})", step.why)?;
        }
    }
    changes(asked, path.fate, &path.packet, out)
}

/// What rules and routes made of the packet.
fn changes(
    asked: &AskedPacket,
    fate: Fate,
    packet: &Packet,
    out: &mut dyn Write,
) -> io::Result<()> {
    if let Ok(Some(output)) = &packet.output {
        let leaves = if fate == Fate::Accept { "leaves" } else { "would leave" };
        writeln!(out, "{:HOOK$}{leaves} through {}", "", one_line(&output.text()))?;
    }
    for (side, name) in [(Side::Source, "source"), (Side::Destination, "destination")] {
        let (address, port) = (packet.address(side), packet.port(side));
        let before = (asked.addresses[side as usize], asked.ports[side as usize]);
        let same = address == Ok(before.0) && port.unwrap_or(before.1) == before.1;
        if !same {
            let new = translated(address, port);
            writeln!(out, "{:HOOK$}{name} translated to {new}", "")?;
        }
    }
    if packet.mark.get() != Ok(asked.mark) {
        match packet.mark.get() {
            Ok(mark) => writeln!(out, "{:HOOK$}packet mark set to {mark:#x}", "")?,
            Err(why) => writeln!(out, "{:HOOK$}packet mark perhaps changed: {why}", "")?,
        }
    }
    Ok(())
}

fn translated(address: Attr<IpAddr>, port: Attr<Option<u16>>) -> String {
    let address = match address {
        Ok(address) => address,
        Err(why) => return format!("an address that is not known ({why})"),
    };
    match port {
        Ok(port) => end(address, port).to_string(),
        Err(_) => format!("{address}, with a port that the kernel chooses"),
    }
}

/// An address with a port, if there is one.
fn end(address: IpAddr, port: Option<u16>) -> impl fmt::Display {
    fmt::from_fn(move |f| match port {
        Some(port) => write!(f, "{}", SocketAddr::new(address, port)),
        None => write!(f, "{address}"),
    })
}
