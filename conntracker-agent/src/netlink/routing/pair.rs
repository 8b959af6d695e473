//! Makes a pair of virtual interfaces (veth(4)).

use super::super::{
    request::{ACK, CREATE, EXCL, Request},
    socket::{Error, RECEIVE_BYTES, Socket},
};

const RTM_NEWLINK: u16 = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

/// Makes two interfaces, each with its index, or 0 for one that is free, and its name, in the network namespace of
/// the calling thread.
///
/// # Errors
/// There is one of that index or name; no CAP_NET_ADMIN; a kernel without veth.
pub fn make(first: (u32, &str), second: (u32, &str)) -> Result<(), Error> {
    let peer = |data: Request| {
        data.nested(VETH_INFO_PEER, |peer| peer.raw(&header(second.0)).text(IFLA_IFNAME, second.1))
    };
    let request = Request::new(RTM_NEWLINK, ACK | CREATE | EXCL)
        .raw(&header(first.0))
        .text(IFLA_IFNAME, first.1)
        .nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, peer)
        });
    let mut buffer = vec![0; RECEIVE_BYTES];
    Socket::route()?.ask("new interface", request, &mut buffer, |_| ()).map(drop)
}

/// `struct ifinfomsg` (include/uapi/linux/rtnetlink.h) of an index.
fn header(index: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}
