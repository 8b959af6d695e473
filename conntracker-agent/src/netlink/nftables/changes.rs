//! Notifications of nf_tables about changed rules (include/uapi/linux/netfilter/nf_tables.h).

#[cfg(feature = "tokio")]
use crate::os::watch::Watched;
use std::os::fd::{AsRawFd, RawFd};

use nix::errno::Errno;

use super::super::{
    request::{ACK, Request},
    socket::{Error, RECEIVE_BYTES, Socket},
    wire::netfilter,
};

/// NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN, and the attribute with the number.
pub(super) const NFNL_SUBSYS_NFTABLES: u8 = 10;
const NFT_MSG_GETGEN: u8 = 16;
const NFTA_GEN_ID: u16 = 1;

/// Asks for the generation of the rules, which makes the kernel load the module of nf_tables.
pub(in crate::netlink) fn request_generation(socket: &mut Socket) -> Result<(), Error> {
    let request = Request::netfilter(NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN, ACK, 0);
    let mut buffer = vec![0; RECEIVE_BYTES];
    socket.ask("generation of nf_tables", request, &mut buffer, |_| {}).map(|_| ())
}

/// The generation of the rules in the network namespace of the calling thread, which differs after each change.
/// `None` if the kernel does not answer.
#[must_use]
pub fn generation() -> Option<u32> {
    let ask = || -> Result<Option<u32>, Error> {
        let request = Request::netfilter(NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN, ACK, 0);
        let (mut buffer, mut found) = (vec![0; RECEIVE_BYTES], None);
        Socket::netfilter()?.ask("generation of nf_tables", request, &mut buffer, |message| {
            let attributes = netfilter(message.payload).into_iter().flat_map(|(_, all)| all);
            let mut id = attributes.flatten().filter(|attribute| attribute.kind == NFTA_GEN_ID);
            found = found.or(id.next().and_then(|id| id.be32("NFTA_GEN_ID").ok()));
        })?;
        Ok(found)
    };
    ask().unwrap_or_else(|error| {
        log::debug!("asking for the generation of nf_tables: {error}");
        None
    })
}

/// NFNLGRP_NFTABLES: every change, each commit ending with a NEWGEN.
const NFNLGRP_NFTABLES: u32 = 7;

/// Datagrams taken at once.
const DATAGRAMS: usize = 1024;

/// A socket that receives changes of rules. Their contents are ignored, because a change makes the agent list all
/// rules again.
pub struct Changes {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Changes {
    /// Listens in the network namespace of the calling thread.
    pub fn open() -> Result<Self, Error> {
        let socket = Socket::netfilter()?;
        socket.set_nonblocking()?;
        socket.join(&[NFNLGRP_NFTABLES])?;
        Ok(Self { socket, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// Reads the notifications that have arrived; true if none is left. An overrun, which lost changes, counts as a
    /// change.
    pub fn drain(&mut self) -> Result<bool, Error> {
        for _ in 0..DATAGRAMS {
            match self.socket.receive(&mut self.buffer) {
                Ok(_) => {}
                Err(e) if e.is_system(Errno::ENOBUFS) => {}
                Err(e) if e.is_system(Errno::EAGAIN) => return Ok(true),
                Err(e) => return Err(e),
            }
        }
        Ok(false)
    }
}

impl AsRawFd for Changes {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(feature = "tokio")]
// SAFETY: the descriptor lives in the socket and never changes.
unsafe impl Watched for Changes {}
