//! The packet that begins a flow.

use conntracker_common::{IPPROTO_TCP, conntrack::IPS_EXPECTED};

use super::{Entry, FLAGS, Recorded, SYN, Sample};
use crate::{
    firewall::evaluate::{
        Origin, Packet,
        packet::{PacketType, Side},
        routes::{RouteQuery, RouteType, Routes},
        tracking::Tracking,
        unknown::Attribute,
        word::Word,
    },
    model::{
        L4,
        hook::Hook,
        path::{CtState, Direction},
    },
};

impl Recorded<'_> {
    /// The packet that would begin the flow. A connection of TCP begins with SYN; that of packets that never had an
    /// entry because conntrack found them invalid is invalid again.
    #[must_use]
    pub fn first(&self, routes: &dyn Routes) -> Option<Sample> {
        let flow = self.flow;
        let ends = self.original();
        // An error about a packet of another flow is sent if that is; a packet that has left comes in again.
        let error = matches!(ends.tuple.l4, L4::Icmp { .. }) && ends.tuple.inverted().is_none();
        if error || !flow.key.entry && self.comes_by_lo() {
            return None;
        }
        let mut packet = ends.packet()?;
        packet.tracking = if self.is_invalid() {
            Tracking::without_entry(CtState::Invalid)
        } else {
            if ends.tuple.proto == IPPROTO_TCP {
                packet.set_tcp_flags(SYN, FLAGS);
            }
            Tracking::first(&ends.tuple)
        };
        if flow.parent.is_some() && packet.tracking.has_entry() == Ok(true) {
            let tracking = &mut packet.tracking;
            tracking.state = Ok(CtState::Related);
            tracking.status = tracking.status.with(IPS_EXPECTED);
            // It has the mark of its parent, and may have a helper.
            tracking.mark = Word::unknown(Attribute::CtMark.into());
            tracking.helper = Err(Attribute::CtHelper.into());
        }
        packet.mark = self.mark_at_first();
        let origin = self.arrive(&mut packet, routes);
        Some(Sample { packet, origin })
    }

    /// The entry of a flow that is in conntrack's table when rules are loaded; `None` if it has ended, or never was
    /// there.
    #[must_use]
    pub fn entry_now(&self) -> Option<Entry> {
        let flow = self.flow;
        if !flow.key.entry || flow.merged() == 0 || flow.ended >= flow.merged() {
            return None;
        }
        let mut tracking = self.settled(None, flow.confirmed())?;
        tracking.zone = Ok(flow.key.zone);
        if let Some(mark) = flow.mark {
            tracking.mark = Word::new(mark.0, Attribute::CtMark.into());
        }
        let mut original = self.original().packet()?;
        original.mark = self.mark_at_first();
        Some(Entry {
            original,
            reply: self.reply(None).and_then(|reply| reply.ends().packet()),
            tracking,
            input: self.input.clone(),
            output: self.output.clone(),
        })
    }

    /// Whether all that was seen of it are invalid packets.
    fn is_invalid(&self) -> bool {
        let mut states = self.flow.paths.iter().map(|(path, _)| path.state).peekable();
        !self.flow.key.entry
            && states.peek().is_some()
            && states.all(|state| matches!(state, CtState::Invalid | CtState::Early))
            && self.flow.paths.iter().any(|(path, _)| path.state == CtState::Invalid)
    }

    /// The packet mark with which first packets of the flow came. Where none was traced it is 0: nothing sets it
    /// before the first hook but programs of tc, and sockets for their own packets.
    fn mark_at_first(&self) -> Word {
        let begins = |state| matches!(state, CtState::Early | CtState::New | CtState::Invalid);
        let paths = self.flow.paths.iter().map(|(path, _)| path);
        let came = paths.filter(|path| {
            matches!(path.hook, Hook::Prerouting | Hook::Output)
                && path.direction == Direction::Original
                && begins(path.state)
        });
        // Before conntrack's function, if that was traced: rules there may have set it.
        let (early, late): (Vec<_>, Vec<_>) = came.partition(|path| path.state == CtState::Early);
        let of = if early.is_empty() { late } else { early };
        let mut marks = of.iter().map(|path| path.packet_mark.0);
        let first = marks.next().unwrap_or_default();
        let unknown = Attribute::Mark.into();
        if marks.all(|mark| mark == first) {
            Word::new(first, unknown)
        } else {
            Word::unknown(unknown)
        }
    }

    /// How the packet comes to the firewall.
    fn arrive(&self, packet: &mut Packet, routes: &dyn Routes) -> Origin {
        let own = || {
            let source = packet.address(Side::Source).map(RouteQuery::to);
            let kind = source.and_then(|query| routes.address_type(&query));
            kind == Ok(RouteType::Local)
        };
        let sent_here = match &self.input {
            Ok(input) => input.is_none(),
            Err(_) => own(),
        };
        if sent_here {
            return Origin::Local;
        }
        packet.input.clone_from(&self.input);
        packet.output = Ok(None);
        packet.owner = Ok(None);
        packet.packet_type = match (packet.protocol(), &self.output) {
            (Ok(IPPROTO_TCP), _) | (_, Ok(Some(_))) => Ok(PacketType::Host),
            _ => Err(Attribute::PacketType.into()),
        };
        Origin::Received
    }
}
