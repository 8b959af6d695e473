//! The clock on the wall is set while flows are observed, and namespaces go.

use super::*;
use crate::model::TimeOfDay;

const YEAR: u64 = 365 * 86_400 * 1_000_000_000;

/// A flow that is known from before the clock was set and from after, with conntrack's time stamps.
fn across(before: TimeOfDay, after: TimeOfDay) -> FlowTable {
    let mut t = table(true);
    t.see(90, Clock(before));
    let stamped = |sport, start: u64| Entry { start_ns: Some(start), ..entry(sport, 1, 1) };
    // Made at 50, dumped at 100.
    dump(&mut t, &[stamped(5000, before.of(50))], 100);
    t.see(150, New(packet(5001)));
    t.see(180, Clock(after));
    // It is still there, and its time stamp is still of the other clock.
    dump(&mut t, &[stamped(5000, before.of(50)), entry(5001, 2, 1)], 200);
    let stop_ns = 290;
    t.see(300, Ended(EntryEnd { start_ns: Some(before.of(150)), stop_ns, ..end(5001, 1) }));
    t
}

#[test]
fn a_clock_that_is_set_tears_no_flow_and_mistakes_no_entry() {
    let now = TimeOfDay::at(100, 50 * YEAR);
    for then in
        [TimeOfDay::at(180, 80 * YEAR), TimeOfDay::at(180, 0), TimeOfDay::at(180, 20 * YEAR)]
    {
        let t = across(now, then);
        let mut flow = only(&t);
        assert_eq!((flow.first_ns, flow.last_ns), (50, 300), "{then:?}");
        // The entry and the record of 5001 are one: the dump came after the record.
        assert_eq!((flow.merged(), flow.ended), (2, 1), "{then:?}");
        assert_eq!(flow.details.as_ref().unwrap().stop_ns, Some(then.of(290)));
        flow.by_time_of_day(then);
        assert!(flow.last_ns - flow.first_ns <= 250, "{then:?}");
        assert_eq!(flow.last_ns, then.of(300));
    }
}

#[test]
fn of_namespaces_that_are_gone_only_flows_are_kept() {
    let (with_flow, without) = (NetnsId(7), NetnsId(8));
    let mut t = table(true);
    for netns in [NS, with_flow] {
        t.take(FlowEvent { netns, at_ns: 100, kind: New(packet(5000)) });
    }
    for kind in [DumpBegan, DumpEnded { whole: true }] {
        t.take(FlowEvent { netns: without, at_ns: 100, kind });
    }
    let unused = t.forget_gone(&HashSet::from([with_flow, without]));
    assert_eq!(unused, HashSet::from([without]));
    assert_eq!(t.len(), 2);
    assert!(t.members.iter().all(|member| member.key().netns == NS));
}
