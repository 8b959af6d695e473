//! Bytes and time that recording takes for each flow, and reading it. `cargo xtask bench record` runs this.
//!
//! Arguments: the number of flows, and the file to record to. It prints a line of JSON.

use std::{env, fs, path::PathBuf, time::Instant};

use conntracker::recording::{End, Item, Options, Reader, Recorder, made_up, statement::Header};

fn main() {
    // Cargo adds an argument of its own.
    let args: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let flows: u64 = args.first().and_then(|flows| flows.parse().ok()).unwrap_or(200_000);
    let path =
        args.get(1).map_or_else(|| env::temp_dir().join("conntracker-bench.rec"), PathBuf::from);
    let _ = fs::remove_file(&path);
    let events = made_up::events(flows);

    let options = Options { path: path.clone(), rotate: None, keep: None };
    let start = Instant::now();
    let mut recorder = Recorder::create(options).unwrap_or_else(|error| panic!("{error:#}"));
    recorder.header(Header { host: "bench".to_owned(), start_ns: 1, ..Header::default() }, 1);
    for event in &events {
        recorder.event(event);
        // The queue is for disks that are slow at times, not for a benchmark that is faster than any traffic.
        while recorder.waiting_bytes() > 16 << 20 {
            std::thread::yield_now();
        }
    }
    let taken = start.elapsed();
    let lost = recorder.lost();
    recorder.finish();
    let written = start.elapsed();
    assert_eq!(lost, 0);

    let bytes = fs::metadata(&path).map_or(0, |meta| meta.len());
    let start = Instant::now();
    let file = fs::File::open(&path).unwrap_or_else(|error| panic!("{error}"));
    let mut reader = Reader::new(file).unwrap_or_else(|error| panic!("{error}"));
    let mut read = 0;
    while let Some(item) = reader.next(End::Last).unwrap_or_else(|error| panic!("{error}")) {
        if let Item::Events(events) = item {
            read += events.len();
        }
    }
    let reading = start.elapsed();
    assert_eq!(read, events.len());

    let per_second = |time: std::time::Duration| events.len() as f64 / time.as_secs_f64();
    println!(
        "{{\"flows\": {flows}, \"events\": {}, \"bytes\": {bytes}, \"taken_per_second\": {:.0}, \
         \"written_per_second\": {:.0}, \"read_per_second\": {:.0}}}",
        events.len(),
        per_second(taken),
        per_second(written),
        per_second(reading)
    );
}
