//! What would differ for a flow between two rulesets.

use std::rc::Rc;

use super::outlook::{Course, Courses, FlowFate, Outlook, PACKETS};
use crate::firewall::evaluate::{unknown::UnknownSet, word::Word};

/// What differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum What {
    Fate,
    Translation,
    Mark,
    Path,
}

impl What {
    pub fn name(self) -> &'static str {
        match self {
            Self::Fate => "fate",
            Self::Translation => "translation",
            Self::Mark => "mark",
            Self::Path => "path",
        }
    }
}

/// Something of a flow that would not be as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Change {
    pub what: What,
    /// Which packet of it; of fates none.
    pub at: Option<&'static str>,
    pub before: String,
    pub after: String,
    /// What decides before, and after.
    pub before_by: Option<Rc<str>>,
    pub after_by: Option<Rc<str>>,
    /// Where the rules leave it open: an outcome that was observed decides.
    pub observed: bool,
}

/// What hangs on something unknown.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Open {
    pub why: UnknownSet,
    /// What may become of the flow, the best first.
    pub before: Vec<FlowFate>,
    pub after: Vec<FlowFate>,
}

/// The answer about a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Prediction {
    /// Nothing differs.
    Same,
    /// Nothing differs, whatever the unknown is that its packets hang on.
    SameAnyhow,
    /// This differs.
    Changed(Vec<Change>),
    /// What becomes of it does not; it is not known whether it meets the same rules.
    PathOpen(UnknownSet),
    /// It is not known what becomes of it.
    Open(Open),
}

/// A fate, and what decides it.
pub(super) type Fated = (FlowFate, Option<Rc<str>>);

/// Compares what becomes of a flow. `observed`: what became of it, which decides where the old rules leave that open.
pub(super) fn compare(old: &Outlook, new: &Outlook, observed: Option<&Fated>) -> Prediction {
    if old.equals(new) {
        let certain = new.packets.iter().all(|courses| courses.certain && courses.all.len() <= 1);
        return if certain { Prediction::Same } else { Prediction::SameAnyhow };
    }
    let (mut before, after) = (old.fates(), new.fates());
    let was_open = only(&before).is_none();
    if let Some(fate) = observed.filter(|_| was_open) {
        before = vec![fate.clone()];
    }
    let (Some(was), Some(is)) = (only(&before), only(&after)) else {
        return Prediction::Open(open(old, new, &before, &after));
    };
    if was.0 != is.0 {
        return Prediction::Changed(vec![Change {
            what: What::Fate,
            at: None,
            before: was.0.name().to_owned(),
            after: is.0.name().to_owned(),
            before_by: was.1.clone(),
            after_by: is.1.clone(),
            observed: was_open,
        }]);
    }
    let mut changes = Vec::new();
    let mut certain = true;
    for ((one, two), packet) in old.packets.iter().zip(&new.packets).zip(PACKETS) {
        certain &= details(one, two, packet, &mut changes);
    }
    match (changes.is_empty(), certain) {
        (false, _) => Prediction::Changed(changes),
        (true, true) => Prediction::Same,
        (true, false) => Prediction::PathOpen(old.why().union(new.why())),
    }
}

/// The only fate, if it is not that nothing is known.
fn only(fates: &[Fated]) -> Option<&Fated> {
    match fates {
        [only] if only.0 != FlowFate::Unknown => Some(only),
        _ => None,
    }
}

fn open(old: &Outlook, new: &Outlook, before: &[Fated], after: &[Fated]) -> Open {
    let sorted = |fates: &[Fated]| {
        let mut fates: Vec<FlowFate> = fates.iter().map(|(fate, _)| *fate).collect();
        fates.sort();
        fates
    };
    Open { why: old.why().union(new.why()), before: sorted(before), after: sorted(after) }
}

/// Adds what differs for one packet; false: it is not known.
fn details(old: &Courses, new: &Courses, packet: &'static str, changes: &mut Vec<Change>) -> bool {
    if old.equals(new) {
        return true;
    }
    let (Some(was), Some(is)) = (old.only(), new.only()) else { return false };
    // The first rule that is not the same on both sides.
    let same = was.rules.iter().zip(&is.rules).take_while(|(one, two)| one == two).count();
    let differs = was.rules != is.rules;
    let step = |course: &Course| course.sentences.get(same).cloned().filter(|_| differs);
    let change = |what, before, after| Change {
        what,
        at: Some(packet),
        before,
        after,
        before_by: step(was),
        after_by: step(is),
        observed: false,
    };
    // Answers and later packets are translated as the first one is.
    let mut found = Vec::new();
    if was.translated != is.translated {
        found.push(change(What::Translation, translation(was), translation(is)));
    }
    for ((before, after), name) in was.marks.iter().zip(is.marks).zip(["packet mark", "connmark"]) {
        if *before != after {
            found.push(change(What::Mark, mark(name, *before), mark(name, after)));
        }
    }
    found.retain(|change| !changes.iter().any(|earlier| earlier.what == change.what));
    if found.is_empty() && differs && changes.is_empty() {
        let none = "no further rule";
        let shown = |course| step(course).map_or_else(|| none.to_owned(), |step| step.to_string());
        let path = change(What::Path, shown(was), shown(is));
        found.push(Change { before_by: None, after_by: None, ..path });
    }
    changes.append(&mut found);
    true
}

fn mark(name: &str, mark: Word) -> String {
    match mark.get() {
        Ok(mark) => format!("{name} {mark:#x}"),
        Err(why) => format!("{name} that is not known ({why})"),
    }
}

fn translation(course: &Course) -> String {
    let mut all = Vec::new();
    for (to, end) in course.translated.iter().zip(["source", "destination"]) {
        let Some((address, port)) = to else { continue };
        let address = address.map_or_else(|why| format!("an address ({why})"), |of| of.to_string());
        all.push(match port {
            Some(Ok(Some(port))) => format!("{end} {address} port {port}"),
            _ => format!("{end} {address}"),
        });
    }
    if all.is_empty() { "not translated".to_owned() } else { all.join(", ") }
}
