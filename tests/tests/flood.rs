//! Events at the highest rate that the machine makes: what is lost is counted and marked, and the table is
//! known in the end. How many flows `conntrack -E` beside it misses is measured by `cargo xtask bench events`.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use conntracker_tests::flood::{self, Flood};
use conntracker_tests::tracer::binary;

/// One at a time, or the rate is that of the tests.
static ALONE: Mutex<()> = Mutex::new(());

fn flood(args: &[&str]) -> Flood {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let program = binary().unwrap();
    let program = program.to_str().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let args = [&[program, "events", "--format", "plain"], args].concat();
    let flood = flood::run(&args, Duration::from_secs(2), directory.path()).unwrap();
    println!("{flood:?}");
    assert!(flood.made > 1000 && flood.table > 1000, "no flood");
    // What a listener has not been told of the kernel had no room for.
    for told in [&flood.ours, &flood.theirs] {
        assert!(flood.made as usize - told.flows <= told.dropped as usize);
    }
    assert_eq!((flood.ours.unknown, flood.ours.stale), (0, 0));
    assert_eq!(flood.ours.gaps > 0, flood.ours.dropped > 0);
    flood
}

#[test]
fn what_is_lost_makes_the_buffer_larger_than_it_began() {
    let Flood { ours, .. } = flood(&[]);
    let size = ours.said.split_once("at last with ").and_then(|(_, rest)| rest.split(' ').next());
    assert_eq!(size.is_some(), ours.dropped > 0, "{}", ours.said);
    let size: Option<u32> = size.map(|bytes| bytes.parse().unwrap());
    assert!(size.is_none_or(|bytes| bytes > 2 << 20), "{}", ours.said);
}

#[test]
fn what_a_small_buffer_loses_is_counted_marked_and_made_up_for() {
    let Flood { ours, .. } = flood(&["--buffer", "64K"]);
    assert!(ours.gaps > 0 && ours.resyncs > 0, "{} gaps", ours.gaps);
    let said = format!("{} events were lost: the receive buffer was full", ours.dropped);
    assert!(ours.said.contains(&said), "{}", ours.said);
}
