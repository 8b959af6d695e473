//! Packets of a flow whose first packet has passed.

use conntracker_common::{
    IPPROTO_TCP,
    conntrack::{IPS_ASSURED, IPS_CONFIRMED, IPS_DST_NAT_DONE, IPS_SEEN_REPLY, IPS_SRC_NAT_DONE},
};

use super::{ACK, FLAGS, SYN, Sample};
use crate::{
    firewall::evaluate::{
        Attr, Origin, Packet,
        interface::Interface,
        journey::Ending,
        packet::{PacketType, Side},
        tracking::Tracking,
        unknown::Attribute,
        word::Word,
    },
    model::{
        L4, Tuple,
        path::{CtState, Direction},
    },
};

/// What conntrack has of a flow whose first packet has passed, an entry or nothing, with the headers of the packets of
/// both directions.
#[derive(Clone, Debug)]
pub struct Entry {
    /// A packet of the original direction as it comes.
    pub(super) original: Packet,
    /// A packet of the reply direction as it comes.
    pub(super) reply: Option<Packet>,
    pub(super) tracking: Tracking,
    /// Interfaces of the original direction; `None` inside: this host.
    pub(super) input: Attr<Option<Interface>>,
    pub(super) output: Attr<Option<Interface>>,
}

impl Entry {
    /// What a first packet has left behind at its end.
    #[must_use]
    pub fn of(first: &Sample, ending: &Ending) -> Self {
        let mut tracking = ending.packet.tracking.clone();
        let reply;
        if tracking.has_entry() == Ok(true) {
            let done = IPS_SRC_NAT_DONE | IPS_DST_NAT_DONE;
            tracking.status = tracking.status.with(IPS_CONFIRMED | done);
            reply = answer(&ending.packet, &tracking);
            if tracking.reply.is_err() {
                tracking.reply = whole_reply(&ending.packet, &tracking);
            }
        } else {
            // What conntrack did not see has the tuple that it would have seen.
            tracking.original = first.packet.tracking.original;
            reply = answer(&ending.packet, &tracking);
        }
        let looped = matches!(&ending.packet.input, Ok(Some(input)) if input.text() == "lo");
        Self {
            original: first.packet.clone(),
            reply,
            tracking,
            input: if first.origin == Origin::Received {
                first.packet.input.clone()
            } else {
                Ok(None)
            },
            output: if looped { Ok(None) } else { ending.packet.output.clone() },
        }
    }

    /// The packet of a direction once both ends have spoken: of TCP the reply is SYN and ACK, and ACK follows. Answers
    /// come back by the interface by which the flow has left.
    #[must_use]
    pub fn packet(&self, direction: Direction) -> Option<Sample> {
        let (header, comes) = match direction {
            Direction::Original => (&self.original, &self.input),
            Direction::Reply => (self.reply.as_ref()?, &self.output),
        };
        let mut packet = header.clone();
        if packet.protocol() == Ok(IPPROTO_TCP) {
            let flags = if direction == Direction::Reply { SYN | ACK } else { ACK };
            packet.set_tcp_flags(flags, FLAGS);
        }
        packet.tracking = self.tracking_of(direction, packet.protocol());
        if direction == Direction::Reply {
            packet.mark = Word::new(0, Attribute::Mark.into());
        }
        // The kernel tells both apart: by an interface, or from a socket.
        let origin = match comes {
            Ok(None) => Origin::Local,
            Ok(Some(of)) if of.text() == "lo" => Origin::Local,
            _ => Origin::Received,
        };
        if origin == Origin::Received {
            packet.input.clone_from(comes);
            (packet.output, packet.owner) = (Ok(None), Ok(None));
            packet.packet_type = Ok(PacketType::Host);
        }
        Some(Sample { packet, origin })
    }
}

impl Entry {
    /// What conntrack says about a packet.
    fn tracking_of(&self, direction: Direction, protocol: Attr<u8>) -> Tracking {
        let tracking = &self.tracking;
        if tracking.has_entry() == Ok(true) {
            return Tracking {
                state: Ok(CtState::Established),
                direction: Ok(direction),
                status: tracking.status.with(IPS_SEEN_REPLY).forget(IPS_ASSURED),
                ..tracking.clone()
            };
        }
        // Without an entry it looks at each packet as if it were the first one. Of TCP those with SYN and ACK begin
        // nothing, and whether others do is a setting (nf_conntrack_tcp_loose).
        let tuple = match direction {
            Direction::Original => tracking.original.ok(),
            Direction::Reply => tracking.original.ok().and_then(Tuple::inverted),
        };
        match (tuple, direction) {
            (Some(tuple), _) if protocol != Ok(IPPROTO_TCP) => Tracking::first(&tuple),
            (_, Direction::Reply) => Tracking::without_entry(CtState::Invalid),
            _ => Tracking::unknown(),
        }
    }
}

/// The answer to a packet that has reached its destination.
fn answer(reached: &Packet, tracking: &Tracking) -> Option<Packet> {
    let source = reached.address(Side::Destination).ok()?;
    let destination = reached.address(Side::Source);
    let protocol = reached.protocol().ok()?;
    let mut packet = Packet::new(source, destination.unwrap_or(source), protocol)?;
    if destination.is_err() {
        packet.forget_address(Side::Destination);
    }
    for (side, other) in [(Side::Source, Side::Destination), (Side::Destination, Side::Source)] {
        match reached.port(other) {
            Ok(Some(port)) => packet.set_port(side, port),
            Ok(None) => {}
            Err(_) => packet.forget_port(side),
        }
    }
    if let Ok(Some(L4::Icmp { kind, code, .. })) =
        tracking.original.map(|tuple| tuple.inverted().map(|tuple| tuple.l4))
    {
        packet.set_icmp(kind, code);
    }
    Some(packet)
}

/// The reply tuple with the source port of the original direction in the place of that which NAT will choose: the
/// kernel keeps it where no other flow has it.
fn whole_reply(reached: &Packet, tracking: &Tracking) -> Attr<Tuple> {
    let original = tracking.original?;
    let inverted = original.inverted().ok_or(Attribute::CtTuple)?;
    let (src, dst) = (reached.address(Side::Destination)?, reached.address(Side::Source)?);
    let port = |side, kept| reached.port(side).ok().flatten().unwrap_or(kept);
    let l4 = match inverted.l4 {
        L4::Ports { src, dst } => {
            L4::Ports { src: port(Side::Destination, src), dst: port(Side::Source, dst) }
        }
        other => other,
    };
    Ok(Tuple { src, dst, l4, ..inverted })
}
