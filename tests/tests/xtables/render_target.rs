//! Decoded targets in iptables-save's words.

use conntracker::firewall::evaluate::translation::TranslationKind;
use conntracker::firewall::evaluate::xt::Target;
use conntracker::firewall::evaluate::xt::change::{MarkMove, TosChange, TtlChange};
use conntracker::firewall::evaluate::xt::nat::NatRange;

use crate::render::union;

/// NF_NAT_RANGE_ flags.
const MAP_IPS: u32 = 1;
const PROTO_SPECIFIED: u32 = 2;
const RANDOM: u32 = 4;
const PERSISTENT: u32 = 8;

/// The words behind the name of the target; `None` of those whose options are not decoded.
pub fn options(target: &Target, name: &str, v6: bool) -> Option<String> {
    Some(match target {
        Target::Continue | Target::Queue | Target::TcpOptions => return None,
        Target::Mark(change) => format!("--set-xmark {:#x}/{:#x}", change.value, change.mask),
        Target::SetConnmark(change, 0) => {
            format!("--set-xmark {:#x}/{:#x}", change.value, change.mask)
        }
        Target::SaveMark(marks) => format!("--save-mark {}", moved(*marks)),
        Target::RestoreMark(marks) => format!("--restore-mark {}", moved(*marks)),
        Target::Reject(with) => format!("--reject-with {}", answer(*with, v6)),
        Target::Nat(kind, range) => nat(*kind, range, v6),
        Target::Netmap(range) => {
            let [first, last] = &range.addresses;
            let (first, last) = (union(first, v6), union(last, v6));
            let host = match (first, last) {
                (std::net::IpAddr::V4(a), std::net::IpAddr::V4(b)) => {
                    (u32::from(a) ^ u32::from(b)).leading_zeros()
                }
                (std::net::IpAddr::V6(a), std::net::IpAddr::V6(b)) => {
                    (u128::from(a) ^ u128::from(b)).leading_zeros()
                }
                _ => unreachable!(),
            };
            format!("--to {first}/{host}")
        }
        Target::Ct(settings) if settings.notrack => "--notrack".to_owned(),
        Target::Ct(settings) => format!("--zone {}", settings.zone.unwrap()),
        Target::Ttl(change) => {
            let option = name.to_lowercase();
            match change {
                TtlChange::Set(value) => format!("--{option}-set {value}"),
                TtlChange::Increase(value) => format!("--{option}-inc {value}"),
                TtlChange::Decrease(value) => format!("--{option}-dec {value}"),
            }
        }
        Target::Tos(TosChange { value, .. }) if name == "DSCP" => {
            format!("--set-dscp 0x{:02x}", value >> 2)
        }
        Target::Tos(TosChange { value, mask }) => format!("--set-tos 0x{value:02x}/0x{mask:02x}"),
        Target::Classify(class) => {
            format!("--set-class {:04x}:{:04x}", class >> 16, class & 0xffff)
        }
        other => panic!("{other:?} is not rendered"),
    })
}

fn moved(MarkMove { ctmask, nfmask, shift }: MarkMove) -> String {
    assert_eq!(shift, 0);
    format!("--nfmask {nfmask:#x} --ctmask {ctmask:#x}")
}

fn answer(with: u32, v6: bool) -> &'static str {
    const V4: [&str; 9] = [
        "icmp-net-unreachable",
        "icmp-host-unreachable",
        "icmp-proto-unreachable",
        "icmp-port-unreachable",
        "echo-reply",
        "icmp-net-prohibited",
        "icmp-host-prohibited",
        "tcp-reset",
        "icmp-admin-prohibited",
    ];
    const V6: [&str; 7] = [
        "icmp6-no-route",
        "icmp6-adm-prohibited",
        "not-neighbour",
        "icmp6-addr-unreachable",
        "icmp6-port-unreachable",
        "echo-reply",
        "tcp-reset",
    ];
    if v6 { V6[with as usize] } else { V4[with as usize] }
}

fn nat(kind: TranslationKind, range: &NatRange, v6: bool) -> String {
    let mut to = String::new();
    if range.flags & MAP_IPS != 0 {
        let [first, last] = range.addresses.map(|address| union(&address, v6));
        to += &first.to_string();
        if first != last {
            to += &format!("-{last}");
        }
    }
    if range.flags & PROTO_SPECIFIED != 0 {
        let (first, last) = range.ports;
        let colon = if matches!(kind, TranslationKind::Source | TranslationKind::Destination) {
            ":"
        } else {
            ""
        };
        to += &format!("{colon}{first}");
        if first != last {
            to += &format!("-{last}");
        }
    }
    let option = match kind {
        TranslationKind::Source => "--to-source",
        TranslationKind::Destination => "--to-destination",
        TranslationKind::Masquerade | TranslationKind::Redirect => "--to-ports",
    };
    let mut words = Vec::new();
    if !to.is_empty() {
        words.push(format!("{option} {to}"));
    }
    for (flag, name) in [(RANDOM, "--random"), (PERSISTENT, "--persistent")] {
        if range.flags & flag != 0 {
            words.push(name.to_owned());
        }
    }
    words.join(" ")
}
