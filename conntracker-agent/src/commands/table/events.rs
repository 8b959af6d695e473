//! `conntracker events`: prints events of conntrack's table as they arrive, and losses.

use std::{
    io::{self, BufWriter, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{
    connect,
    format::{ConntrackFormat, EntryFormat, With},
};
use crate::{
    capture::dumps,
    commands::trace::EXIT_LOST,
    conntrack::{Entry, EventBuffer, EventGroups, EventItem, EventOptions, Item, Kind},
    live::asked,
    model::filter::Filter,
    os::{
        clock::Clock,
        event_loop, messages,
        netns::Netns,
        signals::{SignalRequest, Signals},
    },
    report::{
        conntrack::{EventInfo, Format, Origin, Renderer, Timestamp},
        json::{self, Stamp},
    },
};

/// Time that output may stay in the buffer.
const FLUSH_EVERY: Duration = Duration::from_millis(50);

/// Time that is longer than any observation.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// What to listen to.
#[derive(Clone, Debug)]
pub struct Events {
    /// Namespace; `None` is our own.
    pub netns: Option<String>,
    /// Kinds of events.
    pub groups: EventGroups,
    /// Which entries.
    pub filter: Filter,
    /// Receive buffer.
    pub buffer: EventBuffer,
    /// Read the table anew after a loss.
    pub resync: bool,
    /// Begin with the entries that there are.
    pub table_first: bool,
    /// End after this time.
    pub duration: Option<Duration>,
    /// How they are printed: not as [`EntryFormat::Csv`].
    pub format: EntryFormat,
    /// Exit with 3 if events were lost.
    pub strict: bool,
}

/// Prints events until Ctrl-C, SIGTERM, SIGHUP or the end of the time.
pub fn run(events: &Events) -> Result<ExitCode> {
    messages::to_stderr();
    asked::tell(&events.filter);
    // Before anything is subscribed: a signal from here on ends in order.
    let signals = Signals::install(false)?;
    event_loop::block_on(listen(events, signals))
}

async fn listen(events: &Events, mut signals: Signals) -> Result<ExitCode> {
    let netns = events.netns.as_deref().map_or_else(Netns::current, Netns::named)?;
    let mut stream = connect(&netns)?.into_events(&EventOptions {
        groups: events.groups,
        filter: dumps::request(&events.filter),
        buffer: events.buffer,
        resync: events.resync,
    })?;
    if events.table_first {
        stream.resync();
    }
    let mut stream = stream.into_async()?;
    log::info!("listening; Ctrl-C ends");
    let mut printer = Printer::new(events, &netns)?;
    let begun = printer.begin();
    let end = sleep_until(Instant::now() + events.duration.unwrap_or(FOREVER));
    tokio::pin!(end);
    let mut flush = interval(FLUSH_EVERY);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let printed = loop {
        if begun.is_err() {
            break begun;
        }
        let printed = tokio::select! {
            asked = signals.next() => match asked {
                SignalRequest::End => break Ok(()),
                SignalRequest::Report | SignalRequest::Reopen => printer.out.flush(),
            },
            () = &mut end => break Ok(()),
            _ = flush.tick() => printer.out.flush(),
            item = stream.next() => printer.item(&item?),
        };
        if printed.is_err() {
            break printed;
        }
    };
    match printed.and_then(|()| printer.end()) {
        // Whoever read has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result.context("cannot write to standard output")?,
    }
    let stats = stream.stats();
    log::info!("{} events", stats.events - stats.left_out);
    let lost = stats.overruns > 0 || stats.rejected > 0;
    if stats.overruns > 0 {
        let many = stats.lost.map_or("nobody knows how many".to_owned(), |lost| lost.to_string());
        log::warn!(
            "{many} events were lost: the receive buffer was full {} times, at last with {} bytes (--buffer)",
            stats.overruns,
            stats.buffer
        );
    }
    if stats.rejected > 0 {
        log::warn!("{} events could not be decoded", stats.rejected);
    }
    Ok(if lost && events.strict { EXIT_LOST.into() } else { ExitCode::SUCCESS })
}

struct Printer<'a> {
    events: &'a Events,
    netns: &'a Netns,
    clock: Clock,
    /// `None`: JSON.
    conntrack_format: Option<ConntrackFormat>,
    line: Vec<u8>,
    out: BufWriter<io::Stdout>,
}

impl<'a> Printer<'a> {
    fn new(events: &'a Events, netns: &'a Netns) -> Result<Self> {
        Ok(Self {
            events,
            netns,
            clock: Clock::new()?,
            conntrack_format: events.format.conntrack_format(),
            line: Vec::new(),
            out: BufWriter::with_capacity(1 << 16, io::stdout()),
        })
    }

    /// The renderer of conntrack's own formats; `None`: JSON.
    fn renderer(&self, now_ns: u64) -> Option<Renderer<'_>> {
        self.conntrack_format.as_ref().map(|conntrack_format| conntrack_format.renderer(now_ns))
    }

    /// Whether to print the time of events.
    fn timestamps(&self) -> bool {
        matches!(self.events.format, EntryFormat::Conntrack(_, With { timestamp: true, .. }))
    }

    fn begin(&mut self) -> io::Result<()> {
        let mut line = Vec::new();
        if let Some(renderer) = self.renderer(self.clock.now()) {
            renderer.begin(&mut line);
        }
        self.out.write_all(&line)
    }

    fn end(&mut self) -> io::Result<()> {
        let mut line = Vec::new();
        if let Some(renderer) = self.renderer(self.clock.now()) {
            renderer.end(&mut line);
        }
        self.out.write_all(&line)?;
        self.out.flush()
    }

    fn item(&mut self, item: &EventItem<'_>) -> io::Result<()> {
        match item {
            Item::Event { kind, portid, entry } => self.entry(Some(*kind), *portid, entry),
            Item::Resync(entry) => self.entry(None, 0, entry),
            Item::Gap(gap) => self.stream("gap", gap.lost),
            Item::ResyncBegin(lost) => self.stream("resync_begin", *lost),
            Item::ResyncEnd(_) => self.stream("resync_end", None),
            // Counted by the stream.
            Item::Rejected(_) | Item::Expect { .. } | Item::ResyncExpect(_) => Ok(()),
        }
    }

    /// Remarks of the stream about itself: lines that begin with `#`, and in XML comments.
    fn stream(&mut self, what: &'static str, lost: Option<u64>) -> io::Result<()> {
        let Some(renderer) = self.renderer(self.clock.now()) else {
            return json::render_stream(what, lost, &mut self.out);
        };
        let (begin, end) =
            if renderer.format == Format::Xml { ("<!--", " -->") } else { ("#", "") };
        match lost {
            Some(lost) => writeln!(self.out, "{begin} {what} lost={lost}{end}"),
            None => writeln!(self.out, "{begin} {what}{end}"),
        }
    }

    /// An event, or an entry of the table (`None`).
    fn entry(&mut self, kind: Option<Kind>, portid: u32, entry: &Entry<'_>) -> io::Result<()> {
        if !self.events.filter.allows_entry(entry) {
            return Ok(());
        }
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        let now_ns = self.clock.now();
        match (self.renderer(now_ns), kind) {
            (Some(renderer), Some(kind)) => {
                let by = (portid != 0).then_some(Origin { portid, program: None });
                let at = entry.timestamp_event.unwrap_or(now_ns);
                let at = self.timestamps().then(|| Timestamp::of_nanoseconds(at));
                renderer.event(&mut line, &EventInfo { kind, at, by }, entry);
            }
            (Some(renderer), None) => renderer.entry(&mut line, entry),
            (None, kind) => {
                let event = match kind {
                    None => "resync",
                    Some(Kind::New) => "new",
                    Some(Kind::Update) => "update",
                    Some(Kind::Destroy) => "destroy",
                };
                let now = Stamp::new(now_ns);
                json::render_event(&mut line, event, portid, entry, &self.netns.name, &now)?;
            }
        }
        let written = self.out.write_all(&line);
        self.line = line;
        written
    }
}
