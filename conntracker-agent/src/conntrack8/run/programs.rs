//! Finds the program that caused an event, by the port of its netlink socket.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::capture::owners::program as program_of_socket;

/// NETLINK_NETFILTER.
const PROTOCOL: &str = "12";
/// Time before a netlink port is looked up again whose program was not found.
const UNKNOWN: Duration = Duration::from_millis(100);

/// Programs by netlink port.
#[derive(Default)]
pub(super) struct Programs {
    /// Programs by port, with the time of the lookup, because ports are reused.
    known: HashMap<u32, (Option<String>, Instant)>,
}

impl Programs {
    /// Name of the program with this port; `None` if it has ended, or is invisible from here.
    pub fn of(&mut self, portid: u32) -> Option<&[u8]> {
        if portid == 0 {
            return None;
        }
        let now = Instant::now();
        let fresh = |(_, at): &(Option<String>, Instant)| now.duration_since(*at) < UNKNOWN;
        if !self.known.get(&portid).is_some_and(fresh) {
            self.known.retain(|_, known| fresh(known));
            self.known.insert(portid, (look_up(portid), now));
        }
        self.known.get(&portid)?.0.as_deref().map(str::as_bytes)
    }
}

fn look_up(portid: u32) -> Option<String> {
    let sockets = fs::read_to_string("/proc/thread-self/net/netlink").ok()?;
    program_of_socket(inode(&sockets, portid)?)
}

/// The inode of the netfilter socket with this port, from the lines of /proc/net/netlink:
/// `sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode`.
fn inode(sockets: &str, portid: u32) -> Option<u64> {
    sockets.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [_, PROTOCOL, port, .., inode] if port.parse() == Ok(portid) => inode.parse().ok(),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_found_by_its_protocol_and_port() {
        let table = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
                     00000000e8a0ca5d 0   4242       00000440 0        0        0     2        0        111\n\
                     00000000e8a0ca5e 12  4242       00000000 0        0        0     2        0        222\n\
                     00000000e8a0ca5f 12  4243       00000000 0        0        0     2        0        333\n";
        assert_eq!(inode(table, 4242), Some(222));
        assert_eq!(inode(table, 7), None);
    }
}
