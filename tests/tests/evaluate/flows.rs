//! What conntrack knows of the flows of a burst, kept as the evaluator says that it becomes.

use std::collections::HashMap;

use conntracker::{
    Conntrack,
    firewall::evaluate::{journey::Ending, word::Word},
    firewall::evaluate::{state::Fate, tracking::Tracking, unknown::Attribute},
    model::{
        L4, Status, Tuple,
        path::{CtState, Direction},
    },
};
use conntracker_tests::{lab::Host, oracle};

/// Conntrack's table.
#[derive(Default)]
pub(crate) struct Flows {
    entries: Vec<Tracking>,
    by_tuple: HashMap<Tuple, (usize, Direction)>,
    /// The reply tuples of original ones, as the kernel has them: NAT chose some of their ports.
    replies: HashMap<Tuple, Tuple>,
}

/// IPS_SRC_NAT_DONE and IPS_DST_NAT_DONE.
const DONE: u32 = 1 << 7 | 1 << 8;

impl Flows {
    /// Without entries; `host` says how NAT chose ports.
    pub(crate) fn new(host: &Host) -> Self {
        let replies = host.enter(|| {
            let mut replies = HashMap::new();
            let mut dump = Conntrack::connect()?;
            let mut dump = dump.dump()?;
            while let Some(entry) = dump.next()? {
                replies.extend(entry.reply.map(|reply| (entry.orig, reply)));
            }
            Ok(replies)
        });
        Self { replies: replies.unwrap(), ..Self::default() }
    }

    /// What conntrack says about a packet, with the state that the kernel says it has.
    pub(crate) fn tracking(&self, tuple: &Tuple, traced: &oracle::Packet) -> Tracking {
        let found = self.by_tuple.get(tuple).and_then(|(entry, direction)| {
            let entry = self.entries.get(*entry)?;
            Some(Tracking { direction: Ok(*direction), ..entry.clone() })
        });
        let Some(state) = state(traced) else {
            // Behind conntrack a packet without a state is invalid.
            if traced.runs.iter().any(|run| !run.early()) {
                return Tracking::without_entry(CtState::Invalid);
            }
            return found.unwrap_or_else(Tracking::unknown);
        };
        let direction = if state.reply { Direction::Reply } else { Direction::Original };
        let own = |state| Tracking {
            state: Ok(state),
            direction: Ok(direction),
            ..found.clone().unwrap_or_else(Tracking::unknown)
        };
        match state.name {
            "new" if found.is_none() => Tracking::first(tuple),
            "new" => own(CtState::New),
            "established" => {
                let tracking = own(CtState::Established);
                let status = tracking.status.with(Status::SEEN_REPLY.0);
                Tracking { status: status.forget(Status::ASSURED.0), ..tracking }
            }
            "related" => Tracking {
                status: Word::unknown(Attribute::CtStatus.into()),
                ..own(CtState::Related)
            },
            _ => Tracking::without_entry(CtState::Untracked),
        }
    }

    /// Notes the entry of a packet that came through.
    pub(crate) fn note(&mut self, ending: &Ending) {
        let mut tracking = ending.packet.tracking.clone();
        let entry = matches!(tracking.state, Ok(CtState::New | CtState::Established));
        let (Ok(original), true) = (tracking.original, entry) else { return };
        if let Some((at, _)) = self.by_tuple.get(&original) {
            // Marks may have changed, also where the packet was dropped behind that.
            self.entries[*at].mark = tracking.mark;
            return;
        }
        if ending.fate != Fate::Accept {
            return;
        }
        let index = self.entries.len();
        tracking.status = tracking.status.with(Status::CONFIRMED.0 | DONE);
        self.by_tuple.insert(original, (index, Direction::Original));
        if tracking.reply.is_err()
            && let Some(reply) = self.replies.get(&original)
        {
            tracking.reply = Ok(*reply);
        }
        if let Ok(reply) = tracking.reply {
            self.by_tuple.insert(reply, (index, Direction::Reply));
        }
        self.entries.push(tracking);
    }
}

/// What conntrack thought of a packet when it came to the router.
pub(crate) fn state(traced: &oracle::Packet) -> Option<oracle::State> {
    traced.state.or_else(|| traced.runs.iter().find_map(|run| run.state))
}

impl Flows {
    /// A packet that may have changed the marks of entries: it is undecided, or an ICMP error, which belongs to a
    /// flow of the one that it is for.
    pub(crate) fn doubt(&mut self, tuple: &Tuple, error: bool) {
        let unknown = Word::unknown(Attribute::CtMark.into());
        if let Some(entry) =
            self.by_tuple.get(tuple).and_then(|(entry, _)| self.entries.get_mut(*entry))
        {
            entry.mark = unknown;
        }
        for entry in self.entries.iter_mut().filter(|_| error) {
            let tuples = [entry.original, entry.reply];
            if tuples.iter().flatten().any(|of| [of.src, of.dst].contains(&tuple.dst)) {
                entry.mark = unknown;
            }
        }
    }
}

/// A tuple in the program's own terms.
pub(crate) fn tuple(of: &conntracker_tests::tracer::Tuple) -> Tuple {
    use conntracker_tests::tracer::L4 as Theirs;
    let l4 = match of.l4 {
        Theirs::Ports(src, dst) => L4::Ports { src, dst },
        Theirs::Icmp(kind, code, id) => L4::Icmp { kind, code, id },
        Theirs::Keys(src, dst) => L4::Gre { src, dst },
        Theirs::Nothing => L4::None,
    };
    Tuple { src: of.src, dst: of.dst, proto: of.proto, l4 }
}
