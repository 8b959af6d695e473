//! One direction of a flow, as JSON.

use std::net::IpAddr;

use serde::Serialize;

use crate::model::{L4, Tuple};

#[derive(Serialize)]
pub(super) struct TupleObject {
    src: IpAddr,
    dst: IpAddr,
    #[serde(flatten)]
    l4: L4Object,
}

#[derive(Serialize)]
#[serde(untagged)]
enum L4Object {
    Ports {
        sport: u16,
        dport: u16,
    },
    Icmp {
        #[serde(rename = "type")]
        kind: u8,
        code: u8,
        id: u16,
    },
    Gre {
        srckey: u16,
        dstkey: u16,
    },
    None {},
}

impl From<Tuple> for TupleObject {
    fn from(Tuple { src, dst, proto: _, l4 }: Tuple) -> Self {
        let l4 = match l4 {
            L4::Ports { src, dst } => L4Object::Ports { sport: src, dport: dst },
            L4::Icmp { kind, code, id } => L4Object::Icmp { kind, code, id },
            L4::Gre { src, dst } => L4Object::Gre { srckey: src, dstkey: dst },
            L4::None => L4Object::None {},
        };
        Self { src, dst, l4 }
    }
}
