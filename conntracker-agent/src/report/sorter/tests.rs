use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::{
    model::{
        Cause, ConntrackCause, DropPoint, Mark, Origins,
        counters::Counters,
        hook::Hook,
        order,
        path::{Direction, Provenance, SiteKind, Verdict},
        process::Process,
        table::Family,
    },
    report::fixtures::{confirmed, dropped_by, legacy, nft, ports, step, traversal, ways},
};

/// Flows that differ in much that a report says.
fn flow() -> impl Strategy<Value = Flow> {
    (0u8..4, 0u16..20, any::<u32>(), 0u8..6, 0u32..3).prop_map(|(host, sport, mark, has, n)| {
        let mut flow = ports(6, &format!("10.0.0.{host}"), 2_000 + sport, "10.0.1.1", 443);
        (flow.first_ns, flow.last_ns) = (mark.into(), u64::MAX);
        if has & 1 != 0 {
            flow = confirmed(flow);
            flow.mark = Some(Mark(mark));
            flow.reply = flow.key.orig.inverted();
            flow.counters = Some([Counters { packets: mark.into(), bytes: 1 << 40 }; 2]);
            flow.details.get_or_insert_default().helper = Some("ftp".to_owned());
            flow.origins = Origins { packets: true, ..Origins::default() };
        }
        if has & 2 != 0 {
            let site = nft(Family::Inet, "fw", "forward", SiteKind::Rule, n);
            let steps = vec![step(site, Verdict::Jump("lan".to_owned()), Provenance::Exact)];
            let other = vec![step(
                legacy("filter", "FORWARD", SiteKind::Policy, 4),
                Verdict::Drop,
                Provenance::Inferred,
            )];
            flow.paths = ways(vec![
                (traversal(Hook::Forward, steps), 3),
                (traversal(Hook::Input, other), 1),
            ]);
            flow.process = Some(Box::new(Process {
                direction: Direction::Reply,
                uid: mark,
                user: Some("www-data".to_owned()),
                pid: None,
                comm: Some("nginx".to_owned()),
                cgroup_id: Some(7),
                cgroup: None,
                inode: None,
            }));
        }
        if has & 4 != 0 {
            flow.drops = dropped_by(&[
                (Cause::Netfilter, 2, 3, 4),
                (Cause::Conntrack(ConntrackCause::Full), 4, 0, 0),
                (Cause::Reason("NO_SOCKET"), 255, 1, 0),
                (Cause::Function("udp_queue_rcv_one_skb"), 1, 1, 0),
            ]);
            let by = nft(Family::Ip, "t", "c", SiteKind::Rule, n);
            let step = step(by, Verdict::Drop, Provenance::Exact);
            flow.drops.as_mut().unwrap().add(DropPoint::default(), Some(&step), 5);
        }
        flow
    })
}

/// By the address alone: many flows are equal.
fn by_address() -> Order {
    Rc::new(|a, b| a.key.orig.src.cmp(&b.key.orig.src))
}

proptest! {
    #[test]
    fn flows_that_do_not_fit_into_memory_are_sorted_as_others(
        flows in prop::collection::vec(flow(), 0..60),
        in_memory in 1usize..30,
    ) {
        for order in [by_address(), Rc::new(|a: &Flow, b: &Flow| order::compare(&a.key, &b.key))] {
            let mut sorter = Sorter::new(Rc::clone(&order), in_memory);
            for flow in flows.clone() {
                sorter.push(flow).unwrap();
            }
            let sorted = sorter.finish().unwrap();
            let mut wanted = flows.clone();
            wanted.sort_by(|a, b| order(a, b));
            prop_assert_eq!(sorted.count(), wanted.len());
            prop_assert_eq!(&sorted.whole().unwrap()[..], &wanted[..]);
            let mut some = Vec::new();
            sorted.each(&mut |flows| {
                some.extend_from_slice(flows);
                Ok(())
            }).unwrap();
            prop_assert_eq!(&some, &wanted);
            prop_assert_eq!(sorted.into_vec().unwrap(), wanted);
        }
    }
}
