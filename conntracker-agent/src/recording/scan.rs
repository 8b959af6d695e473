//! Finds the whole blocks of a file, whatever lies between them.

use std::io::{ErrorKind, Read};

use super::{
    Error,
    head::{BlockHead, HEAD, PartHead},
};

/// Bytes that are read at a time.
const READ: usize = 256 << 10;

/// Whether the file may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It may: an incomplete block at its end is no damage.
    MayGrow,
    /// It has all its bytes.
    Last,
}

/// Something whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// The head of a part.
    Part(PartHead),
    /// A block, of which [`Scanner::body`] has the body.
    Block(BlockHead),
    /// The end of the file, behind bytes that were skipped.
    End,
}

/// Bytes that are no whole block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Skipped {
    pub offset: u64,
    pub bytes: u64,
    pub what: &'static str,
}

/// Something whole, and what lies before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub frame: Frame,
    /// Where in the file it begins.
    pub offset: u64,
    pub skipped: Option<Skipped>,
    /// Blocks that are missing before it, by their numbers.
    pub missing: u64,
}

/// Why there is no whole block at a position.
enum Not {
    Whole(&'static str),
    /// Its end is behind the end of the file.
    Complete,
}

/// Finds whole blocks.
pub(super) struct Scanner<R> {
    input: R,
    buffer: Vec<u8>,
    /// Where in the buffer the next block begins, and where in the file the buffer.
    at: usize,
    offset: u64,
    /// Length of the body that was found last: it stands before `at`.
    body: usize,
    /// The word that blocks of the part begin with; `None` until the head of the part or a whole block was found.
    sync: Option<[u8; 8]>,
    /// Number of the next block, and the checksum of the one before, if that was found.
    sequence: u64,
    before: Option<u32>,
    skipped: Option<Skipped>,
}

impl<R: Read> Scanner<R> {
    pub fn new(input: R) -> Self {
        Self {
            input,
            buffer: Vec::new(),
            at: 0,
            offset: 0,
            body: 0,
            sync: None,
            sequence: 0,
            before: None,
            skipped: None,
        }
    }

    /// The body of the block that was found last.
    pub fn body(&self) -> &[u8] {
        &self.buffer[self.at - self.body..self.at]
    }

    /// What comes next; `None` at the end. Called again, it reads what was added since.
    pub fn next(&mut self, end: End) -> Result<Option<Found>, Error> {
        self.body = 0;
        loop {
            if !self.fill(HEAD)? {
                return self.at_end(end);
            }
            let offset = self.position();
            match self.frame()? {
                Ok(frame) => {
                    let missing = match frame {
                        Frame::Block(head) => head.sequence - self.sequence,
                        Frame::Part(_) | Frame::End => 0,
                    };
                    self.advance(frame);
                    return Ok(Some(Found {
                        frame,
                        offset,
                        skipped: self.take_skipped(offset),
                        missing,
                    }));
                }
                Err(Not::Complete) if end == End::MayGrow => return Ok(None),
                Err(Not::Complete) => self.skip("a block that is cut"),
                Err(Not::Whole(what)) => self.skip(what),
            }
        }
    }

    /// Where in the file the next block begins.
    fn position(&self) -> u64 {
        self.offset + self.at as u64
    }

    /// The bytes of a head at the position; there are so many.
    fn head(&self, behind: usize) -> [u8; HEAD] {
        std::array::from_fn(|n| self.buffer[self.at + behind + n])
    }

    /// What is at the position.
    fn frame(&mut self) -> Result<Result<Frame, Not>, Error> {
        let head = self.head(0);
        let first = self.position() == 0;
        if first || PartHead::begins(&head) {
            if let Some(part) = PartHead::parse(&head)? {
                return Ok(Ok(Frame::Part(part)));
            }
            if first {
                let is_recording = PartHead::resembles(&head)
                    || self.fill(2 * HEAD)? && BlockHead::parse(&self.head(HEAD)).is_some();
                return if is_recording {
                    Ok(Err(Not::Whole("a damaged head of the file")))
                } else {
                    Err(Error::NotARecording(head[..8].to_vec()))
                };
            }
        }
        if self.sync.is_some_and(|sync| head[..8] != sync) {
            return Ok(Err(Not::Whole("damaged bytes")));
        }
        let Some(block) = BlockHead::parse(&head) else {
            return Ok(Err(Not::Whole("a damaged head of a block")));
        };
        if !self.fill(HEAD + block.length as usize)? {
            return Ok(Err(Not::Complete));
        }
        let body = &self.buffer[self.at + HEAD..][..block.length as usize];
        if crc32fast::hash(body) != block.body {
            return Ok(Err(Not::Whole("a damaged block")));
        }
        let follows = self.before.is_none_or(|before| before == block.before);
        if block.sequence < self.sequence || (block.sequence == self.sequence && !follows) {
            return Ok(Err(Not::Whole("a block that does not follow the one before it")));
        }
        Ok(Ok(Frame::Block(block)))
    }

    /// Behind what is at the position.
    fn advance(&mut self, frame: Frame) {
        match frame {
            Frame::Part(part) => {
                self.sync = Some(part.sync());
                (self.sequence, self.before) = (0, Some(0));
                self.at += HEAD;
            }
            Frame::Block(block) => {
                let head = self.head(0);
                self.sync = head.first_chunk().copied();
                self.sequence = block.sequence + 1;
                self.before = Some(BlockHead::crc(&head));
                self.body = block.length as usize;
                self.at += HEAD + self.body;
            }
            Frame::End => self.at = self.buffer.len(),
        }
    }

    /// What begins here is no whole block: to the next byte that one could begin with.
    fn skip(&mut self, what: &'static str) {
        let offset = self.position();
        self.skipped.get_or_insert(Skipped { offset, bytes: 0, what });
        self.at += 1;
        if let Some(sync) = self.sync {
            let begins = |byte: &u8| *byte == sync[0] || PartHead::begins(&[*byte]);
            let next = self.buffer[self.at..].iter().position(begins);
            self.at = next.map_or(self.buffer.len(), |next| self.at + next);
        }
    }

    fn take_skipped(&mut self, to: u64) -> Option<Skipped> {
        let skipped = self.skipped.take()?;
        Some(Skipped { bytes: to - skipped.offset, ..skipped })
    }

    fn at_end(&mut self, end: End) -> Result<Option<Found>, Error> {
        if end == End::MayGrow {
            return Ok(None);
        }
        if self.at < self.buffer.len() {
            let rest = &self.buffer[self.at..];
            if self.position() == 0 && !PartHead::resembles(rest) {
                return Err(Error::NotARecording(rest[..rest.len().min(8)].to_vec()));
            }
            self.skip("a head that is cut");
        }
        self.advance(Frame::End);
        let offset = self.position();
        if offset == 0 {
            return Err(Error::NotARecording(Vec::new()));
        }
        let skipped = self.take_skipped(offset);
        Ok(skipped.map(|_| Found { frame: Frame::End, offset, skipped, missing: 0 }))
    }

    /// Reads until there are so many bytes behind the position; whether there are.
    fn fill(&mut self, wanted: usize) -> Result<bool, Error> {
        while self.buffer.len() - self.at < wanted {
            if self.at >= READ {
                self.buffer.drain(..self.at);
                self.offset += self.at as u64;
                self.at = 0;
            }
            let length = self.buffer.len();
            self.buffer.resize(length + READ, 0);
            let read = self.input.read(&mut self.buffer[length..]);
            self.buffer.truncate(length + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}
