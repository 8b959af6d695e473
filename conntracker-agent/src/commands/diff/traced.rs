//! What the traced packets of a flow say of it, on one side of a comparison.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::RangeInclusive,
};

use crate::model::{
    Flow, L4, NetnsId, Tuple,
    hook::Hook,
    path::{CtState, Direction, Outcome, Traversal},
};

/// Epochs of the ruleset that one side has.
#[derive(Clone, Debug, Default)]
pub(in crate::commands) struct Epochs {
    /// Those of a namespace in which the ruleset changed between the sides: records of the old rules arrive when the
    /// new epoch has begun, and packets meet new rules before they were read.
    pub of: Option<(NetnsId, RangeInclusive<u32>)>,
    /// Epochs from this one on began on this side. The kernel tells a path once for each folded key and epoch: of
    /// earlier ones this side may lack paths that packets took.
    pub whole_from: u32,
}

impl Epochs {
    fn admit(&self, netns: NetnsId, path: &Traversal) -> bool {
        self.of.as_ref().is_none_or(|(of, epochs)| *of != netns || epochs.contains(&path.epoch))
    }
}

/// The paths of a flow's packets.
#[derive(Clone, Debug)]
pub(in crate::commands) struct Traced<'a> {
    paths: Vec<(&'a Traversal, u64)>,
    /// Each path that packets took is there.
    pub whole: bool,
}

/// Packets of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::commands) enum Packets {
    /// Those that begin a flow.
    First,
    /// Those of the reply direction.
    Replies,
}

impl Packets {
    pub fn has(self, path: &Traversal) -> bool {
        let begins = !matches!(path.state, CtState::Established | CtState::Invalid);
        match self {
            Self::First => path.direction == Direction::Original && begins,
            Self::Replies => path.direction == Direction::Reply && path.state != CtState::Invalid,
        }
    }
}

impl<'a> Traced<'a> {
    pub fn of(flow: &'a Flow, epochs: &Epochs) -> Self {
        let paths: Vec<_> =
            flow.paths.iter().filter(|(path, _)| epochs.admit(flow.key.netns, path)).collect();
        let whole = paths.iter().all(|(path, _)| path.epoch >= epochs.whole_from);
        Self { paths, whole }
    }

    /// All of them, each with the number of packets that took it.
    pub fn paths(&self) -> impl Iterator<Item = (&'a Traversal, u64)> {
        self.paths.iter().copied()
    }

    /// Likewise.
    pub fn into_paths(self) -> impl Iterator<Item = (&'a Traversal, u64)> {
        self.paths.into_iter()
    }

    /// Whether such packets get through the last hook that any of them reaches; `None` if none was traced.
    pub fn pass(&self, packets: Packets) -> Option<bool> {
        let last = self.last_hook(packets)?;
        let there = || self.some(packets).filter(|path| path.hook == last);
        // A packet that has passed the chains before conntrack has not passed those behind it.
        let late = there().any(|path| path.state != CtState::Early);
        let passed = |path: &Traversal| path.outcome == Outcome::Passed;
        Some(there().any(|path| passed(path) && (path.state != CtState::Early || !late)))
    }

    /// Whether some of them were dropped.
    pub fn drop(&self, packets: Packets) -> bool {
        self.some(packets).any(|path| path.outcome == Outcome::Dropped)
    }

    fn some(&self, packets: Packets) -> impl Iterator<Item = &'a Traversal> {
        let all = || self.paths().map(|(path, _)| path).filter(move |path| packets.has(path));
        // Errors and resets about a flow are no packets of it, unless it is one that was expected.
        let related = all().all(|path| path.state == CtState::Related);
        all().filter(move |path| related || path.state != CtState::Related)
    }

    fn last_hook(&self, packets: Packets) -> Option<Hook> {
        let hooks: BTreeSet<Hook> = self.some(packets).map(|path| path.hook).collect();
        // Packets to this machine itself come in after they have left.
        let comes_in = |hook: &&Hook| matches!(hook, Hook::Prerouting | Hook::Input);
        let last_in = hooks.iter().rfind(comes_in);
        if hooks.contains(&Hook::Output) && last_in.is_some() {
            last_in.copied()
        } else {
            hooks.last().copied()
        }
    }

    /// Connmarks behind the last hook of packets that begin a flow.
    pub fn marks(&self) -> BTreeSet<u32> {
        let last = self.last_hook(Packets::First);
        let there = self.some(Packets::First).filter(|path| Some(path.hook) == last);
        there.filter_map(|path| path.connmark).map(|(_, mark)| mark).collect()
    }

    /// Translations of packets that begin a flow, at each hook that they were traced at.
    fn translations(&self) -> BTreeMap<Hook, BTreeSet<Option<String>>> {
        let mut all: BTreeMap<Hook, BTreeSet<Option<String>>> = BTreeMap::new();
        let translates = |path: &&Traversal| {
            !matches!(path.hook, Hook::Ingress | Hook::Forward | Hook::Egress)
                && path.state != CtState::Early
        };
        for path in self.some(Packets::First).filter(translates) {
            let to = path.nat.as_ref().map(|(before, after)| translation(before, after));
            all.entry(path.hook).or_default().insert(to);
        }
        all
    }
}

/// What became of the translations of packets that begin a flow: `None` if nothing tells, otherwise before and after.
pub(super) fn translations(before: &Traced<'_>, after: &Traced<'_>) -> Option<(String, String)> {
    let (mut old, mut new) = (before.translations(), after.translations());
    if old.is_empty() && new.is_empty() {
        return None;
    }
    let seen = (old.clone(), new.clone());
    complete(&mut old, &seen.1, before);
    complete(&mut new, &seen.0, after);
    let differs = old.iter().any(|(hook, was)| new.get(hook).is_some_and(|is| was.is_disjoint(is)));
    if differs { Some((shown(&old), shown(&new))) } else { Some((String::new(), String::new())) }
}

/// Where no packet was traced although all were, no rule of the hook translates.
fn complete(
    own: &mut BTreeMap<Hook, BTreeSet<Option<String>>>,
    other: &BTreeMap<Hook, BTreeSet<Option<String>>>,
    traced: &Traced<'_>,
) {
    if traced.whole && traced.pass(Packets::First) == Some(true) {
        for &hook in other.keys() {
            own.entry(hook).or_insert_with(|| BTreeSet::from([None]));
        }
    }
}

fn shown(translations: &BTreeMap<Hook, BTreeSet<Option<String>>>) -> String {
    let all: Vec<&str> = translations.values().flatten().flatten().map(String::as_str).collect();
    if all.is_empty() { "not translated".to_owned() } else { all.join(", ") }
}

/// A translation by the reply directions before and after it.
fn translation(before: &Tuple, after: &Tuple) -> String {
    let mut to = Vec::new();
    let ports = |tuple: &Tuple| match tuple.l4 {
        L4::Ports { src, dst } | L4::Gre { src, dst } => (src, dst),
        L4::Icmp { id, .. } => (id, id),
        L4::None => (0, 0),
    };
    let ((was_from, was_to), (from, port)) = (ports(before), ports(after));
    let icmp = matches!(after.l4, L4::Icmp { .. });
    if before.src != after.src || (was_from != from && !icmp) {
        to.push(destination(after));
    }
    if (before.dst, was_to) != (after.dst, port) {
        to.push(source(after));
    }
    to.join(", ")
}

/// Where a flow with this reply direction goes.
pub(super) fn destination(reply: &Tuple) -> String {
    match reply.l4 {
        L4::Ports { src, .. } => format!("destination {}", SocketAddr::new(reply.src, src)),
        _ => format!("destination {}", reply.src),
    }
}

/// Where a flow with this reply direction seems to come from; ports are chosen anew for each.
pub(super) fn source(reply: &Tuple) -> String {
    format!("source {}", reply.dst)
}
