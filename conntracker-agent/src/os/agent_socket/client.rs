//! Asks an agent at its socket.

use std::{io, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::{sleep, timeout},
};

use crate::os::event_loop;

/// Time that an agent has to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time between two attempts while the agent's backlog is full.
const RETRY: Duration = Duration::from_millis(50);

/// Bytes of an answer.
const LONGEST_ANSWER: u64 = 16 << 20;

/// What asking came to.
#[derive(Debug)]
pub enum Asked {
    /// The line of the answer, without its end.
    Answered(String),
    /// Nobody listens at this socket, or it does not exist.
    Nobody,
}

/// Sends a line and returns the line that the agent answers.
///
/// # Errors
/// The user may not connect, or the agent does not answer in time.
pub fn ask(socket: &Path, question: &str) -> Result<Asked> {
    let what = || format!("cannot ask the agent at {}", socket.display());
    event_loop::block_on(async {
        match timeout(PATIENCE, exchange(socket, question)).await {
            Ok(answered) => answered.with_context(what),
            Err(_) => bail!(
                "the agent at {} does not answer within {} seconds",
                socket.display(),
                PATIENCE.as_secs()
            ),
        }
    })
}

async fn exchange(socket: &Path, question: &str) -> io::Result<Asked> {
    let stream = loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => break stream,
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    return Ok(Asked::Nobody);
                }
                io::ErrorKind::WouldBlock => sleep(RETRY).await,
                _ => return Err(error),
            },
        }
    };
    let mut stream = BufReader::new(stream);
    stream.write_all(format!("{question}\n").as_bytes()).await?;
    let mut line = Vec::new();
    stream.take(LONGEST_ANSWER).read_until(b'\n', &mut line).await?;
    let whole = (line.pop() == Some(b'\n')).then_some(line);
    match whole.map(String::from_utf8) {
        Some(Ok(answer)) => Ok(Asked::Answered(answer)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is no whole line of text")),
    }
}
