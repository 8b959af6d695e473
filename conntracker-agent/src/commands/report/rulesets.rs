//! The rulesets that recordings have, and when each began.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::Input;
use crate::{
    firewall,
    model::{NetnsId, TimeOfDay, event::EventKind},
    recording::{End, Error, Item, Reader, statement::Ruleset},
};

/// A recorded ruleset, and when it began: nanoseconds since the epoch of time.
struct Stated {
    at_ns: u64,
    ruleset: Ruleset,
}

/// An epoch of the ruleset.
#[derive(Clone, Copy, Debug)]
pub(in crate::commands) struct Epoch {
    /// When it began: nanoseconds since the epoch of time.
    pub at_ns: u64,
    /// Namespace whose ruleset it is of.
    pub netns: NetnsId,
}

/// The epochs of the ruleset by their numbers; of the first run.
pub(in crate::commands) fn epochs(inputs: &[Input]) -> Result<BTreeMap<u32, Epoch>> {
    let mut epochs = BTreeMap::new();
    each(inputs, |Stated { at_ns, ruleset }| {
        let netns = NetnsId(ruleset.netns);
        epochs.entry(ruleset.epoch).or_insert(Epoch { at_ns, netns });
    })?;
    Ok(epochs)
}

/// The last ruleset of each namespace that began by a time (nanoseconds since the epoch of time), with the name of the
/// namespace; of the first run.
pub(in crate::commands) fn last_rulesets(
    inputs: &[Input],
    until_ns: u64,
) -> Result<BTreeMap<NetnsId, (String, Ruleset)>> {
    let mut last: BTreeMap<NetnsId, Ruleset> = BTreeMap::new();
    let mut names = each(inputs, |Stated { at_ns, ruleset }| {
        let netns = NetnsId(ruleset.netns);
        let epoch = last.get(&netns).map_or(0, |before| before.epoch);
        if at_ns <= until_ns && ruleset.epoch >= epoch {
            last.insert(netns, ruleset);
        }
    })?;
    let named =
        |(id, ruleset)| (id, (names.remove(&id).unwrap_or_else(|| "-".to_owned()), ruleset));
    Ok(last.into_iter().map(named).collect())
}

/// The last ruleset of one namespace that began by a time; without a name, that of the only one.
///
/// # Errors
/// There is none, or there are several namespaces.
pub(in crate::commands) fn last_ruleset(
    inputs: &[Input],
    netns: Option<&str>,
    until_ns: u64,
) -> Result<Ruleset> {
    let last = last_rulesets(inputs, until_ns)?;
    let name = inputs.last().map(Input::name).unwrap_or_default();
    let list = || last.values().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    match netns {
        _ if last.is_empty() => {
            bail!("{name} has no ruleset of that time: rules were not traced, or it begins later")
        }
        None if last.len() > 1 => {
            bail!("{name} has several namespaces, name one with --netns: {}", list())
        }
        _ => {}
    }
    let list = list();
    let mut found = last.into_values().filter(|(name, _)| netns.is_none_or(|netns| netns == name));
    let found = found.next().map(|(_, ruleset)| ruleset);
    found.with_context(|| {
        format!("{name} has no namespace `{}`; it has: {list}", netns.unwrap_or_default())
    })
}

/// A recorded ruleset as it was read, with what the kernel had.
///
/// # Errors
/// It makes no sense, or lacks what the kernel had.
pub(in crate::commands) fn with_objects(of: Ruleset) -> Result<firewall::Ruleset> {
    let Ruleset { epoch, listings, objects, .. } = of;
    if let Some(missing) = objects.missing.first() {
        bail!("the recorded ruleset of epoch {epoch} is not whole: {missing}");
    }
    if objects.is_empty() {
        bail!(
            "the recording has the text of the rules of epoch {epoch} alone, not what the kernel had: an earlier \
             version made it; record again"
        );
    }
    let ruleset = firewall::Ruleset::of_printed(&listings)
        .with_context(|| format!("the recorded ruleset of epoch {epoch} cannot be read"))?;
    Ok(firewall::Ruleset { printed: listings, objects, ..ruleset })
}

/// Whether a file is a recording, as its first bytes say.
pub(in crate::commands) fn is_recording(input: &Input) -> Result<bool> {
    let what = || format!("cannot read {}", input.name());
    let mut reader = Reader::new(input.open()?).with_context(what)?;
    Ok(!matches!(reader.next(End::Last), Err(Error::NotARecording(_))))
}

/// Hands on each ruleset of the first run: every part has that of its beginning. Returns the names of namespaces.
fn each(inputs: &[Input], mut take: impl FnMut(Stated)) -> Result<BTreeMap<NetnsId, String>> {
    let (mut run, mut time_of_day) = (None, TimeOfDay::default());
    let mut names = BTreeMap::new();
    // The first ruleset may stand before the first event, which relates the clocks.
    let mut early: Vec<Ruleset> = Vec::new();
    for input in inputs {
        let name = input.name();
        let what = || format!("cannot read {name}");
        let mut reader = Reader::new(input.open()?).with_context(what)?;
        while let Some(item) = reader.next(End::Last).with_context(what)? {
            let mut rulesets = Vec::new();
            match item {
                Item::Part(head) if *run.get_or_insert(head.recording) != head.recording => {
                    return Ok(names);
                }
                Item::Events(events) => {
                    for event in events {
                        if let EventKind::Clock(related) = event.kind {
                            time_of_day = related;
                        }
                    }
                }
                Item::Ruleset(ruleset) => rulesets.push(ruleset),
                Item::Header(header) => {
                    let named = header.namespaces.into_iter();
                    names.extend(named.map(|of| (NetnsId(of.id), of.name)));
                }
                _ => {}
            }
            if time_of_day == TimeOfDay::default() {
                early.append(&mut rulesets);
                continue;
            }
            for ruleset in early.drain(..).chain(rulesets) {
                take(Stated { at_ns: time_of_day.of(ruleset.at_ns), ruleset });
            }
        }
    }
    Ok(names)
}
