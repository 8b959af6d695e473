//! The event stream: what `conntrack -E` tells, and what happens when it comes too fast.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::pin;
use std::time::{Duration, Instant};

use conntracker::Conntrack;
use conntracker::conntrack::{
    Change, ConntrackEntry, DumpRequest, EntryKey, EventBuffer, EventGroups, EventOptions,
    EventStream, Item, Kind, MarkChange, OwnedItem,
};
use conntracker::model::{Mark, Tuple, Zone};
use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::tracer::PATIENCE;
use futures_core::Stream;
use nix::sys::signal::Signal;

use crate::{UDP, connect, lasting, ports};

/// The n-th of many flows.
fn nth(n: u32) -> Tuple {
    let [_, a, b, c] = n.to_be_bytes();
    ports(UDP, &format!("10.{a}.{b}.{c}"), 1, "198.51.100.2", 2)
}

fn create(conntrack: &mut Conntrack, range: std::ops::Range<u32>) {
    for n in range {
        conntrack.create(&lasting(nth(n))).unwrap();
    }
}

fn stream(host: &Host, options: &EventOptions) -> EventStream {
    connect(host).into_events(options).unwrap()
}

/// A buffer that a few events fill.
fn tiny() -> EventOptions {
    EventOptions::default().buffer(EventBuffer::fixed(4096))
}

/// All that there is to be told now.
fn drain(events: &mut EventStream) -> Vec<OwnedItem> {
    let mut items = Vec::new();
    while let Some(item) = events.next_within(Duration::ZERO).unwrap() {
        items.push((&item).into());
    }
    items
}

/// Who follows the stream knows these flows.
fn known(items: &[OwnedItem]) -> BTreeSet<Tuple> {
    let mut known = BTreeSet::new();
    let mut before = BTreeSet::new();
    for item in items {
        match item {
            Item::Event { kind: Kind::Destroy, entry, .. } => {
                known.remove(&entry.orig);
            }
            Item::Event { entry, .. } | Item::Resync(entry) => {
                known.insert(entry.orig);
                before.remove(&entry.orig);
            }
            // What was known before and is not there any more has ended unseen.
            Item::ResyncBegin(_) => before = known.clone(),
            Item::ResyncEnd(_) => known.retain(|tuple| !before.contains(tuple)),
            _ => {}
        }
    }
    known
}

fn table(conntrack: &mut Conntrack) -> BTreeSet<Tuple> {
    conntrack.dump().unwrap().into_iter().map(|entry| entry.unwrap().orig).collect()
}

#[test]
fn events_are_those_of_conntrack() {
    let lab = Lab::new().unwrap();
    let router = &lab.router;
    let mut events = stream(router, &EventOptions::default());
    let mut theirs = router.spawn(["conntrack", "-E", "-o", "id"]).unwrap();
    let mut conntrack = connect(router);
    // conntrack -E says nothing when it begins to listen: make something until it is told.
    let probe = lasting(ports(UDP, "192.0.2.99", 1, "192.0.2.2", 2));
    for _ in 0..200 {
        conntrack.create(&probe).unwrap();
        conntrack.delete(&EntryKey::orig(probe.orig)).unwrap();
        if theirs.wait_for("192.0.2.99", Duration::from_millis(100)).is_ok() {
            break;
        }
    }
    let entry = lasting(ports(UDP, "192.0.2.1", 1, "192.0.2.2", 2));
    let key = EntryKey::orig(entry.orig);
    conntrack.create(&entry).unwrap();
    let mark = Change::default().mark(MarkChange::to(Mark(7)));
    conntrack.update(&key, &mark).unwrap();
    router.run(["conntrack", "-D", "-s", "192.0.2.1"]).unwrap();
    conntrack.create(&lasting(ports(UDP, "192.0.2.200", 1, "192.0.2.2", 2))).unwrap();
    theirs.wait_for("192.0.2.200", PATIENCE).unwrap();
    theirs.stop(Signal::SIGINT, PATIENCE).unwrap();
    let theirs = theirs.stdout();
    let theirs: Vec<&str> = theirs.lines().filter(|l| l.contains("src=192.0.2.1 ")).collect();

    let of_entry: Vec<(Kind, ConntrackEntry)> = drain(&mut events)
        .into_iter()
        .filter_map(|item| match item {
            Item::Event { kind, entry: e, .. } if e.orig == entry.orig => Some((kind, e)),
            Item::Event { .. } => None,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(of_entry.len(), theirs.len(), "{theirs:?}");
    for ((kind, entry), line) in of_entry.iter().zip(&theirs) {
        let tag = ["[NEW]", "[UPDATE]", "[DESTROY]"][*kind as usize];
        assert!(line.contains(tag), "{line}");
        assert!(line.contains(&format!("id={}", entry.id.unwrap())), "{line}");
        assert_eq!(line.contains("mark=7"), entry.mark == Some(Mark(7)), "{line}");
    }
    let kinds: Vec<Kind> = of_entry.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::New, Kind::Update, Kind::Destroy]);
    let stats = events.stats();
    assert_eq!((stats.overruns, stats.lost, stats.rejected), (0, Some(0), 0));
}

#[test]
fn groups_and_filters_choose() {
    let lab = Lab::new().unwrap();
    let mut conntrack = connect(&lab.router);
    let listen = |groups, filter| {
        stream(&lab.router, &EventOptions::default().groups(groups).filter(filter))
    };
    let any = DumpRequest::default();
    let marked = any.mark((Mark(1), u32::MAX));
    let mut new = listen(EventGroups::NEW, any);
    let mut destroy = listen(EventGroups::DESTROY, any);
    let mut of_mark = listen(EventGroups::ENTRIES, marked);
    let mut entry = lasting(nth(1));
    conntrack.create(&entry).unwrap();
    entry.orig = nth(2);
    entry.reply = nth(2).inverted().unwrap();
    entry.with.mark = Some(MarkChange::to(Mark(1)));
    conntrack.create(&entry).unwrap();
    conntrack.flush(None, None).unwrap();
    let kinds = |events: &mut EventStream| {
        let kind = |item| if let Item::Event { kind, .. } = item { kind } else { panic!() };
        drain(events).into_iter().map(kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&mut new), [Kind::New; 2]);
    assert_eq!(kinds(&mut destroy), [Kind::Destroy; 2]);
    assert_eq!(kinds(&mut of_mark), [Kind::New, Kind::Destroy]);
    assert_eq!(of_mark.stats().left_out, 2);
}

#[test]
fn a_loss_is_counted_told_and_made_up_for() {
    const FLOWS: u32 = 3000;
    let lab = Lab::new().unwrap();
    let mut conntrack = connect(&lab.router);
    create(&mut conntrack, 0..10);
    let mut events = stream(&lab.router, &tiny());
    create(&mut conntrack, 10..FLOWS);
    for n in 10..110 {
        assert!(conntrack.delete(&EntryKey::orig(nth(n))).unwrap());
    }
    let items = drain(&mut events);
    let place = |wanted: fn(&OwnedItem) -> bool| items.iter().position(wanted).unwrap();
    let gap = place(|item| matches!(item, Item::Gap(_)));
    let begin = place(|item| matches!(item, Item::ResyncBegin(_)));
    let end = place(|item| matches!(item, Item::ResyncEnd(_)));
    assert!(gap < begin && begin < end);
    assert!(items[gap + 1..begin].iter().all(|item| matches!(item, Item::Event { .. })));
    assert!(items[begin + 1..end].iter().all(|item| matches!(item, Item::Resync(_))));
    assert_eq!(known(&items), table(&mut conntrack));
    let told = items.iter().filter(|item| matches!(item, Item::Event { .. })).count() as u64;
    let stats = events.stats();
    assert_eq!((stats.overruns, stats.resyncs, stats.events), (1, 1, told));
    // Each event was told or counted as lost.
    let happened = u64::from(FLOWS - 10) + 100;
    assert_eq!(stats.lost, Some(happened - told));
    assert_eq!(stats.buffer, 4096);

    // And it goes on.
    create(&mut conntrack, FLOWS..FLOWS + 1);
    let items = drain(&mut events);
    assert!(matches!(&items[..], [Item::Event { entry, .. }] if entry.orig == nth(FLOWS)));
}

#[test]
fn without_resync_a_gap_is_all_that_is_told() {
    let lab = Lab::new().unwrap();
    let mut conntrack = connect(&lab.router);
    let mut events = stream(&lab.router, &tiny().resync(false));
    create(&mut conntrack, 0..100);
    let items = drain(&mut events);
    assert!(matches!(items[0], Item::Gap(gap) if gap.overruns == 1 && gap.lost > Some(0)));
    assert!(items[1..].iter().all(|item| matches!(item, Item::Event { .. })));
    create(&mut conntrack, 100..101);
    assert_eq!(drain(&mut events).len(), 1);
}

#[test]
fn the_buffer_grows_on_pressure_up_to_its_limit() {
    let lab = Lab::new().unwrap();
    let mut conntrack = connect(&lab.router);
    let buffer = EventBuffer { start: 4096, limit: 12_000 };
    let mut events = stream(&lab.router, &EventOptions::default().buffer(buffer));
    let mut sizes = vec![events.stats().buffer];
    for round in 0..4 {
        create(&mut conntrack, round * 1000..(round + 1) * 1000);
        let sized = drain(&mut events).into_iter().filter_map(|item| match item {
            Item::Gap(gap) => Some(gap.buffer),
            _ => None,
        });
        sizes.extend(sized);
    }
    assert_eq!(sizes, [4096, 8192, 12_000, 12_000, 12_000]);
    // A large buffer is granted beyond net.core.rmem_max.
    let max: usize =
        std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap().trim().parse().unwrap();
    let options = EventOptions::default().buffer(EventBuffer::fixed(4 * max));
    assert_eq!(stream(&lab.router, &options).stats().buffer, 4 * max);
}

#[test]
fn the_buffer_grows_before_it_overruns() {
    let lab = Lab::new().unwrap();
    let mut conntrack = connect(&lab.router);
    let buffer = EventBuffer { start: 256 << 10, limit: 4 << 20 };
    let mut events = stream(&lab.router, &EventOptions::default().buffer(buffer));
    // As many as fit, but for a few.
    let mut waiting = 0;
    for n in 0..10_000 {
        create(&mut conntrack, n..n + 1);
        let before = std::mem::replace(&mut waiting, unread(&lab.router));
        if 2 * (256 << 10) - waiting < 8 * (waiting - before) {
            break;
        }
    }
    let items = drain(&mut events);
    assert!(items.len() > 200 && items.iter().all(|item| matches!(item, Item::Event { .. })));
    assert_eq!((events.stats().overruns, events.stats().buffer), (0, 512 << 10));
}

/// Bytes that wait in the receive buffer of the one listener in the namespace.
fn unread(host: &Host) -> usize {
    let table = host.run(["cat", "/proc/self/net/netlink"]).unwrap();
    let of_listener = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields[1] == "12" && fields[3] != "00000000";
        listens.then(|| fields[4].parse::<usize>().unwrap())
    };
    table.lines().skip(1).find_map(of_listener).unwrap()
}

/// Another thread changes the table as fast as it can, while the stream is read.
#[test]
fn whoever_follows_the_stream_through_a_flood_knows_the_table() {
    let lab = Lab::new().unwrap();
    let mut events = stream(&lab.router, &tiny());
    let mut items = Vec::new();
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut conntrack = connect(&lab.router);
            for round in 0..20 {
                create(&mut conntrack, round * 500..(round + 1) * 500);
                for n in round * 500..round * 500 + 250 {
                    conntrack.delete(&EntryKey::orig(nth(n))).unwrap();
                }
            }
        });
        while !flood.is_finished() {
            items.extend(drain(&mut events));
        }
    });
    items.extend(drain(&mut events));
    let stats = events.stats();
    println!("{stats:?}");
    assert!(stats.overruns > 0 && stats.resyncs > 0 && stats.rejected == 0, "{stats:?}");
    let gaps = items.iter().filter(|item| matches!(item, Item::Gap(_))).count() as u64;
    assert_eq!(gaps, stats.overruns);
    assert_eq!(stats.events + stats.lost.unwrap(), 20 * 750, "{stats:?}");
    assert_eq!(known(&items), table(&mut connect(&lab.router)));
}

#[test]
fn tokio_is_told_the_same() {
    let lab = Lab::new().unwrap();
    let mut conntrack = connect(&lab.router);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut events = stream(&lab.router, &tiny()).into_async().unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(50), events.next()).await;
        assert!(nothing.is_err());
        create(&mut conntrack, 0..1000);
        let mut items: Vec<OwnedItem> = Vec::new();
        while !matches!(items.last(), Some(Item::ResyncEnd(_))) {
            let item = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
            items.push((&item).into());
        }
        assert_eq!(known(&items).len(), 1000);
        assert_eq!(events.stats().overruns, 1);

        // What is filtered out keeps nobody else from running.
        let filter = DumpRequest::default().zone(Zone(1));
        let of_zone = EventOptions::default().filter(filter);
        let mut filtered = stream(&lab.router, &of_zone).into_async().unwrap();
        create(&mut conntrack, 2000..2500);
        let start = Instant::now();
        while filtered.stats().left_out < 500 && start.elapsed() < PATIENCE {
            let nothing = tokio::time::timeout(Duration::from_millis(50), filtered.next()).await;
            assert!(nothing.is_err());
        }
        assert_eq!(filtered.stats().left_out, 500);
        while tokio::time::timeout(Duration::from_millis(50), events.next()).await.is_ok() {}

        create(&mut conntrack, 1000..1001);
        let mut events = pin!(events);
        let next = poll_fn(|cx| events.as_mut().poll_next(cx));
        let item = tokio::time::timeout(PATIENCE, next).await.unwrap().unwrap().unwrap();
        assert!(
            matches!(item, Item::Event { kind: Kind::New, entry, .. } if entry.orig == nth(1000))
        );
    });
}
