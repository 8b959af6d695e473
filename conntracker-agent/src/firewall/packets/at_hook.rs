//! The packets of a path that was traced, where its hook begins.

use conntracker_common::{
    IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP,
    conntrack::{
        IPS_ASSURED, IPS_CONFIRMED, IPS_DST_NAT, IPS_DST_NAT_DONE, IPS_EXPECTED, IPS_NAT,
        IPS_SEEN_REPLY, IPS_SRC_NAT, IPS_SRC_NAT_DONE,
    },
};

use super::{Recorded, ends::Certainty};
use crate::{
    firewall::evaluate::{
        Packet,
        packet::{PacketType, Side},
        tracking::Tracking,
        unknown::Attribute,
        word::Word,
    },
    model::{
        L4, Status, Tuple, ZoneDir,
        hook::Hook,
        path::{CtState, Direction, Traversal},
    },
};

const DONE: u32 = IPS_SRC_NAT_DONE | IPS_DST_NAT_DONE;

impl Recorded<'_> {
    /// The packets that may have taken a path, as they were when its hook began: several where the path does not tell
    /// them apart, as the first packet of a flow and one that came before an answer did.
    #[must_use]
    pub fn at(&self, path: &Traversal) -> Vec<Packet> {
        let mut packets = match path.state {
            CtState::Invalid | CtState::Untracked => Vec::from_iter(self.without_entry(path)),
            CtState::Early => self.early(path),
            CtState::Related if self.flow.parent.is_none() => self.answers(path),
            state => {
                let later = Vec::from_iter(self.later(path));
                let first = (state != CtState::Established).then(|| self.begins(path)).flatten();
                // A translation is set up once.
                let later = later.into_iter().filter(|_| first.is_none() || path.nat.is_none());
                let later: Vec<Packet> = later.collect();
                first.into_iter().chain(later).collect()
            }
        };
        for packet in &mut packets {
            self.dress(packet, path);
        }
        packets
    }

    /// A packet of no entry has the addresses with which it came.
    fn without_entry(&self, path: &Traversal) -> Option<Packet> {
        let ends = match path.direction {
            Direction::Original => self.original(),
            Direction::Reply => {
                self.ends_at(&Traversal { hook: Hook::Prerouting, ..path.clone() })?
            }
        };
        let mut packet = ends.packet()?;
        packet.tracking = Tracking::without_entry(path.state);
        Some(packet)
    }

    /// A packet that has not come to conntrack's function. What this host sends as an answer has the entry of what it
    /// answers (`nf_ct_attach`), and what it sends to itself that which it had when it left.
    fn early(&self, path: &Traversal) -> Vec<Packet> {
        let packet = self.without_entry(path);
        let attached = path.hook == Hook::Output || self.is_looped();
        let with_entry = packet.clone().filter(|_| attached).map(|mut packet| {
            packet.tracking = Tracking::unknown();
            packet
        });
        packet.into_iter().chain(with_entry).collect()
    }

    /// The first packet of a flow. Of its entry only what conntrack and NAT have made of it before this hook is there.
    fn begins(&self, path: &Traversal) -> Option<Packet> {
        let ends = self.ends_at(path)?;
        let mut packet = ends.packet()?;
        let tracking = Tracking::first(&self.original().tuple);
        if tracking.has_entry() != Ok(true) {
            return None;
        }
        packet.tracking = if matches!(path.hook, Hook::Prerouting | Hook::Output) {
            tracking
        } else {
            let unknown = Tracking::unknown();
            let original = tracking.original;
            let to = self.reply(Some(path.epoch))?.tuple;
            let reply = original.ok().and_then(Tuple::inverted);
            let source = |tuple: &Tuple| (tuple.src, source_port(tuple));
            let same = reply.is_some_and(|reply| source(&reply) == source(&to));
            let (status, known) = match ends.destination {
                _ if same => (0, !IPS_DST_NAT_DONE),
                Certainty::Whole => (IPS_DST_NAT, !IPS_DST_NAT_DONE),
                _ => (0, !(IPS_DST_NAT | IPS_DST_NAT_DONE)),
            };
            let reply = ends.tuple.inverted().filter(|_| ends.destination == Certainty::Whole);
            Tracking {
                status: Word::partly(status, known, Attribute::CtStatus.into()),
                reply: reply.ok_or(Attribute::CtTuple.into()),
                helper: unknown.helper,
                labels: unknown.labels,
                ..tracking
            }
        };
        if path.state == CtState::Related {
            packet.tracking.status = packet.tracking.status.with(IPS_EXPECTED);
        }
        self.entry(&mut packet, path);
        Some(packet)
    }

    /// A packet of a flow about whose translation NAT has decided.
    fn later(&self, path: &Traversal) -> Option<Packet> {
        let mut packet = self.ends_at(path)?.packet()?;
        packet.tracking = self.settled(Some(path.epoch), path.state == CtState::Established)?;
        self.entry(&mut packet, path);
        Some(packet)
    }

    /// What the entry of a flow says whose first packet has passed; `answered`: packets came back.
    pub(super) fn settled(&self, epoch: Option<u32>, answered: bool) -> Option<Tracking> {
        let flow = self.flow;
        let original = self.original().tuple;
        let reply = self.reply(epoch)?.tuple;
        let several = self.folded && flow.merged() > 1;
        let mut status = Word::partly(
            IPS_CONFIRMED | DONE,
            IPS_CONFIRMED | DONE | IPS_SEEN_REPLY,
            Attribute::CtStatus.into(),
        );
        if answered {
            status = status.with(IPS_SEEN_REPLY);
        }
        // No bit is set that no flow of the line ever had.
        for bit in [IPS_ASSURED, IPS_EXPECTED, IPS_SRC_NAT, IPS_DST_NAT] {
            let had = flow.status.contains(Status(bit));
            if !had {
                status = status.changed(0, bit);
            } else if !several && bit != IPS_ASSURED {
                status = status.with(bit);
            }
        }
        if flow.status.0 & IPS_NAT == 0 && original.inverted() != Some(reply) && !several {
            status = status.forget(IPS_NAT);
        }
        Some(Tracking {
            state: Ok(CtState::Established),
            direction: Ok(Direction::Original),
            status,
            original: Ok(original),
            reply: Ok(reply),
            ..Tracking::unknown()
        })
    }

    /// What a path says of the packet's entry.
    fn entry(&self, packet: &mut Packet, path: &Traversal) {
        let tracking = &mut packet.tracking;
        tracking.state = Ok(path.state);
        tracking.direction = Ok(path.direction);
        let mark = path.connmark.map(|(before, _)| Word::new(before, Attribute::CtMark.into()));
        tracking.mark = mark.unwrap_or(Word::unknown(Attribute::CtMark.into()));
        tracking.zone = match self.flow.zone_dir {
            ZoneDir::Both => Ok(self.flow.key.zone),
            _ => Err(Attribute::CtZone.into()),
        };
    }

    /// Errors of ICMP about the flow, from whomever, and resets by which this host refuses a packet of it.
    fn answers(&self, path: &Traversal) -> Vec<Packet> {
        let Some(ends) = self.ends_at(path) else { return Vec::new() };
        let Tuple { dst, proto, .. } = ends.tuple;
        let icmp = if dst.is_ipv4() { IPPROTO_ICMP } else { IPPROTO_ICMPV6 };
        let error = Packet::new(dst, dst, icmp).map(|mut packet| {
            packet.forget_address(Side::Source);
            if ends.destination == Certainty::Nothing {
                packet.forget_address(Side::Destination);
            }
            packet
        });
        let sent_here = matches!(path.hook, Hook::Output | Hook::Postrouting);
        let reset = ends.packet().filter(|_| proto == IPPROTO_TCP && sent_here);
        let mut packets: Vec<Packet> = error.into_iter().chain(reset).collect();
        for packet in &mut packets {
            let settled = self.settled(Some(path.epoch), false);
            packet.tracking = settled.unwrap_or_else(Tracking::unknown);
            // It may be about the first packet, whose entry is not in the table yet.
            packet.tracking.status = Word::unknown(Attribute::CtStatus.into());
            self.entry(packet, path);
        }
        packets
    }

    /// What a packet has besides its headers and its entry.
    fn dress(&self, packet: &mut Packet, path: &Traversal) {
        packet.mark = Word::new(path.packet_mark.0, Attribute::Mark.into());
        let (input, output) = match path.direction {
            Direction::Original => (self.input.clone(), self.output.clone()),
            // By which interface they come is not recorded.
            Direction::Reply => {
                (Err(Attribute::InputInterface.into()), Err(Attribute::OutputInterface.into()))
            }
        };
        let looped = self.is_looped();
        packet.input = match path.hook {
            Hook::Output => Ok(None),
            // An answer to what was refused begins here.
            Hook::Postrouting if path.state == CtState::Related => {
                Err(Attribute::InputInterface.into())
            }
            _ if looped => Err(Attribute::InputInterface.into()),
            _ => input,
        };
        packet.output = match path.hook {
            Hook::Ingress | Hook::Prerouting | Hook::Input => Ok(None),
            _ if looped || path.state == CtState::Related => Err(Attribute::OutputInterface.into()),
            // What rules change is routed again behind this hook, and the last route is recorded.
            Hook::Output
                if path.nat.is_some()
                    || path.packet_mark.0 != path.packet_mark.1
                    || self.flow.status.contains(Status::DST_NAT) =>
            {
                Err(Attribute::OutputInterface.into())
            }
            // That of a packet that leaves is never none.
            _ => {
                output.and_then(|output| output.map(Some).ok_or(Attribute::OutputInterface.into()))
            }
        };
        packet.owner = match path.hook {
            Hook::Ingress | Hook::Prerouting | Hook::Forward if !looped => Ok(None),
            _ => Err(Attribute::Owner.into()),
        };
        if path.hook == Hook::Output {
            packet.link = None;
        }
        // What is forwarded was for this host, and so is what a connection of TCP consists of.
        if path.hook == Hook::Forward || self.flow.key.orig.proto == IPPROTO_TCP {
            packet.packet_type = Ok(PacketType::Host);
        }
    }
}

fn source_port(tuple: &Tuple) -> Option<u16> {
    match tuple.l4 {
        L4::Ports { src, .. } => Some(src),
        _ => None,
    }
}
