//! Answers clients of the agent's socket, in a thread of its own with an event loop of its own: whatever clients do,
//! the loop that drains the ring goes on.

use std::{io, os::unix::net::UnixListener as Bound, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::oneshot,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::os::{event_loop, threads};

/// Clients that are answered at the same time. Others wait in the kernel's backlog.
const MOST_CLIENTS: usize = 8;

/// Time that a client has from its connection to its last answer.
const CLIENT_TIME: Duration = Duration::from_secs(1);

/// Time between two clients: a flood of them takes little of the CPU.
const BETWEEN_CLIENTS: Duration = Duration::from_millis(5);

/// Time to wait if no client can be accepted (no descriptor is left).
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// Bytes of a question.
const LONGEST_LINE: u64 = 4096;

/// Makes an answer of a question, both without the end of the line.
pub(super) type Answer = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    _running: oneshot::Sender<()>,
}

impl Server {
    /// Starts the thread.
    pub fn start(listener: Bound, answer: Answer) -> Result<Self> {
        let (running, ended) = oneshot::channel();
        threads::spawn("status", move || {
            if let Err(error) = event_loop::block_on(serve(listener, answer, ended)) {
                log::warn!("no questions are answered: {error:#}");
            }
        })?;
        Ok(Self { _running: running })
    }
}

async fn serve(listener: Bound, answer: Answer, mut ended: oneshot::Receiver<()>) -> Result<()> {
    let listener = UnixListener::from_std(listener).context("cannot wait for clients")?;
    let mut clients = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut ended => return Ok(()),
            Some(_) = clients.join_next() => continue,
            accepted = listener.accept(), if clients.len() < MOST_CLIENTS => accepted,
        };
        let pause = match accepted {
            Ok((client, _)) => {
                clients.spawn(timeout(CLIENT_TIME, converse(client, Arc::clone(&answer))));
                BETWEEN_CLIENTS
            }
            Err(_) => AFTER_FAILURE,
        };
        sleep(pause).await;
    }
}

/// Answers a client line by line until it has no more questions.
async fn converse(client: UnixStream, answer: Answer) -> io::Result<()> {
    let mut client = BufReader::new(client);
    loop {
        let mut line = Vec::new();
        (&mut client).take(LONGEST_LINE).read_until(b'\n', &mut line).await?;
        let Some(question) = line.strip_suffix(b"\n") else { return Ok(()) };
        let mut said = answer(&String::from_utf8_lossy(question));
        said.push('\n');
        client.write_all(said.as_bytes()).await?;
    }
}
