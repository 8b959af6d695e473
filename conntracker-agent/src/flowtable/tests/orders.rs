//! Any order of events, and any duplicates: the same flows.

use proptest::{prelude::*, sample::Index};

use super::*;

/// What the sources tell of the flows: each of the events is true whenever it comes.
fn events() -> Vec<FlowEvent> {
    let mut events = Vec::new();
    let mut add =
        |netns, at_ns, kind| events.push(FlowEvent { netns: NetnsId(netns), at_ns, kind });
    for netns in [0, 1] {
        for sport in 5000..5004 {
            let at = u64::from(sport);
            let mut new = packet(sport);
            if sport == 5002 {
                new.zone = Zone(7);
                new.entry.reply.dst = "192.0.2.9".parse().unwrap();
            }
            let mut replied = new.clone();
            replied.entry.status = Status::SEEN_REPLY;
            let shown = Entry {
                reply: Some(new.entry.reply),
                zone: new.zone,
                ..entry(sport, sport.into(), 3)
            };
            add(netns, at, New(new));
            add(netns, at + 1, Replied(replied));
            for source in [EntrySource::Dump, EntrySource::UpdateEvent] {
                add(netns, 6000 + at, Entry(source, Box::new(shown.clone())));
            }
            let parent = tuple(21);
            add(netns, at, Related { zone: shown.zone, orig: shown.orig, parent });
        }
        // Of a flow that nothing else tells of.
        let counted = CountedFlows {
            zone: Zone::DEFAULT,
            orig: Tuple { proto: 6, ..tuple(5000).folded() },
            counted: Counted { since_ns: 3, count: 5 },
            replied: true,
        };
        add(netns, 70, Counted(counted));
    }
    events
}

/// What is known of the flows, but for when they were last heard of.
fn known(t: &FlowTable) -> Vec<String> {
    let mut all: Vec<String> = flows(t)
        .iter()
        .map(|flow| {
            format!(
                "{:?} {:?} {:?} {:?} {} {:?} {} {:?}",
                flow.key,
                flow.reply,
                flow.parent,
                flow.status,
                flow.merged(),
                flow.counters,
                flow.first_ns,
                flow.origins,
            )
        })
        .collect();
    all.sort();
    all
}

proptest! {
    #[test]
    fn any_order_and_any_duplicates_are_the_same_flows(
        order in Just((0..events().len()).collect::<Vec<_>>()).prop_shuffle(),
        again in prop::collection::vec((any::<Index>(), any::<Index>()), 0..20),
        fold in any::<bool>(),
    ) {
        let told = events();
        let mut in_order = table(fold);
        for event in &told {
            in_order.take(event.clone());
        }
        let mut order = order;
        for (which, at) in again {
            order.insert(at.index(order.len()), which.index(told.len()));
        }
        let mut shuffled = table(fold);
        for at in order {
            shuffled.take(told[at].clone());
        }
        if !fold {
            // Of flows that fold, it is the first one's that comes whose reply is told.
            prop_assert_eq!(known(&shuffled), known(&in_order));
        }
        let keys = |t: &FlowTable| {
            let mut all: Vec<_> = flows(t).iter().map(|flow| (flow.key, flow.merged(), flow.status.0)).collect();
            all.sort_by_key(|(key, ..)| format!("{key:?}"));
            all
        };
        prop_assert_eq!(keys(&shuffled), keys(&in_order));
    }
}
