//! The rulesets that recordings have, and when each began.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::Input;
use crate::{
    model::{NetnsId, TimeOfDay, event::EventKind},
    recording::{End, Item, Reader, statement::Ruleset},
};

/// A recorded ruleset.
#[derive(Debug)]
pub(in crate::commands) struct Stated {
    /// When it began: nanoseconds since the epoch of time.
    pub at_ns: u64,
    /// What was recorded.
    pub ruleset: Ruleset,
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

/// The rulesets in the order in which they began, each epoch once; of the first run.
pub(in crate::commands) fn stated_rulesets(inputs: &[Input]) -> Result<Vec<Stated>> {
    let mut stated: Vec<Stated> = Vec::new();
    each(inputs, |next| {
        if stated.iter().all(|other| other.ruleset.epoch != next.ruleset.epoch) {
            stated.push(next);
        }
    })?;
    Ok(stated)
}

/// Hands on each ruleset of the first run: every part has that of its beginning.
fn each(inputs: &[Input], mut take: impl FnMut(Stated)) -> Result<()> {
    let (mut run, mut time_of_day) = (None, TimeOfDay::default());
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
                    return Ok(());
                }
                Item::Events(events) => {
                    for event in events {
                        if let EventKind::Clock(related) = event.kind {
                            time_of_day = related;
                        }
                    }
                }
                Item::Ruleset(ruleset) => rulesets.push(ruleset),
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
    Ok(())
}
