//! All objects of nf_tables in a network namespace, as the messages that the kernel sends.

use super::{
    super::{
        request::{DUMP, Request},
        socket::{self, Socket},
        wire::{DecodeError, Messages, netfilter},
    },
    changes::{NFNL_SUBSYS_NFTABLES, generation},
};

/// Bytes that one dump may have. A set of 1,000,000 addresses takes about 60 MB.
const BYTES: usize = 512 << 20;

/// Dumps that are begun before giving up, where rules change all the time.
const ATTEMPTS: usize = 20;

/// Messages that ask for objects (`enum nf_tables_msg_types`).
const GETTABLE: u8 = 1;
const GETCHAIN: u8 = 4;
const GETRULE: u8 = 7;
const GETSET: u8 = 10;
const GETSETELEM: u8 = 13;
const GETOBJ: u8 = 19;
const GETFLOWTABLE: u8 = 23;

/// The message that announces a set, and the attributes that name a set and its table, in it and in the request for
/// its elements.
const NEWSET: u8 = 9;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;

/// Why rules cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A request failed.
    #[error(transparent)]
    Netlink(#[from] socket::Error),
    /// They changed in each attempt.
    #[error(
        "the rules of nf_tables changed during each of {ATTEMPTS} attempts to read them: try again"
    )]
    Changing,
    /// They are too many.
    #[error("the rules of nf_tables take more than {} MiB", BYTES >> 20)]
    TooMany,
    /// A message makes no sense.
    #[error("a message of nf_tables makes no sense")]
    Malformed(#[from] DecodeError),
}

/// The messages of a dump: tables, chains, rules, sets, the elements of each set, objects and flowtables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    messages: Vec<u8>,
}

impl Dump {
    /// Reads all objects in the network namespace of the calling thread, of one generation.
    pub fn read() -> Result<Self, Error> {
        for _ in 0..ATTEMPTS {
            let before = generation();
            match Self::attempt() {
                Ok(Some(dump)) if generation() == before => return Ok(dump),
                Ok(_) => {}
                // A set that is gone since it was listed.
                Err(Error::Netlink(_)) if generation() != before => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Changing)
    }

    /// A dump that was kept: what [`Self::bytes`] returned.
    #[must_use]
    pub fn of(messages: Vec<u8>) -> Self {
        Self { messages }
    }

    /// Its messages, whole and one behind the other: `struct nlmsghdr`, `struct nfgenmsg`, attributes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.messages
    }

    /// The same, for good.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.messages
    }

    /// Reads all objects; `None` if they changed meanwhile.
    fn attempt() -> Result<Option<Self>, Error> {
        let mut dump = Self::default();
        let mut complete = true;
        for (message, name) in [
            (GETTABLE, "tables of nf_tables"),
            (GETCHAIN, "chains of nf_tables"),
            (GETRULE, "rules of nf_tables"),
            (GETOBJ, "objects of nf_tables"),
            (GETFLOWTABLE, "flowtables of nf_tables"),
            (GETSET, "sets of nf_tables"),
        ] {
            complete &=
                dump.ask(name, Request::netfilter(NFNL_SUBSYS_NFTABLES, message, DUMP, 0))?;
        }
        for request in dump.requests_for_elements()? {
            complete &= dump.ask("elements of a set of nf_tables", request)?;
        }
        Ok(complete.then_some(dump))
    }

    /// A request for the elements of each set there is.
    fn requests_for_elements(&self) -> Result<Vec<Request>, Error> {
        let mut requests = Vec::new();
        for message in Messages::new(&self.messages) {
            let message = message?;
            if message.kind != u16::from_be_bytes([NFNL_SUBSYS_NFTABLES, NEWSET]) {
                continue;
            }
            let (family, attributes) = netfilter(message.payload)?;
            let kind = GETSETELEM;
            let mut request = Request::netfilter(NFNL_SUBSYS_NFTABLES, kind, DUMP, family);
            for attribute in attributes {
                let attribute = attribute?;
                request = match attribute.kind {
                    NFTA_SET_TABLE => {
                        request.attribute(NFTA_SET_ELEM_LIST_TABLE, attribute.payload)
                    }
                    NFTA_SET_NAME => request.attribute(NFTA_SET_ELEM_LIST_SET, attribute.payload),
                    _ => request,
                };
            }
            requests.push(request);
        }
        Ok(requests)
    }

    /// Appends the answer to a request; false if the kernel says that it may lack something.
    fn ask(&mut self, name: &'static str, request: Request) -> Result<bool, Error> {
        // A socket of its own: a dump that fails midway blocks the next one on the same socket.
        let asked = Socket::netfilter()?.append(name, request, &mut self.messages, BYTES)?;
        Ok(asked.ok_or(Error::TooMany)?.interrupted == 0)
    }
}
