//! The line of a flow, as version 0.1 had it: `label [index] src = … to dst = …`.

use std::fmt;

use conntracker_common::{IPPROTO_ICMP, IPPROTO_ICMPV6};

use crate::model::{L4, Tuple, order, protocol};

/// Numbers the lines of each block from 0. Lines come block by block.
#[derive(Debug, Default)]
pub struct Numbering {
    block: Option<u16>,
    label: String,
    next: u64,
}

impl Numbering {
    /// The beginning of the next line.
    pub fn next(&mut self, tuple: &Tuple) -> impl fmt::Display {
        let block = order::block(tuple);
        if self.block != Some(block) {
            *self = Self { block: Some(block), label: label(tuple), next: 0 };
        }
        let index = self.next;
        self.next += 1;
        let label = &self.label;
        fmt::from_fn(move |f| write!(f, "{label:>6} [{index:>12}]"))
    }
}

/// Label of the block that a flow belongs to.
fn label(tuple: &Tuple) -> String {
    let family = if tuple.is_ipv4() { "v4" } else { "v6" };
    match (tuple.proto, tuple.is_ipv4()) {
        (IPPROTO_ICMPV6, false) => "ICMPv6".to_owned(),
        // ICMP in IPv6 packets is not ICMPv6, so it has a label of its own.
        (proto @ IPPROTO_ICMP, false) => format!("P{proto}{family}"),
        (proto, _) => match protocol::name(proto) {
            Some(name) => format!("{}{family}", name.to_ascii_uppercase()),
            None => format!("P{proto}{family}"),
        },
    }
}

/// From where to where.
#[derive(Clone, Copy, Debug)]
pub struct Ends<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Ports or their counterpart.
    pub l4: L4,
}

impl From<Tuple> for Ends<std::net::IpAddr> {
    fn from(Tuple { src, dst, proto: _, l4 }: Tuple) -> Self {
        Self { src, dst, l4 }
    }
}

impl<A: fmt::Display> fmt::Display for Ends<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { src, dst, l4 } = self;
        match l4 {
            L4::Ports { src: sport, dst: dport } => {
                write!(f, "src = {src} (port={sport}) to dst = {dst} (port={dport})")
            }
            L4::Icmp { kind, code, id: _ } => {
                write!(f, "src = {src} to dst = {dst} (type={kind} | code={code})")
            }
            L4::Gre { src: skey, dst: dkey } => {
                write!(f, "src = {src} (key={skey}) to dst = {dst} (key={dkey})")
            }
            L4::None => write!(f, "src = {src} to dst = {dst}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(proto: u8, src: &str, dst: &str, l4: L4) -> String {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        let tuple = Tuple { src, dst, proto, l4 };
        format!("{} {}", Numbering::default().next(&tuple), Ends::from(tuple))
    }

    #[test]
    fn every_protocol_has_a_label_of_its_own() {
        let (v4, v6) = (["192.0.2.1", "192.0.2.2"], ["2001:db8::1", "2001:db8::2"]);
        let of = |proto, [src, dst]: [&str; 2], l4| line(proto, src, dst, l4);
        let ports = L4::Ports { src: 1, dst: 65535 };
        let icmp = L4::Icmp { kind: 8, code: 1, id: 7 };
        for (got, want) in [
            (
                of(6, v4, ports),
                " TCPv4 [           0] src = 192.0.2.1 (port=1) to dst = 192.0.2.2 (port=65535)",
            ),
            (
                of(17, v6, ports),
                " UDPv6 [           0] src = 2001:db8::1 (port=1) to dst = 2001:db8::2 (port=65535)",
            ),
            (
                of(1, v4, icmp),
                "ICMPv4 [           0] src = 192.0.2.1 to dst = 192.0.2.2 (type=8 | code=1)",
            ),
            (
                of(58, v6, icmp),
                "ICMPv6 [           0] src = 2001:db8::1 to dst = 2001:db8::2 (type=8 | code=1)",
            ),
            (
                of(1, v6, icmp),
                "  P1v6 [           0] src = 2001:db8::1 to dst = 2001:db8::2 (type=8 | code=1)",
            ),
            (
                of(136, v4, ports),
                "UDPLITEv4 [           0] src = 192.0.2.1 (port=1) to dst = 192.0.2.2 (port=65535)",
            ),
            (
                of(47, v4, L4::Gre { src: 10, dst: 20 }),
                " GREv4 [           0] src = 192.0.2.1 (key=10) to dst = 192.0.2.2 (key=20)",
            ),
            (of(50, v4, L4::None), " ESPv4 [           0] src = 192.0.2.1 to dst = 192.0.2.2"),
            (of(253, v4, L4::None), "P253v4 [           0] src = 192.0.2.1 to dst = 192.0.2.2"),
        ] {
            assert_eq!(got, want);
        }
    }
}
