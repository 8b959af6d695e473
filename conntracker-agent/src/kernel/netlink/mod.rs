//! Netlink: sockets (neli), the ctnetlink codec, interface names.
