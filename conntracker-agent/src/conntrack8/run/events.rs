//! Events, until a signal ends it.

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::printer::{Printer, calendar, now, renderer};
use super::programs::Programs;
use super::{Failure, Outcome, Session};
use crate::conntrack::{
    Conntrack, EventBuffer, EventGroups, EventItem, EventOptions, EventStream, Item,
};
use crate::conntrack8::Rejection;
use crate::conntrack8::filter::Filter;
use crate::conntrack8::values::Output;
use crate::report::conntrack::{EventInfo, Origin, Timestamp};

/// Events between two looks at signals.
const EVENTS: usize = 256;

impl Session {
    /// Shows events of entries.
    pub(super) fn events(
        &mut self,
        filter: &Filter,
        groups: EventGroups,
        buffer: Option<usize>,
        output: Output,
    ) -> Outcome {
        let calendar = calendar();
        let mut renderer = renderer(output, &self.names, &calendar);
        let mut programs = Programs::default();
        let options = EventOptions {
            groups,
            filter: filter.request,
            buffer: buffer.map_or_else(EventBuffer::default, EventBuffer::fixed),
            resync: false,
        };
        let mut stream = Conntrack::connect()?.into_events(&options)?;
        if buffer.is_some() {
            // getsockopt(2) returns twice the size that was asked for.
            let bytes = stream.stats().buffer * 2;
            eprintln!("NOTICE: Netlink socket buffer size has been set to {bytes} bytes.");
        }
        let shown = follow(&mut stream, &mut self.printer, |item, printer| match item {
            Item::Event { kind, portid, entry } if filter.matches(entry) => {
                let time = now();
                renderer.now = time.seconds;
                let program = programs.of(*portid);
                let by = (*portid != 0).then_some(Origin { portid: *portid, program });
                let at = output.timestamp.then(|| {
                    // The kernel's time, if it sent one (Linux 6.14+, nf_conntrack_timestamp).
                    entry.timestamp_event.map_or(time, Timestamp::of_nanoseconds)
                });
                let lines = printer.begun(|out| renderer.begin(out));
                renderer.event(lines, &EventInfo { kind: *kind, at, by }, entry);
                true
            }
            _ => false,
        })?;
        self.printer.ended(|out| renderer.end(out));
        self.summarize(shown, "flow events have been shown")?;
        Ok(ExitCode::SUCCESS)
    }

    /// Shows events of expectations.
    pub(super) fn expectation_events(&mut self, output: Output) -> Outcome {
        let calendar = calendar();
        let renderer = renderer(output, &self.names, &calendar);
        let options = EventOptions {
            groups: EventGroups::EXPECTATIONS,
            resync: false,
            ..EventOptions::default()
        };
        let mut stream = Conntrack::connect()?.into_events(&options)?;
        let shown = follow(&mut stream, &mut self.printer, |item, printer| match item {
            Item::Expect { kind, expectation, .. } => {
                let at = output.timestamp.then(now);
                let happening = EventInfo { kind: *kind, at, by: None };
                let lines = printer.begun(|out| renderer.begin_expectations(out));
                renderer.expectation_event(lines, &happening, expectation);
                true
            }
            _ => false,
        })?;
        self.printer.ended(|out| renderer.end_expectations(out));
        self.summarize(shown, "expectation events have been shown")?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Hands events to `show` until SIGINT or SIGTERM, and returns how many of them `show` printed.
fn follow(
    stream: &mut EventStream,
    printer: &mut Printer,
    mut show: impl FnMut(&EventItem<'_>, &mut Printer) -> bool,
) -> Result<u64, Failure> {
    let failed = |what: &str, errno: nix::errno::Errno| {
        Failure::Rejected(Rejection::failure(format!("{what}: {}", errno.desc())))
    };
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGINT);
    ends.add(Signal::SIGTERM);
    ends.thread_block().map_err(|errno| failed("cannot block signals", errno))?;
    let signals = SignalFd::with_flags(&ends, SfdFlags::SFD_CLOEXEC)
        .map_err(|errno| failed("signalfd", errno))?;
    let mut shown = 0;
    printer.flush()?;
    loop {
        let mut idle = false;
        for _ in 0..EVENTS {
            let Some(item) = stream.next_within(Duration::ZERO)? else {
                idle = true;
                break;
            };
            if let Item::Gap(_) = item {
                eprintln!(
                    "WARNING: We have hit ENOBUFS! We are losing events.\n\
                     This message means that the current netlink socket buffer size is too small.\n\
                     Please, check --buffer-size in conntrack(8) manpage."
                );
            }
            shown += u64::from(show(&item, printer));
            printer.line()?;
        }
        if idle {
            printer.flush()?;
        }
        let timeout = if idle { PollTimeout::NONE } else { PollTimeout::ZERO };
        let mut fds = [
            PollFd::new(stream.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(failed("poll", errno)),
        }
        let [_, signal] = fds;
        if signal.any() == Some(true) {
            return Ok(shown);
        }
    }
}
