//! Records from the ring, each merged or counted as what it is.

use std::collections::HashMap;

use crate::{
    bpf::{
        end::End,
        path::{Device, PathRecord},
        reasons::Reasons,
        record::{Kind, Record},
    },
    capture::{Intake, Tally, owners::Owners, tracing::RuleTracer},
    model::{
        Cause, NetnsId, Tuple, Zone,
        event::{EventKind, PacketPath},
        filter::Filter,
    },
};

/// The namespace of a decoded record; counts it as one of ours, or as foreign.
fn whose(
    cookie: u64,
    netns_by_cookie: &HashMap<u64, NetnsId>,
    tally: &mut Tally,
) -> Option<NetnsId> {
    let netns = netns_by_cookie.get(&cookie).copied();
    match netns {
        Some(_) => tally.records += 1,
        None => tally.records_foreign += 1,
    }
    netns
}

/// One record from the ring: merged, or counted as what it is.
pub(super) fn take(
    bytes: &[u8],
    netns_by_cookie: &HashMap<u64, NetnsId>,
    (owners, reasons): (&mut Owners, &mut Reasons),
    intake: &mut Intake<'_>,
) {
    let Ok(record) = Record::decode(bytes) else {
        intake.tally.records_rejected += 1;
        return;
    };
    let Some(netns) = whose(record.netns_cookie, netns_by_cookie, intake.tally) else { return };
    let from_headers = record.reply.is_none() && record.kind != Kind::Parent;
    if allows(intake.filter, &record.orig, record.zone, !from_headers) {
        if let Some(owner) = &record.owner {
            owners.note(owner);
        }
        let cause = match record.kind {
            Kind::Drop(dropped) => {
                let Some(cause) = reasons.cause(dropped.cause) else {
                    intake.tally.not_lost += u64::from(!dropped.counted);
                    return;
                };
                cause
            }
            Kind::New | Kind::Replied | Kind::Parent => Cause::Netfilter,
        };
        let number = |index| intake.interfaces.number(netns, index);
        if let Some(event) = record.event(cause, number) {
            intake.event(netns, record.ktime_ns, event);
        }
    }
}

/// The record of an end: merged, or counted.
pub(super) fn take_end(
    bytes: &[u8],
    netns_by_cookie: &HashMap<u64, NetnsId>,
    intake: &mut Intake<'_>,
) {
    let Ok(end) = End::decode(bytes) else {
        intake.tally.records_rejected += 1;
        return;
    };
    let Some(netns) = whose(end.netns_cookie, netns_by_cookie, intake.tally) else { return };
    if allows(intake.filter, &end.orig, end.zone, true) {
        let overdue_ns = intake.clock.of_ticks(end.overdue);
        intake.event(netns, end.ktime_ns, end.event(overdue_ns));
    }
}

/// One record of a packet's path: resolved and merged, or counted.
pub(super) fn take_path(
    bytes: &[u8],
    netns_by_cookie: &HashMap<u64, NetnsId>,
    rules: &mut RuleTracer,
    intake: &mut Intake<'_>,
) {
    let Ok(record) = PathRecord::decode(bytes) else {
        intake.tally.records_rejected += 1;
        return;
    };
    let Some(netns) = whose(record.netns_cookie, netns_by_cookie, intake.tally) else { return };
    let has_entry = record.reply.is_some();
    if allows(intake.filter, &record.orig, record.zone, has_entry)
        && let Some(traversal) = rules.resolve(netns, &record)
    {
        let at_ns = record.ktime_ns;
        let mut number = |device: Option<Device>| {
            let Some(Device { index, name }) = device else { return 0 };
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            intake.interfaces.number_named(netns, index, &String::from_utf8_lossy(name))
        };
        let path = PacketPath {
            zone: record.zone,
            orig: record.orig,
            has_entry,
            interfaces: (number(record.iif), number(record.oif)),
            path_hash: record.path_hash,
            traversal,
        };
        intake.event(netns, at_ns, EventKind::Path(path));
    }
}

/// Whether a tuple passes the filter. A packet known by its headers alone may belong to the other
/// direction of its flow.
pub(super) fn allows(filter: &Filter, tuple: &Tuple, zone: Zone, has_entry: bool) -> bool {
    filter.allows_tuple(tuple, zone)
        || (!has_entry && tuple.inverted().is_some_and(|orig| filter.allows_tuple(&orig, zone)))
}

#[cfg(test)]
mod tests {
    use conntracker_common::{ABI_VERSION, record::FlowRecord4};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        bpf::btf::fixtures::kernel, capture::interfaces::Interfaces, flowtable::FlowTable,
        os::clock::Clock,
    };

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn every_record_is_merged_or_counted_as_rejected_or_foreign(
            mut bytes in prop::collection::vec(any::<u8>(), 0..140),
            kind in 0u8..9,
            cookie in 0u64..3,
            whole in any::<bool>(),
        ) {
            if whole {
                // Far enough to be a record, if the rest is in range.
                bytes.resize(size_of::<FlowRecord4>(), 0);
                bytes[0] = kind;
                bytes[1] = ABI_VERSION;
                bytes[2..4].copy_from_slice(&(size_of::<FlowRecord4>() as u16).to_ne_bytes());
                bytes[16..24].copy_from_slice(&cookie.to_ne_bytes());
                bytes[60..63].copy_from_slice(&[4, 0, 2]);
            }
            let mut table = FlowTable::new(true, 100);
            let mut tally = Tally::default();
            let clock = Clock::new().unwrap();
            let filter = Filter::default();
            let netns = HashMap::from([(1, NetnsId(0))]);
            let mut interfaces = Interfaces::default();
            let mut intake =
                Intake { table: &mut table, tally: &mut tally, clock: &clock, filter: &filter, interfaces: &mut interfaces, recorder: None, dropped: None };
            let mut reasons = Reasons::of(&kernel("debian-6.12"), std::sync::Arc::default());
            take(&bytes, &netns, (&mut Owners::new(), &mut reasons), &mut intake);
            prop_assert_eq!(tally.records + tally.records_rejected + tally.records_foreign, 1);
            prop_assert_eq!(
                tally.records == 1,
                table.snapshot().into_flows().next().is_some()
            );
            if let Err(reason) = Record::decode(&bytes) {
                prop_assert!(!reason.to_string().is_empty());
                prop_assert_eq!(tally.records_rejected, 1);
            }
        }
    }
}
