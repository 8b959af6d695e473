//! What rules compare addresses and ports with.

use super::{
    Classes,
    fields::{Field, Holding, Part, number},
};
use crate::{
    firewall::{
        evaluate::{
            compiled::{CompiledChain, CompiledRule, Operation},
            elements::Bounds,
            ruleset::Firewall,
            xt::{Match, Target, compare::Range, nat::NatRange},
        },
        legacy::entries::{AddressMatch, HeaderMatch},
    },
    model::table::Family,
    netlink::nftables::{
        expression::{Destination, Expression, Register},
        key::{cmp, ct, meta},
    },
};

/// Addresses of both families.
const ADDRESSES: [Field; 2] = [Field::V4, Field::V6];

/// NF_NAT_RANGE_NETMAP: the new address has bits of the old one.
const NETMAP: u32 = 64;

/// NFPROTO_IPV4, NFPROTO_IPV6, and ETH_P_IP, ETH_P_IPV6 as packets have them.
const FAMILIES: [(&[u8], bool); 4] =
    [(&[2], false), (&[10], true), (&[8, 0], false), (&[0x86, 0xdd], true)];

/// Adds what all rules of a firewall tell apart.
pub(super) fn read(firewall: &Firewall, classes: &mut Classes) {
    for chain in firewall.compiled_chains() {
        for rule in &chain.rules {
            Reading::new(chain, firewall, classes).rule(rule);
        }
    }
    for set in firewall.sets() {
        for value in set.values() {
            constant(value, classes);
        }
    }
}

/// A value that may become an address or a port.
fn constant(value: &[u8], classes: &mut Classes) {
    let field = match value.len() {
        2 => Field::Port,
        4 => Field::V4,
        16 => Field::V6,
        _ => return,
    };
    classes.bits(field, number(field, value), field.bits());
}

/// A rule that is read.
struct Reading<'a> {
    classes: &'a mut Classes,
    firewall: &'a Firewall,
    holding: Holding,
    /// Whether packets of IPv6 alone, or of IPv4 alone, meet what follows.
    v6: Option<bool>,
    /// The register that has the family of the packet.
    family: Option<Register>,
}

impl<'a> Reading<'a> {
    fn new(chain: &CompiledChain, firewall: &'a Firewall, classes: &'a mut Classes) -> Self {
        let v6 = match chain.family {
            Family::Ip => Some(false),
            Family::Ip6 => Some(true),
            _ => None,
        };
        Self { classes, firewall, holding: Holding::new(), v6, family: None }
    }

    fn rule(&mut self, rule: &CompiledRule) {
        for operation in &rule.operations {
            match operation {
                Operation::Verdict(_) => {}
                Operation::Lookup { set, from, to, .. } => self.lookup(*set, *from, *to),
                Operation::ObjectMap { set, from, .. } => self.lookup(*set, *from, None),
                Operation::Header(header) => self.header(header),
                Operation::Match(of) => self.xt_match(of),
                Operation::Target(of) => self.target(of),
                Operation::Plain(expression) => self.plain(expression),
            }
        }
    }

    fn plain(&mut self, expression: &Expression) {
        use Expression as E;
        match expression {
            E::Payload { slice, to } => {
                let fields = self.holding.load(*slice, *to, self.v6);
                self.classes.every_value(&fields);
            }
            E::Meta { key, to } => {
                self.holding.clear(*to, 16);
                self.family = matches!(*key, meta::NFPROTO | meta::PROTOCOL).then_some(*to);
            }
            E::Ct { key, to, .. } => {
                if matches!(*key, ct::SRC..=ct::DST | ct::PROTO_SRC..=ct::PROTO_DST | ct::SRC_IP..=ct::DST_IP6)
                {
                    self.classes.every_value(&Field::ALL);
                }
                self.holding.clear(*to, 16);
            }
            E::Cmp { op, from, value } => {
                if *op == cmp::EQ && self.family == Some(*from) {
                    let family = FAMILIES.iter().find(|(family, _)| *family == value.as_slice());
                    self.v6 = family.map(|(_, v6)| *v6).or(self.v6);
                }
                self.compare(*from, value, matches!(*op, cmp::EQ | cmp::NEQ));
            }
            E::Range { from, low, high, .. } => self.range(*from, low, high, false),
            E::Mask { from, to, mask, xor } => {
                let kept = xor.iter().all(|byte| *byte == 0) && {
                    let before = self.holding.clone();
                    let kept = self.holding.mask(*from, *to, mask);
                    if !kept {
                        self.holding = before;
                    }
                    kept
                };
                if !kept {
                    self.read_whole(*from, mask.len());
                    self.holding.clear(*to, mask.len());
                }
            }
            E::Immediate { to, value } => {
                constant(value, self.classes);
                self.holding.clear(*to, value.len());
            }
            E::Fib { to, .. }
            | E::Numgen { to, .. }
            | E::Rt { to, .. }
            | E::Socket { to, .. }
            | E::Osf { to, .. }
            | E::Exthdr { to, .. }
            | E::Xfrm { to, .. }
            | E::Tunnel { to, .. } => self.holding.clear(*to, 16),
            E::MetaSet { from, .. } | E::CtSet { from, .. } => self.read_whole(*from, 16),
            E::Nat { registers, flags, .. }
            | E::Masq { registers, flags }
            | E::Redir { registers, flags } => {
                if flags & NETMAP != 0 {
                    self.classes.every_value(&ADDRESSES);
                }
                for register in registers.addresses.iter().chain(&registers.ports).flatten() {
                    self.read_whole(*register, 16);
                }
            }
            E::Verdict(_)
            | E::Counter { .. }
            | E::Limit { .. }
            | E::Quota { .. }
            | E::Connlimit { .. }
            | E::Reject { .. }
            | E::Log { .. }
            | E::Notrack
            | E::ObjectRef { .. }
            | E::FlowOffload { .. }
            | E::Last
            | E::Queue { from: None, .. }
            | E::Synproxy { .. } => {}
            // Sets that packets change are unknown, whatever is in them.
            E::Dynset { .. } => {}
            _ => self.classes.every_value(&Field::ALL),
        }
    }

    /// Each value of the fields that these bytes have a part of.
    fn read_whole(&mut self, from: Register, len: usize) {
        let fields = self.holding.fields(from, len);
        self.classes.every_value(&fields);
    }

    /// A comparison with one value; only whether it is equal, or which one is less.
    fn compare(&mut self, from: Register, value: &[u8], equality: bool) {
        self.range(from, value, value, equality);
    }

    /// A comparison with a range, or of each field with one of its own.
    fn range(&mut self, from: Register, low: &[u8], high: &[u8], each: bool) {
        let parts = self.holding.parts(from, low.len());
        if parts.len() > 1 && !each {
            return self.read_whole(from, low.len());
        }
        for part in parts {
            match part {
                Part::Other => {}
                Part::Within(field) => self.classes.every_value(&[field]),
                Part::Begin { field, at, len, kept } => {
                    let (Some(low), Some(high)) = (low.get(at..at + len), high.get(at..at + len))
                    else {
                        return self.classes.every_value(&[field]);
                    };
                    let length = kept.min(len as u32 * 8);
                    self.classes.bits(field, number(field, low), length);
                    self.classes.bits(field, number(field, high), length);
                }
            }
        }
    }

    fn lookup(&mut self, set: usize, from: Register, to: Option<Destination>) {
        if let Some(set) = self.firewall.set(set) {
            if !set.dynamic {
                match set.bounds() {
                    Bounds::Each(keys) => {
                        for key in keys {
                            self.range(from, key, key, true);
                        }
                    }
                    // The first values behind intervals are among them.
                    Bounds::Order(keys) => {
                        for key in keys {
                            self.range(from, key, key, false);
                        }
                    }
                    Bounds::Fields(ranges) => {
                        for (low, high) in ranges {
                            self.range(from, low, high, true);
                        }
                    }
                }
            }
        } else {
            self.classes.every_value(&Field::ALL);
        }
        if let Some(Destination::Register(to)) = to {
            self.holding.clear(to, 16);
        }
    }

    fn header(&mut self, header: &HeaderMatch) {
        let field = if self.v6 == Some(true) { Field::V6 } else { Field::V4 };
        for AddressMatch { value, mask, .. } in &header.addresses {
            let all = u128::MAX >> (128 - field.bits());
            let length = (mask & all).count_ones();
            let prefix = all & !(all.checked_shr(length).unwrap_or_default());
            if mask & all == prefix {
                self.classes.bits(field, *value, length);
            } else {
                self.classes.every_value(&[field]);
            }
        }
    }

    fn ports(&mut self, first: u16, last: u16) {
        self.classes.ports.range(first.into(), last.into());
    }

    fn xt_match(&mut self, of: &Match) {
        match of {
            Match::Tcp(of) => self.port_ranges([of.ports.source, of.ports.destination]),
            Match::Udp(of) => self.port_ranges([of.ports.source, of.ports.destination]),
            Match::Multiport(of) => {
                for (first, last) in &of.ports {
                    self.ports(*first, *last);
                }
            }
            Match::Conntrack(of) => {
                if of.addresses.iter().any(Option::is_some) || of.ports.iter().any(Option::is_some)
                {
                    self.classes.every_value(&Field::ALL);
                }
            }
            Match::IpRange(_) => self.classes.every_value(&ADDRESSES),
            // They read addresses by routes alone, or neither addresses nor ports.
            Match::AddrType(_)
            | Match::Ah(_)
            | Match::Comment
            | Match::Connlabel(_)
            | Match::Connmark(_)
            | Match::DevGroup(_)
            | Match::Ecn(_)
            | Match::Esp(_)
            | Match::ExtensionHeader
            | Match::Helper(_)
            | Match::Icmp(_)
            | Match::IpComp(_)
            | Match::Length(_)
            | Match::Mac(_)
            | Match::Mark(_)
            | Match::Mobility(_)
            | Match::Owner(_)
            | Match::PktType(_)
            | Match::State(_)
            | Match::Statistic(_)
            | Match::TcpMss(_)
            | Match::Tos(_)
            | Match::Ttl(_)
            | Match::Unknown(_) => {}
            Match::Dccp(_) | Match::Eui64 | Match::Sctp(_) | Match::U32(_) => {
                self.classes.every_value(&Field::ALL);
            }
        }
    }

    fn port_ranges(&mut self, ranges: [Range<u16>; 2]) {
        for Range { first, last, .. } in ranges {
            self.ports(first, last);
        }
    }

    fn target(&mut self, of: &Target) {
        match of {
            Target::Netmap(_) => self.classes.every_value(&ADDRESSES),
            Target::Nat(_, NatRange { addresses, ports, base, .. }) => {
                for address in addresses {
                    let field = if self.v6 == Some(true) { Field::V6 } else { Field::V4 };
                    let bytes = &address[..field.bits() as usize / 8];
                    constant(bytes, self.classes);
                }
                for port in [ports.0, ports.1, *base] {
                    self.ports(port, port);
                }
            }
            _ => {}
        }
    }
}
