//! Addresses and ports of a flow's packets at a hook: before or behind translation, in either direction.

use std::{collections::BTreeSet, net::IpAddr};

use super::Recorded;
use crate::{
    firewall::evaluate::{Packet, packet::Side},
    model::{
        L4, Tuple,
        hook::Hook,
        path::{CtState, Direction, Traversal},
    },
};

/// What is known of one end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certainty {
    /// Address and port.
    Whole,
    /// The address.
    Address,
    /// Nothing.
    Nothing,
}

/// The tuple of a packet; what is not known of it is that of another flow of the same line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub tuple: Tuple,
    pub source: Certainty,
    pub destination: Certainty,
}

impl Ends {
    /// The packet. Identifiers of ICMP are chosen anew for each flow, and unknown.
    pub fn packet(&self) -> Option<Packet> {
        let Tuple { src, dst, proto, l4 } = self.tuple;
        let mut packet = Packet::new(src, dst, proto)?;
        match l4 {
            L4::Ports { src, dst } => {
                packet.set_port(Side::Source, src);
                packet.set_port(Side::Destination, dst);
            }
            L4::Icmp { kind, code, .. } => packet.set_icmp(kind, code),
            L4::Gre { .. } | L4::None => {}
        }
        for (side, certainty) in
            [(Side::Source, self.source), (Side::Destination, self.destination)]
        {
            if certainty != Certainty::Whole {
                packet.forget_port(side);
            }
            if certainty == Certainty::Nothing {
                packet.forget_address(side);
            }
        }
        Some(packet)
    }
}

/// The reply direction of a flow in an epoch of the ruleset.
pub(super) struct Reply {
    pub tuple: Tuple,
    source: Certainty,
    destination: Certainty,
}

impl Reply {
    /// Packets of it as they come.
    pub fn ends(&self) -> Ends {
        Ends { tuple: self.tuple, source: self.source, destination: self.destination }
    }

    /// Packets of the original direction as they leave.
    fn translated(&self) -> Option<Ends> {
        let tuple = self.tuple.inverted()?;
        Some(Ends { tuple, source: self.destination, destination: self.source })
    }
}

impl Recorded<'_> {
    /// The tuple of packets as they come: of a folded flow with the source port that the first one had, if no address
    /// was translated.
    pub(super) fn original(&self) -> Ends {
        let mut tuple = self.flow.key.orig;
        if self.folded
            && let (Some(reply), L4::Ports { src, .. }) = (self.flow.reply, &mut tuple.l4)
            && let L4::Ports { dst: port, .. } = reply.l4
            && reply.dst == tuple.src
        {
            *src = port;
        }
        let source = if self.folded { Certainty::Address } else { Certainty::Whole };
        Ends { tuple, source, destination: Certainty::Whole }
    }

    /// The reply direction, behind translation; `None` of ICMP messages that are not answered.
    pub(super) fn reply(&self, epoch: Option<u32>) -> Option<Reply> {
        let tuple = self.flow.reply.or_else(|| self.flow.key.orig.inverted())?;
        if !self.folded || self.flow.merged() <= 1 {
            let destination = if self.folded { Certainty::Address } else { Certainty::Whole };
            return Some(Reply { tuple, source: Certainty::Whole, destination });
        }
        let to = self.translations(epoch, [Hook::Prerouting, Hook::Output], Side::Destination);
        let from = self.translations(epoch, [Hook::Postrouting, Hook::Input], Side::Source);
        let certain = |one: bool, certainty| if one { certainty } else { Certainty::Nothing };
        Some(Reply {
            tuple,
            source: certain(to.len() <= 1, Certainty::Whole),
            destination: certain(from.len() <= 1, Certainty::Address),
        })
    }

    /// To what first packets that were traced had one side translated: `None` inside, not at all.
    fn translations(
        &self,
        epoch: Option<u32>,
        hooks: [Hook; 2],
        side: Side,
    ) -> BTreeSet<Option<(IpAddr, Option<u16>)>> {
        let first = |path: &&Traversal| {
            hooks.contains(&path.hook)
                && path.state == CtState::New
                && path.direction == Direction::Original
                && epoch.is_none_or(|epoch| path.epoch == epoch)
        };
        let paths = self.flow.paths.iter().map(|(path, _)| path).filter(first);
        let translated = paths.map(|path| {
            let (_, after) = path.nat.as_ref()?;
            match (side, after.l4) {
                (Side::Destination, L4::Ports { src, .. }) => Some((after.src, Some(src))),
                (Side::Destination, _) => Some((after.src, None)),
                // Ports of sources are chosen anew for each flow.
                (Side::Source, _) => Some((after.dst, None)),
            }
        });
        translated.collect()
    }

    /// The tuple of packets of a flow with an entry where a hook begins. NAT changes destinations at PREROUTING and
    /// OUTPUT, sources at POSTROUTING and INPUT.
    pub(super) fn ends_at(&self, path: &Traversal) -> Option<Ends> {
        let original = self.original();
        let reply = self.reply(Some(path.epoch))?;
        let translated = reply.translated()?;
        let as_it_comes = matches!(path.hook, Hook::Ingress | Hook::Prerouting | Hook::Output);
        let left = path.hook == Hook::Egress;
        // A packet of this host to itself has left it before it comes in.
        let looped = self.is_looped() && matches!(path.hook, Hook::Prerouting | Hook::Input);
        Some(match path.direction {
            Direction::Original if left || looped => translated,
            Direction::Original if as_it_comes => original,
            Direction::Original => joined(original, translated),
            Direction::Reply => {
                let comes = reply.ends();
                let leaves = Ends {
                    tuple: original.tuple.inverted()?,
                    source: original.destination,
                    destination: original.source,
                };
                match as_it_comes {
                    _ if left || looped => leaves,
                    true => comes,
                    false => joined(comes, leaves),
                }
            }
        })
    }

    /// Whether this host sends the flow's packets to itself.
    pub(super) fn is_looped(&self) -> bool {
        matches!(&self.output, Ok(Some(output)) if output.text() == "lo") || self.comes_by_lo()
    }

    /// Whether the first packet that was seen of it had left this host before.
    pub(super) fn comes_by_lo(&self) -> bool {
        matches!(&self.input, Ok(Some(input)) if input.text() == "lo")
    }
}

/// The source of one tuple and the destination of another.
fn joined(source: Ends, destination: Ends) -> Ends {
    let l4 = match (source.tuple.l4, destination.tuple.l4) {
        (L4::Ports { src, .. }, L4::Ports { dst, .. }) => L4::Ports { src, dst },
        (L4::Gre { src, .. }, L4::Gre { dst, .. }) => L4::Gre { src, dst },
        (l4, _) => l4,
    };
    let tuple = Tuple { dst: destination.tuple.dst, l4, ..source.tuple };
    Ends { tuple, source: source.source, destination: destination.destination }
}
