use std::sync::Mutex;

use anyhow::anyhow;
use tokio::sync::mpsc;

use super::*;
use crate::{
    bpf::sizes::Sizes,
    capture::{BackendChoice, Config, Hurry, NetnsChoice},
    model::{event, filter::Filter},
    netlink::{
        ctnetlink::Entry,
        wire::{Message, Messages},
    },
    report::Report,
};

/// The notes of each report, and whether it was the last one.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Notes>>>);

type Notes = (Vec<String>, bool);

impl Output for Kept {
    fn report(&mut self, report: Report, last: bool) -> Result<ControlFlow<()>> {
        self.0.lock().unwrap().push((report.header.notes, last));
        Ok(ControlFlow::Continue(()))
    }

    fn status(&mut self, _: Status) {}
}

/// An observer by netlink of the namespace that the test runs in, and what its dumps come by.
async fn observer() -> (Observer, mpsc::Sender<DumpMessage>) {
    let config = Config {
        netns: NetnsChoice::Current,
        backend: BackendChoice::Netlink,
        attach: None,
        avoid: Vec::new(),
        filter: Filter::default(),
        filter_text: Vec::new(),
        fold: true,
        rules: None,
        lost: true,
        max_flows: 1_000,
        leave_written: false,
        record: None,
        sizes: Sizes::default(),
        event_buffer: 1 << 20,
    };
    let mut observer = Observer::start(config, &Hurry::within(Duration::ZERO)).await.unwrap();
    let sender;
    (sender, observer.dumps) = mpsc::channel(8);
    (observer, sender)
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

#[test]
fn what_is_known_is_written_before_a_failure_ends_it() {
    run(async {
        let (observer, dumps) = observer().await;
        let failed = DumpMessage::Done(NetnsId(0), Err(anyhow!("the kernel is gone")));
        assert!(dumps.send(failed).await.is_ok());
        let kept = Kept::default();
        let ran = observer.run(std::future::pending, kept.clone()).await;
        let error = ran.err().unwrap();
        assert_eq!(error.to_string(), "the kernel is gone");
        let reports = kept.0.lock().unwrap();
        let [(notes, true)] = &reports[..] else { panic!("{reports:?}") };
        let note = "the trace ended early: the kernel is gone".to_owned();
        assert!(notes.contains(&note), "{notes:?}");
    });
}

/// Waits in its first report until somebody says that the loop has gone on.
struct Slow(std::sync::mpsc::Receiver<()>, Vec<bool>);

impl Output for Slow {
    fn report(&mut self, _: Report, last: bool) -> Result<ControlFlow<()>> {
        let went_on = last || self.0.recv_timeout(Duration::from_secs(20)).is_ok();
        self.1.push(went_on);
        Ok(ControlFlow::Continue(()))
    }

    fn status(&mut self, _: Status) {}
}

#[test]
fn the_loop_goes_on_while_a_report_is_written() {
    run(async {
        let config = observer().await.0.config;
        let observer = Observer::start(config, &Hurry::within(Duration::ZERO)).await.unwrap();
        let (went_on, slow) = std::sync::mpsc::channel();
        let mut asked = 0;
        let requests = || {
            asked += 1;
            let (asked, went_on) = (asked, went_on.clone());
            async move {
                if asked == 1 {
                    return Request::Report;
                }
                // By then the first report is being written.
                tokio::time::sleep(Duration::from_secs(1)).await;
                went_on.send(()).unwrap();
                Request::Finish
            }
        };
        let Slow(_, reports) = observer.run(requests, Slow(slow, Vec::new())).await.unwrap();
        assert_eq!(reports, [true, true]);
    });
}

#[test]
fn a_dump_that_is_not_whole_concludes_nothing() {
    let datagram = include_bytes!("../../netlink/ctnetlink/fixtures/dump.bin");
    let entry = |message: Message<'_>| Some((&Entry::decode(message.payload).ok()?).into());
    let entries: Vec<event::Entry> = Messages::new(datagram).flatten().filter_map(entry).collect();
    let counts = |observer: &Observer| -> u64 {
        observer.table.snapshot().into_flows().map(|flow| flow.flows.total()).sum()
    };
    let dump = |observer: &mut Observer, entries: &[event::Entry], stats: DumpStats| {
        let id = NetnsId(0);
        observer.dumping.insert(id);
        observer.event(id, EventKind::DumpBegan);
        observer.on_dump(DumpMessage::Entries(id, entries.to_vec())).unwrap();
        observer.on_dump(DumpMessage::Done(id, Ok(stats))).unwrap();
    };
    run(async {
        let (mut observer, _dumps) = observer().await;
        let whole = DumpStats::default();
        dump(&mut observer, &entries, whole);
        let before = counts(&observer);
        assert!(before > 0);
        for stats in [DumpStats { rejected: 1, ..whole }, DumpStats { interrupted: 1, ..whole }] {
            dump(&mut observer, &[], stats);
            dump(&mut observer, &entries, whole);
            assert_eq!(counts(&observer), before, "{stats:?}");
        }
        // After one that is whole and shows nothing, entries like these are other flows.
        dump(&mut observer, &[], whole);
        dump(&mut observer, &entries, whole);
        assert_eq!(counts(&observer), 2 * before);
    });
}

#[test]
fn of_several_namespaces_one_that_cannot_be_dumped_does_not_end_it() {
    run(async {
        let (mut observer, dumps) = observer().await;
        let other = observer.namespaces[&NetnsId(0)].clone();
        let id = observer.add(&other);
        let failed = DumpMessage::Done(id, Err(anyhow!("that one is broken")));
        assert!(dumps.send(failed).await.is_ok());
        // The dump of the first one, which it began by itself.
        let done = DumpMessage::Done(NetnsId(0), Ok(DumpStats::default()));
        assert!(dumps.send(done).await.is_ok());
        while let Ok(message) = observer.dumps.try_recv() {
            observer.on_dump(message).unwrap();
        }
        assert_eq!((observer.tally.dump_failed, observer.dumped_once.len()), (1, 2));
    });
}
