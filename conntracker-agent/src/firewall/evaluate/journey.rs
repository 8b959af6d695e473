//! A packet from hook to hook, with the routes between them.

use std::rc::Rc;

use conntracker_common::conntrack::IPS_CONFIRMED;

use super::{
    context::Context,
    header::Header,
    hook,
    interface::Interface,
    packet::{Layer3, Packet, PacketType, Side},
    routes::{Route, RouteQuery, RouteType, Routes},
    ruleset::Firewall,
    state::{EvaluatedStep, Fate, State},
    tracking::Tracking,
    unknown::{Attr, Attribute, UnknownSet},
    word::Word,
};
use crate::model::{hook::Hook, path::CtState};

/// Where a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// An interface received it.
    Received,
    /// A process of this host sends it.
    Local,
    /// This host sends it as an answer to a packet that it refused: a reset of `reject`, an ICMP error. It belongs to
    /// the flow of that packet from the beginning (`nf_ct_attach`), and is not looked up.
    Answer,
}

/// One possible end of a packet.
#[derive(Clone, Debug)]
pub struct Ending {
    /// What became of it.
    pub fate: Fate,
    /// The packet at its end, with all that rules changed.
    pub packet: Packet,
    /// Its steps, hook by hook.
    pub steps: Vec<EvaluatedStep>,
    /// The unknown that this end hangs on.
    pub why: UnknownSet,
}

impl Ending {
    pub(super) fn of(fate: Fate, state: State) -> Self {
        let State { packet, steps, why, .. } = state;
        Self { fate, packet: *packet, steps, why }
    }
}

/// All possible ends of a packet.
#[derive(Clone, Debug, Default)]
pub struct Evaluation {
    /// At least one.
    pub endings: Vec<Ending>,
}

impl Evaluation {
    /// What becomes of the packet, or why that is undecided.
    pub fn fate(&self) -> Result<Fate, UnknownSet> {
        let reasons = || self.endings.iter().fold(UnknownSet::NONE, |all, end| all.union(end.why));
        match self.endings.split_first() {
            Some((first, others))
                if first.fate != Fate::Unknown
                    && others.iter().all(|other| other.fate == first.fate) =>
            {
                Ok(first.fate)
            }
            _ => Err(reasons()),
        }
    }
}

/// Takes a packet through the firewall. `packet.tracking` is what conntrack says once it sees the packet.
#[must_use]
pub fn evaluate(
    firewall: &Firewall,
    mut packet: Packet,
    origin: Origin,
    routes: &dyn Routes,
) -> Evaluation {
    let upcoming = packet.tracking.clone();
    if origin != Origin::Answer {
        packet.tracking = Tracking::without_entry(CtState::Early);
    }
    let (packet, upcoming) = (Box::new(packet), Rc::new(upcoming));
    let state = State { packet, upcoming, steps: Vec::new(), why: UnknownSet::NONE };
    let mut journey = Journey { firewall, routes, endings: Vec::new() };
    match origin {
        Origin::Received => journey.receive(state),
        Origin::Local | Origin::Answer => journey.send(state),
    }
    Evaluation { endings: journey.endings }
}

struct Journey<'a> {
    firewall: &'a Firewall,
    routes: &'a dyn Routes,
    endings: Vec<Ending>,
}

impl Journey<'_> {
    /// The states that pass a hook.
    fn pass(&mut self, hook: Hook, state: State) -> Vec<State> {
        let context = Context { hook, routes: self.routes };
        let behind = hook::evaluate(self.firewall, context, state);
        for (fate, state) in behind.ended {
            self.end(fate, state);
        }
        behind.passed
    }

    fn end(&mut self, fate: Fate, state: State) {
        self.endings.push(Ending::of(fate, state));
    }

    fn receive(&mut self, state: State) {
        for state in self.pass(Hook::Ingress, state) {
            self.prerouting(state);
        }
    }

    fn prerouting(&mut self, state: State) {
        for mut state in self.pass(Hook::Prerouting, state) {
            match self.route(&state.packet) {
                Err(why) => {
                    state.why = state.why.union(why.into());
                    self.end(Fate::Unknown, state);
                }
                Ok(route) => match route.kind {
                    // Broadcasts come in.
                    RouteType::Local | RouteType::Broadcast | RouteType::Anycast => {
                        self.deliver(state);
                    }
                    RouteType::Multicast => {
                        // If this host is in the group, which routes do not tell.
                        state.why = state.why.union(Attribute::Routes.into());
                        self.end(Fate::NoRoute, state.clone());
                        self.deliver(state);
                    }
                    RouteType::Unicast => self.forward(state, route),
                    _ => self.end(Fate::NoRoute, state),
                },
            }
        }
    }

    fn route(&self, packet: &Packet) -> Attr<Route> {
        let input = packet.input.as_ref().map_err(|why| *why)?.as_ref();
        let from = match packet.address(Side::Source) {
            Err(_) if input.is_some() && !self.routes.depends_on_source() => None,
            address => Some(address?),
        };
        let Ok(to) = packet.address(Side::Destination) else { return self.routes.route_of_all() };
        self.routes.route(&RouteQuery { to, from, input, output: None, mark: packet.mark.get()? })
    }

    fn deliver(&mut self, mut state: State) {
        // The kernel looks for the socket before this hook, and rules can read its owner.
        state.packet.owner = Err(Attribute::Owner.into());
        for state in self.pass(Hook::Input, state) {
            self.end(Fate::Accept, state);
        }
    }

    fn forward(&mut self, mut state: State, route: Route) {
        let packet = &mut state.packet;
        packet.output = route.interface.map(Some).ok_or(Attribute::OutputInterface.into());
        match packet.ttl() {
            Ok(0 | 1) => return self.end(Fate::Expired, state),
            // It is counted down before this hook.
            Ok(ttl) => packet.set_ttl(ttl - 1),
            Err(_) => {}
        }
        if packet.layer3() == Layer3::Ip {
            // From the type of service (`rt_tos2priority`).
            packet.priority = match packet.dscp_and_ecn() {
                Ok(tos) if tos & 0x1e == 0 => Word::new(0, Attribute::Priority.into()),
                _ => Word::unknown(Attribute::Priority.into()),
            };
        }
        for state in self.pass(Hook::Forward, state) {
            self.leave(state);
        }
    }

    fn send(&mut self, mut state: State) {
        state.packet.link = None;
        state.packet.input = Ok(None);
        if state.packet.output.is_err()
            && let Err(why) = self.reroute(&mut state)
        {
            return self.end(why, state);
        }
        let keys = |packet: &Packet| {
            (packet.address(Side::Source), packet.address(Side::Destination), packet.mark)
        };
        let before = keys(&state.packet);
        for mut state in self.pass(Hook::Output, state) {
            // Routed again where a rule changed what the route hangs on (`ip_route_me_harder`). A mark counts in
            // chains of type route alone, and where it is all the same to routing, the route is.
            if keys(&state.packet) != before
                && let Err(why) = self.reroute(&mut state)
            {
                self.end(why, state);
                continue;
            }
            self.leave(state);
        }
    }

    /// Sets the interface of output of a packet of this host.
    fn reroute(&mut self, state: &mut State) -> Result<(), Fate> {
        match self.route(&state.packet) {
            Ok(Route {
                kind:
                    RouteType::Unspec
                    | RouteType::Blackhole
                    | RouteType::Unreachable
                    | RouteType::Prohibit,
                ..
            }) => Err(Fate::NoRoute),
            Ok(Route { kind: RouteType::Local, .. }) => {
                state.packet.output = Ok(Some(Interface::named("lo").with_index(1)));
                Ok(())
            }
            Ok(route) => {
                let interface = route.interface.map(Some);
                state.packet.output = interface.ok_or(Attribute::OutputInterface.into());
                Ok(())
            }
            Err(why) => {
                state.why = state.why.union(why.into());
                Err(Fate::Unknown)
            }
        }
    }

    fn leave(&mut self, state: State) {
        for state in self.pass(Hook::Postrouting, state) {
            for state in self.pass(Hook::Egress, state) {
                let output = state.packet.output.as_ref().ok().and_then(Option::as_ref);
                match output.filter(|output| output.name == Interface::named("lo").name) {
                    Some(lo) => {
                        let lo = lo.clone();
                        self.loop_back(state, lo);
                    }
                    None => self.end(Fate::Accept, state),
                }
            }
        }
    }

    /// A packet of this host to itself comes in through `lo`, with its conntrack entry.
    fn loop_back(&mut self, mut state: State, lo: Interface) {
        let packet = &mut state.packet;
        if packet.tracking.has_entry() == Ok(true) {
            // The last function of postrouting.
            packet.tracking.status = packet.tracking.status.with(IPS_CONFIRMED);
        }
        let mut link = Header::UNKNOWN;
        link.set(0, &[0; 12]);
        packet.link = Some(link);
        packet.vlan = Ok(None);
        packet.packet_type = Ok(PacketType::Host);
        packet.input = Ok(Some(lo));
        packet.output = Ok(None);
        packet.owner = Ok(None);
        self.receive(state);
    }
}
