//! The packets of a recorded flow, as the evaluator takes them: at one hook of a path that was traced
//! ([`Recorded::at`]), or from where they come to where they go ([`Recorded::first`], [`Entry::packet`]).
//!
//! What is not recorded is unknown: lengths, TTL, payload, MAC addresses and, where flows are folded, source ports above
//! 1023.

mod at_hook;
mod ends;
mod entry;
mod first;
#[cfg(test)]
mod tests;

use super::evaluate::{Attr, Origin, Packet, interface::Interface, unknown::Attribute};
use crate::model::{
    Flow,
    hook::Hook,
    path::{CtState, Direction},
};

pub use self::entry::Entry;

/// Flags of TCP.
const SYN: u8 = 2;
const ACK: u8 = 16;
/// FIN, SYN, RST, PSH, ACK, URG: those that are no matter of congestion.
const FLAGS: u8 = 0x3f;

/// A packet where it comes into being, or to this host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sample {
    /// The packet.
    pub packet: Packet,
    /// Where it comes from.
    pub origin: Origin,
}

/// A flow of a recording.
pub struct Recorded<'a> {
    flow: &'a Flow,
    /// Interfaces of packets of the original direction; `None` inside: this host sends them, or receives them.
    input: Attr<Option<Interface>>,
    output: Attr<Option<Interface>>,
    /// Its tuple may stand for several.
    folded: bool,
}

impl<'a> Recorded<'a> {
    /// A flow. `folded`: its recording has folded flows. `interface` finds an interface by the number that the flow
    /// has for it.
    #[must_use]
    pub fn new(flow: &'a Flow, folded: bool, interface: impl Fn(u32) -> Option<Interface>) -> Self {
        // Where packets of both directions were seen, which one of them had an interface without an entry, or was
        // dropped, is not told.
        let answered = flow.confirmed()
            || flow.paths.iter().any(|(path, _)| path.direction == Direction::Reply);
        let dropped = flow.drops.iter().flat_map(|drops| drops.dropped()).next();
        let of_drop = || dropped.map(|at| (at.place.iif, at.place.oif));
        let of_flow = flow.interfaces.filter(|_| flow.key.entry || !answered);
        let interfaces = of_flow.or_else(|| of_drop().filter(|_| !answered));
        let (iif, oif) = interfaces.unwrap_or_default();
        // What this host answers with may be of the original direction, and has the state `related`.
        let sent_here = flow.paths.iter().any(|(path, _)| {
            let own = match path.state {
                CtState::Related => false,
                CtState::Early => !flow.key.entry,
                _ => true,
            };
            own && (path.hook, path.direction) == (Hook::Output, Direction::Original)
        });
        // The first packet of a flow tells both when it leaves; a packet at a hook may not be routed yet.
        let both = flow.origins.packets && flow.interfaces.is_some();
        let found = |number, none: bool, unknown: Attribute| match number {
            0 if none => Ok(None),
            0 => Err(unknown.into()),
            number => interface(number).map(Some).ok_or(unknown.into()),
        };
        let input = found(iif, both || oif != 0, Attribute::InputInterface);
        Self {
            flow,
            input: if sent_here { Ok(None) } else { input },
            output: found(oif, both, Attribute::OutputInterface),
            folded: folded && flow.key.orig.may_be_folded(),
        }
    }
}
