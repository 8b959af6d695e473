//! Whole recordings, and what is read of them when they are cut or changed.

mod document;

use std::{fs, io::Read, path::PathBuf, thread, time::Duration};

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::{
    events::tests::events,
    statement::{Counts, Header, Ruleset},
    *,
};
use crate::{
    firewall::objects::KernelObjects,
    model::{
        NetnsId,
        event::{EventKind, FlowEvent},
    },
};

/// Many events of all kinds.
fn many(count: usize) -> Vec<FlowEvent> {
    let mut runner = TestRunner::deterministic();
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(events().new_tree(&mut runner).unwrap().current());
    }
    all.truncate(count);
    all
}

/// A directory, and the options to record there.
fn at(rotate: Option<Rotate>) -> (tempfile::TempDir, Options) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r.rec");
    (directory, Options { path, rotate, keep: None })
}

fn header(epochs: u64) -> Header {
    Header { host: "fw".to_owned(), epochs: Some(epochs), ..Header::default() }
}

/// Records events, so many to a block.
fn record(recorder: &mut Recorder, events: &[FlowEvent], per_block: usize) {
    recorder.header(header(1), 1);
    for block in events.chunks(per_block) {
        for event in block {
            recorder.event(event);
        }
        recorder.flush();
    }
    recorder.counts(&Counts { at_ns: 9, ..Counts::default() });
}

/// The bytes of a recording of events.
fn recorded(events: &[FlowEvent], per_block: usize) -> Vec<u8> {
    let (_directory, options) = at(None);
    let path = options.path.clone();
    let mut recorder = Recorder::create(options).unwrap();
    record(&mut recorder, events, per_block);
    recorder.finish();
    fs::read(path).unwrap()
}

/// What is read of bytes: events, and everything else.
fn read(bytes: impl Read) -> Result<(Vec<FlowEvent>, Vec<Item>, bool), Error> {
    let mut reader = Reader::new(bytes).unwrap();
    let (mut events, mut others) = (Vec::new(), Vec::new());
    while let Some(item) = reader.next(End::Last)? {
        match item {
            Item::Events(more) => events.extend(more),
            other => others.push(other),
        }
    }
    Ok((events, others, reader.closed()))
}

fn damages(items: &[Item]) -> Vec<&Damage> {
    items
        .iter()
        .filter_map(|item| if let Item::Damage(of) = item { Some(of) } else { None })
        .collect()
}

/// Bytes that come in pieces.
struct Trickle<'a>(&'a [u8], usize);
impl Read for Trickle<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        self.1 = self.1 * 7 % 1_009 + 1;
        let length = self.1.min(to.len()).min(self.0.len());
        to[..length].copy_from_slice(&self.0[..length]);
        self.0 = &self.0[length..];
        Ok(length)
    }
}

/// Where blocks begin, and behind the last one.
fn begins(bytes: &[u8]) -> Vec<usize> {
    let sync = &bytes[64..72];
    let found = (64..bytes.len() - 7).filter(|&at| bytes[at..at + 8] == *sync);
    found.chain([bytes.len()]).collect()
}

#[test]
fn a_recording_is_read_as_it_was_written() {
    let all = many(5_000);
    let bytes = recorded(&all, EVENTS_PER_BLOCK);
    let (events, others, closed) = read(&bytes[..]).unwrap();
    assert!(events == all && closed);
    assert!(damages(&others).is_empty(), "{others:?}");
    assert!(
        matches!(&others[..], [Item::Part(_), Item::Header(_), Item::Counts(_), Item::Close(close)] if close.last)
    );
    // In pieces of any size, as a pipe gives them.
    assert!(read(Trickle(&bytes, 1)).unwrap().0 == all);
}

#[test]
fn each_whole_block_of_a_cut_recording_is_read_and_the_rest_is_told() {
    let all = many(2_000);
    let bytes = recorded(&all, 100);
    let begins = begins(&bytes);
    for cut in (0..bytes.len()).step_by(bytes.len() / 1_000) {
        let found = read(&bytes[..cut]);
        if cut == 0 {
            assert!(matches!(found, Err(Error::NotARecording(_))));
            continue;
        }
        let (events, others, closed) = found.unwrap();
        assert!(!closed, "cut at {cut}");
        let whole = begins.iter().filter(|&&begin| begin <= cut).count();
        let at_an_end = begins.contains(&cut);
        assert_eq!(damages(&others).len(), usize::from(!at_an_end), "cut at {cut}: {others:?}");
        assert!(all.starts_with(&events), "cut at {cut}");
        // Header, strings and paths come before the first events.
        let least = whole.saturating_sub(1 + 1 + 2 * 20) * 100;
        assert!(
            events.len() >= least.min(1_900),
            "cut at {cut}: {} of {whole} blocks",
            events.len()
        );
    }
}

#[test]
fn a_changed_bit_costs_one_block_and_is_told() {
    let all = many(1_000);
    let bytes = recorded(&all, 50);
    for n in 0..1_000_usize {
        let bit = n.wrapping_mul(2_654_435_761) % (bytes.len() * 8);
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let (events, others, _) = read(&changed[..]).unwrap();
        let damages = damages(&others);
        assert!(!damages.is_empty(), "bit {bit} changed and nothing is said");
        // What is there is what was written, in its order.
        let mut left = all.iter();
        let mut same = |event: &FlowEvent| {
            left.any(|of| of == event || (of.at_ns == event.at_ns && refers_to_lost(event)))
        };
        assert!(events.iter().all(&mut same), "bit {bit}");
        let lost: u64 = damages.iter().map(|damage| damage.records).sum();
        let missing = (all.len() - events.len()) as u64;
        assert!(missing <= 50 + lost, "bit {bit}: {missing} events are missing, {damages:?}");
    }
}

/// Whether a string of the event was lost with its block.
fn refers_to_lost(event: &FlowEvent) -> bool {
    format!("{event:?}").contains("(lost)")
}

#[test]
fn bytes_between_blocks_blocks_twice_and_blocks_in_another_order_are_told() {
    let all = many(400);
    let bytes = recorded(&all, 100);
    let at = begins(&bytes);
    let n = at.len();
    // Before the last three blocks (events, counts, close) something else.
    let mut inserted = bytes[..at[n - 4]].to_vec();
    inserted.extend([0x55; 3_000]);
    inserted.extend(&bytes[at[n - 4]..]);
    let (events, others, closed) = read(&inserted[..]).unwrap();
    assert!(events == all && closed);
    assert!(
        matches!(damages(&others)[..], [Damage { bytes: 3_000, blocks: Some(0), .. }]),
        "{others:?}"
    );
    // The last block of events twice.
    let mut twice = bytes[..at[n - 3]].to_vec();
    twice.extend(&bytes[at[n - 4]..]);
    let (events, others, _) = read(&twice[..]).unwrap();
    assert!(events == all);
    assert_eq!(damages(&others).len(), 1);
    // Not at all.
    let mut without = bytes[..at[n - 4]].to_vec();
    without.extend(&bytes[at[n - 3]..]);
    let (events, others, _) = read(&without[..]).unwrap();
    assert!(all.starts_with(&events) && events.len() == 300);
    assert!(
        matches!(damages(&others)[..], [Damage { bytes: 0, blocks: Some(1), .. }]),
        "{others:?}"
    );
}

#[test]
fn parts_stand_alone_and_behind_each_other() {
    let all = many(600);
    let (directory, options) = at(Some(Rotate::Bytes(1 << 30)));
    let mut recorder = Recorder::create(options.clone()).unwrap();
    let netns = NetnsId(2);
    let unseen = FlowEvent { netns, at_ns: 5, kind: EventKind::PacketsSeen(false) };
    recorder.header(header(3), 1);
    recorder.event(&unseen);
    for part in all.chunks(200) {
        for event in part {
            recorder.event(event);
        }
        assert!(!recorder.wants_dump());
        recorder.begin_part();
        assert!(recorder.wants_dump());
    }
    recorder.finish();
    let parts: Vec<PathBuf> =
        parts(&options.path).unwrap().into_iter().map(|(_, path)| path).collect();
    assert_eq!(parts.len(), 4, "{:?}", fs::read_dir(directory.path()).unwrap().collect::<Vec<_>>());
    let mut bytes = Vec::new();
    for (number, path) in parts.iter().enumerate() {
        let part = fs::read(path).unwrap();
        let (events, others, closed) = read(&part[..]).unwrap();
        assert!(closed && damages(&others).is_empty());
        assert!(others.contains(&Item::Header(header(3))), "part {number}");
        // The last one has only what each part states.
        let own = all.chunks(200).nth(number).unwrap_or_default();
        assert!(events.ends_with(own), "part {number}");
        bytes.extend(part);
    }
    let (events, others, closed) = read(&bytes[..]).unwrap();
    assert!(closed && damages(&others).is_empty(), "{others:?}");
    assert!(events.len() >= all.len());
    assert_eq!(others.iter().filter(|item| matches!(item, Item::Part(_))).count(), 4);
}

#[test]
fn what_the_kernel_has_is_kept_with_a_ruleset_and_stated_again_in_each_part() {
    let (_directory, options) = at(Some(Rotate::Bytes(1 << 20)));
    let path = options.path.clone();
    let objects = KernelObjects {
        nf_tables: b"messages".repeat(100),
        ip_tables: vec![2; 30],
        routing: Vec::new(),
        missing: vec!["routes are too many to be kept".to_owned()],
    };
    let ruleset = Ruleset { epoch: 1, at_ns: 3, objects, ..Ruleset::default() };
    let mut recorder = Recorder::create(options).unwrap();
    recorder.ruleset(ruleset.clone());
    recorder.begin_part();
    recorder.finish();
    for (_, part) in parts(&path).unwrap() {
        let (_, items, _) = read(fs::File::open(part).unwrap()).unwrap();
        assert!(items.contains(&Item::Ruleset(ruleset.clone())), "{items:?}");
    }
}

#[test]
fn the_oldest_parts_are_removed_and_a_new_run_says_that_the_last_one_has_no_end() {
    let (_directory, mut options) = at(Some(Rotate::Bytes(1)));
    options.keep = Some(40_000);
    let mut recorder = Recorder::create(options.clone()).unwrap();
    recorder.header(header(1), 1);
    for block in many(3_000).chunks(300) {
        for event in block {
            recorder.event(event);
        }
        recorder.flush();
        recorder.begin_part();
    }
    recorder.finish();
    let left = parts(&options.path).unwrap();
    let sum: u64 = left.iter().map(|(_, path)| fs::metadata(path).unwrap().len()).sum();
    assert!(left[0].0 > 1 && left.len() > 1 && sum < 80_000, "{left:?}: {sum}");
    // The last part without its end, as after SIGKILL.
    let (number, last) = left.last().unwrap();
    let bytes = fs::read(last).unwrap();
    fs::write(last, &bytes[..bytes.len() - 3]).unwrap();
    Recorder::create(options.clone()).unwrap().finish();
    let (next, path) = parts(&options.path).unwrap().pop().unwrap();
    assert_eq!(next, number + 1);
    let (_, others, closed) = read(fs::File::open(path).unwrap()).unwrap();
    assert!(closed);
    assert!(
        others
            .iter()
            .any(|item| matches!(item, Item::Gap(gap) if gap.why.contains("not ended in order")))
    );
}

#[test]
fn a_file_that_grows_is_read_as_it_grows() {
    let all = many(300);
    let bytes = recorded(&all, 30);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r.rec");
    fs::write(&path, b"").unwrap();
    let mut reader = Reader::new(fs::File::open(&path).unwrap()).unwrap();
    let mut events = Vec::new();
    for length in (0..bytes.len()).step_by(777).chain([bytes.len()]) {
        fs::write(&path, &bytes[..length]).unwrap();
        while let Some(item) = reader.next(End::MayGrow).unwrap() {
            match item {
                Item::Events(more) => events.extend(more),
                Item::Damage(damage) => panic!("{damage:?}"),
                _ => {}
            }
        }
    }
    assert!(events == all && reader.closed());
}

#[test]
fn an_event_waits_for_a_second_at_most() {
    let (_directory, options) = at(None);
    let path = options.path.clone();
    let mut recorder = Recorder::create(options).unwrap();
    recorder.event(&many(1)[0]);
    recorder.tick();
    thread::sleep(Duration::from_millis(1_050));
    recorder.tick();
    let written = || read(fs::File::open(&path).unwrap()).unwrap().0;
    for _ in 0..100 {
        if !written().is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(written().len(), 1);
}

#[test]
fn files_are_not_overwritten_and_have_mode_0640() {
    use std::os::unix::fs::PermissionsExt;
    let (_directory, options) = at(None);
    Recorder::create(options.clone()).unwrap().finish();
    assert_eq!(fs::metadata(&options.path).unwrap().permissions().mode() & 0o7777, 0o640);
    let before = fs::read(&options.path).unwrap();
    let refused = Recorder::create(options.clone()).err().unwrap().to_string();
    assert!(refused.contains("is there already"), "{refused}");
    assert_eq!(fs::read(&options.path).unwrap(), before);
}

proptest! {
    #[test]
    fn no_bytes_panic(mut bytes: Vec<u8>, head: bool) {
        if head {
            let mut whole = recorded(&[], 1);
            whole.truncate(64);
            whole.append(&mut bytes);
            bytes = whole;
        }
        let _ = read(&bytes[..]);
    }
}
