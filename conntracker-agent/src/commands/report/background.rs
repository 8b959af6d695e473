//! What a page shows besides the report: when flows began and packets were dropped, and the rulesets.

use crate::{
    firewall::Ruleset,
    flowtable::FlowTable,
    model::{
        NetnsId, TimeOfDay,
        event::{EventKind, FlowEvent},
    },
    recording::statement,
    report::timeline::{Column, Timeline},
};

/// Merges an event into the flow table, and adds to the timeline what the table has counted of it.
pub(super) fn take(
    table: &mut FlowTable,
    event: FlowEvent,
    timeline: &mut Timeline,
    clock: TimeOfDay,
) {
    let last = clock.of(event.at_ns);
    let first = match &event.kind {
        EventKind::Dropped(packets) => clock.of(packets.first_ns),
        EventKind::Path(path) => {
            timeline.epoch(event.netns, path.traversal.epoch, last);
            last
        }
        _ => last,
    };
    let counted =
        |table: &FlowTable| (table.new_flows(), table.drops_counted(), table.lost_counted());
    let before = counted(table);
    table.take(event);
    let (new_flows, dropped, lost) = counted(table);
    let counts = Column {
        new_flows: new_flows.saturating_sub(before.0),
        dropped: dropped.saturating_sub(before.1),
        lost: lost.saturating_sub(before.2),
    };
    timeline.add(first, last, counts);
}

/// The rulesets that programs have printed; remarks say which of them cannot be read.
pub(super) fn rulesets(
    stated: impl Iterator<Item = statement::Ruleset>,
    remarks: &mut Vec<String>,
) -> Vec<(NetnsId, Ruleset)> {
    let mut rulesets = Vec::new();
    for statement::Ruleset { netns, epoch, listings, .. } in stated {
        match Ruleset::of_printed(&listings) {
            Ok(ruleset) => rulesets.push((NetnsId(netns), ruleset)),
            Err(error) => {
                remarks
                    .push(format!("the recorded ruleset of epoch {epoch} cannot be read: {error}"));
            }
        }
    }
    rulesets
}
