//! What would become of a flow under a ruleset: of the packet that begins it, of the answer, and of what follows.

use std::rc::Rc;

use super::model::Model;
use crate::{
    firewall::{
        evaluate::{
            Attr, Packet,
            journey::Ending,
            packet::Side,
            state::Fate,
            unknown::{Unknown, UnknownSet},
            word::Word,
        },
        packets::{Entry, Sample},
    },
    model::{
        hook::Hook,
        path::{Direction, Verdict},
    },
};

/// Ends of a first packet whose answers are evaluated.
const ANSWERED: usize = 16;

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum FlowFate {
    Accepted,
    Dropped,
    Rejected,
    RepliesDropped,
    LaterDropped,
    NoRoute,
    Expired,
    /// A rule sends it elsewhere, or answers in its place.
    Taken,
    Unknown,
}

impl FlowFate {
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Dropped => "dropped",
            Self::Rejected => "rejected",
            Self::RepliesDropped => "replies dropped",
            Self::LaterDropped => "later packets dropped",
            Self::NoRoute => "no route",
            Self::Expired => "TTL used up",
            Self::Taken => "taken by a rule",
            Self::Unknown => "unknown",
        }
    }

    fn of(fate: Fate) -> Self {
        match fate {
            Fate::Accept => Self::Accepted,
            Fate::Drop => Self::Dropped,
            Fate::Reject => Self::Rejected,
            Fate::NoRoute => Self::NoRoute,
            Fate::Expired => Self::Expired,
            Fate::Stolen => Self::Taken,
            Fate::Queue | Fate::Unknown => Self::Unknown,
        }
    }
}

/// To what an end of a packet is translated; `None`: it is not.
type Translated = Option<(Attr<std::net::IpAddr>, Option<Attr<Option<u16>>>)>;

/// One possible course of a packet.
#[derive(Clone, Debug)]
pub(super) struct Course {
    pub fate: Fate,
    /// Rules that it meets, without policies that accept.
    pub rules: Vec<u32>,
    /// The same for people.
    pub sentences: Vec<Rc<str>>,
    /// Source and destination.
    pub translated: [Translated; 2],
    /// Packet mark and connmark at the end.
    pub marks: [Word; 2],
    /// The step that decides.
    pub by: Option<Rc<str>>,
    pub why: UnknownSet,
}

impl Course {
    fn of(sample: &Sample, ending: &Ending, model: &Model<'_>) -> (Self, bool) {
        let named = || ending.steps.iter().filter_map(|step| Some((step, model.named(step)?)));
        let decides = || named().filter(|(_, name)| name.decides());
        let filters = |hook| matches!(hook, Hook::Input | Hook::Forward | Hook::Output);
        let accepts = named()
            .filter(|(step, name)| filters(step.hook) && name.verdict == Verdict::Accept)
            .reduce(|a, b| if a.1.decides() && !b.1.decides() { a } else { b });
        let last = || named().last();
        let by = if ending.fate == Fate::Accept { accepts.or_else(last) } else { last() };
        let certain = ending.steps.iter().all(|step| step.why.is_empty());
        let why = ending.steps.iter().fold(ending.why, |why, step| why.union(step.why));
        let course = Self {
            fate: ending.fate,
            rules: decides().map(|(_, name)| name.number).collect(),
            sentences: decides().map(|(_, name)| name.sentence).collect(),
            translated: [Side::Source, Side::Destination]
                .map(|side| translated(&sample.packet, &ending.packet, side)),
            marks: [ending.packet.mark, connmark(&ending.packet)],
            by: by.map(|(_, name)| name.sentence),
            why: if ending.fate == Fate::Queue { why.union(Unknown::Queue.into()) } else { why },
        };
        (course, certain)
    }

    /// Whether nothing about two of them differs that a reader sees.
    pub fn equals(&self, other: &Self) -> bool {
        self.fate == other.fate
            && self.rules == other.rules
            && self.translated == other.translated
            && self.marks == other.marks
    }
}

fn connmark(packet: &Packet) -> Word {
    if packet.tracking.has_entry() == Ok(true) {
        packet.tracking.mark
    } else {
        Word::new(0, Unknown::LaterPackets)
    }
}

fn translated(before: &Packet, after: &Packet, side: Side) -> Translated {
    let (address, port) = (after.address(side), after.port(side));
    let same_port = port == before.port(side);
    if address == before.address(side) && same_port {
        return None;
    }
    Some((address, (!same_port).then_some(port)))
}

/// All possible courses of one packet.
#[derive(Clone, Debug, Default)]
pub(super) struct Courses {
    pub all: Vec<Course>,
    /// Each step of each course is certain.
    pub certain: bool,
}

impl Courses {
    fn add(&mut self, course: Course) {
        match self.all.iter_mut().find(|one| one.equals(&course)) {
            Some(one) => one.why = one.why.union(course.why),
            None => self.all.push(course),
        }
    }

    /// The only one, if there is one alone, and it is certain.
    pub fn only(&self) -> Option<&Course> {
        self.all.first().filter(|only| {
            self.certain && self.all.len() == 1 && FlowFate::of(only.fate) != FlowFate::Unknown
        })
    }

    /// Whether both have the same courses, so that they do the same whatever is unknown.
    pub fn equals(&self, other: &Self) -> bool {
        self.all.len() == other.all.len()
            && self.all.iter().all(|one| other.all.iter().any(|two| one.equals(two)))
    }

    fn why(&self) -> UnknownSet {
        self.all.iter().fold(UnknownSet::NONE, |why, course| why.union(course.why))
    }
}

/// What becomes of the packets of a flow.
#[derive(Clone, Debug, Default)]
pub(super) struct Outlook {
    /// The packet that begins it, the answer, and the next one; none of those that are not asked for, or never come.
    pub packets: [Courses; 3],
}

/// Names of these packets.
pub(super) const PACKETS: [&str; 3] = ["first packet", "reply", "later packet"];

impl Outlook {
    /// Of a flow that begins; `answered`: somebody answers.
    pub fn begins(model: &Model<'_>, first: &Sample, answered: bool) -> Self {
        let mut outlook = Self::empty();
        let evaluation = model.evaluate(first);
        outlook.add(0, first, &evaluation.endings, model);
        let accepted = evaluation.endings.iter().filter(|ending| ending.fate == Fate::Accept);
        let mut seen: Vec<[Option<Sample>; 2]> = Vec::new();
        for ending in accepted.filter(|_| answered) {
            let entry = Entry::of(first, ending);
            let packets = [Direction::Reply, Direction::Original].map(|of| entry.packet(of));
            if seen.len() < ANSWERED && !seen.contains(&packets) {
                seen.push(packets);
            }
        }
        for packets in &seen {
            outlook.answers(model, packets);
        }
        outlook
    }

    /// Of a flow that conntrack has an entry of.
    pub fn goes_on(model: &Model<'_>, packets: &[Option<Sample>; 2]) -> Self {
        let mut outlook = Self::empty();
        outlook.answers(model, packets);
        outlook
    }

    fn empty() -> Self {
        Self { packets: [(); 3].map(|()| Courses { all: Vec::new(), certain: true }) }
    }

    fn answers(&mut self, model: &Model<'_>, packets: &[Option<Sample>; 2]) {
        for (at, sample) in (1..).zip(packets) {
            if let Some(sample) = sample {
                let evaluation = model.evaluate(sample);
                self.add(at, sample, &evaluation.endings, model);
            }
        }
    }

    fn add(&mut self, at: usize, sample: &Sample, endings: &[Ending], model: &Model<'_>) {
        let Some(courses) = self.packets.get_mut(at) else { return };
        for ending in endings {
            let (course, certain) = Course::of(sample, ending, model);
            courses.certain &= certain;
            courses.add(course);
        }
    }

    /// All possible fates of the flow, each with what decides it.
    pub fn fates(&self) -> Vec<(FlowFate, Option<Rc<str>>)> {
        let mut fates: Vec<(FlowFate, Option<Rc<str>>)> = Vec::new();
        let mut add = |fate, by: &Option<Rc<str>>| {
            if !fates.iter().any(|(one, _)| *one == fate) {
                fates.push((fate, by.clone()));
            }
        };
        let dropped = [FlowFate::Dropped, FlowFate::RepliesDropped, FlowFate::LaterDropped];
        // A flow without answers, or one whose first packet is not asked about, may have no courses of these packets.
        let mut accepted: Option<Option<Rc<str>>> = None;
        for (courses, drop) in self.packets.iter().zip(dropped) {
            if courses.all.is_empty() {
                continue;
            }
            let mut passes = None;
            for course in &courses.all {
                match FlowFate::of(course.fate) {
                    FlowFate::Accepted => passes = passes.or_else(|| Some(course.by.clone())),
                    FlowFate::Unknown => add(FlowFate::Unknown, &course.by),
                    fate if drop == FlowFate::Dropped => add(fate, &course.by),
                    _ => add(drop, &course.by),
                }
            }
            match passes {
                None => return fates,
                Some(by) => accepted = accepted.or(Some(by)),
            }
        }
        if let Some(by) = accepted {
            fates.push((FlowFate::Accepted, by));
        }
        fates
    }

    /// What is unknown.
    pub fn why(&self) -> UnknownSet {
        self.packets.iter().fold(UnknownSet::NONE, |why, courses| why.union(courses.why()))
    }

    /// Whether both are equal for each packet.
    pub fn equals(&self, other: &Self) -> bool {
        self.packets.iter().zip(&other.packets).all(|(one, two)| one.equals(two))
    }
}
