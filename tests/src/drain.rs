//! What a dump of conntrack's table costs at least.

use std::os::fd::AsRawFd;

use anyhow::{Result, bail};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

use crate::lab::Host;

/// More than the kernel makes at once.
const DATAGRAM: usize = 64 * 1024;
/// NLMSG_ERROR and NLMSG_DONE (include/uapi/linux/netlink.h).
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Receives a dump of the table without looking at its entries. Returns its bytes.
pub fn drain(host: &Host) -> Result<u64> {
    let socket = host.enter(|| {
        let protocol = SockProtocol::NetlinkNetFilter;
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(socket)
    })?;
    send(socket.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut buffer = vec![0; DATAGRAM];
    let mut bytes = 0;
    loop {
        let len = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        // The end comes in a datagram of its own.
        match u16::from_ne_bytes([buffer[4], buffer[5]]) {
            DONE => return Ok(bytes),
            ERROR => bail!("the kernel refuses a dump"),
            _ => bytes += len as u64,
        }
    }
}

/// `IPCTNL_MSG_CT_GET` of NFNL_SUBSYS_CTNETLINK with NLM_F_REQUEST | NLM_F_DUMP: nlmsghdr and nfgenmsg.
fn request() -> [u8; 20] {
    let mut request = [0; 20];
    request[..4].copy_from_slice(&20_u32.to_ne_bytes());
    request[4..6].copy_from_slice(&0x0101_u16.to_ne_bytes());
    request[6..8].copy_from_slice(&0x0301_u16.to_ne_bytes());
    request
}
