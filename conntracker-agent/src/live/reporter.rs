//! Reports are made and written by a thread of their own, one at a time: the loop goes on draining the ring.

use std::{
    future::pending,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use tokio::sync::oneshot;

use super::{Output, Status};
use crate::{os::threads, report::assembly::Assembly};

/// What a thread gives back: the output, and what writing came to.
type Written<O> = (O, Result<ControlFlow<()>>);

/// Who writes reports.
pub(super) struct Reporter<O> {
    /// `None` while a report is written.
    output: Option<O>,
    running: Option<oneshot::Receiver<Written<O>>>,
}

impl<O: Output> Reporter<O> {
    /// Nothing is written yet.
    pub fn new(output: O) -> Self {
        Self { output: Some(output), running: None }
    }

    /// Whether no report is being written.
    pub fn is_idle(&self) -> bool {
        self.output.is_some()
    }

    /// Has a report written, the `last` one or not. Only one at a time: [`Self::is_idle`].
    pub fn begin(&mut self, snapshot: Assembly, last: bool) {
        let Some(output) = self.output.take() else { return };
        let (sender, receiver) = oneshot::channel();
        self.running = Some(receiver);
        // Where no thread can be had, its work is still here.
        let work = Arc::new(Mutex::new(Some((output, snapshot, sender))));
        let take =
            |work: &Mutex<Option<_>>| work.lock().unwrap_or_else(PoisonError::into_inner).take();
        let write = move |work: Option<(O, Assembly, oneshot::Sender<Written<O>>)>| {
            let Some((mut output, snapshot, sender)) = work else { return };
            let written = snapshot.finish().and_then(|report| output.report(report, last));
            // Nobody waits for it if the loop has failed meanwhile.
            let _ = sender.send((output, written));
        };
        let theirs = Arc::clone(&work);
        if let Err(error) = threads::spawn("report", move || write(take(&theirs))) {
            log::debug!("the report is written by the thread that drains the ring: {error}");
            write(take(&work));
        }
    }

    /// Waits until the report is written; for ever if none is.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn written(&mut self) -> Result<ControlFlow<()>> {
        let Some(running) = &mut self.running else { return pending().await };
        let ended = running.await;
        self.running = None;
        let (output, written) = ended.context("the thread that wrote the report has ended")?;
        self.output = Some(output);
        written
    }

    /// Called about once a second; while a report is written nothing is shown.
    pub fn status(&mut self, status: Status) {
        if let Some(output) = &mut self.output {
            output.status(status);
        }
    }

    /// The output, after the last report.
    pub fn into_output(self) -> Result<O> {
        self.output.context("the last report was not written to its end")
    }
}
