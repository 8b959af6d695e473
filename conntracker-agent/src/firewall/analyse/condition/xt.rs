//! Headers and matches of iptables, as values that fields may have.

use super::Reader;
use crate::{
    firewall::{
        analyse::{
            field::{Field, Source, Transform, highest},
            values::Values,
        },
        evaluate::{
            packet::Side,
            unknown::{Attribute, Unknown},
            xt::{
                Match,
                compare::Range,
                conntrack::{self, Conntrack},
                multiport::Multiport,
                tcp::Ports,
            },
        },
        legacy::entries::{AddressMatch, DeviceMatch, HeaderMatch},
    },
    netlink::nftables::key::{ct, meta},
};

/// Offset of the flags in the header of TCP.
const TCP_FLAGS: u32 = 13;

impl Reader<'_> {
    /// Only packets go on whose field is in a range, or outside of it.
    fn within(&mut self, source: Source, first: u128, last: u128, inverted: bool) {
        let field = self.fields.load(source);
        let values = Values::of(vec![(first, last)]);
        if inverted { self.refuse(field, &values) } else { self.admit(field, &values) }
    }

    /// What each rule of ip_tables compares first.
    pub(super) fn header(&mut self, header: &HeaderMatch) {
        let HeaderMatch { addresses, devices, protocol, fragment } = header;
        let v6 = self.is_v6();
        for (destination, address) in [false, true].into_iter().zip(addresses) {
            self.address(Source::address(destination, v6), address);
        }
        for (key, device) in [meta::IIFNAME, meta::OIFNAME].into_iter().zip(devices) {
            self.device(Source::Meta(key), device);
        }
        if let Some((protocol, inverted)) = *protocol {
            let number = u128::from(protocol);
            self.within(Source::Meta(meta::L4PROTO), number, number, inverted);
        }
        match *fragment {
            (false, false) => {}
            (false, true) => self.live.clear(),
            (true, inverted) => self.within(Source::LaterFragment, 1, 1, inverted),
        }
    }

    fn address(&mut self, source: Source, of: &AddressMatch) {
        let AddressMatch { value, mask, inverted } = *of;
        let mut field = self.fields.load(source);
        if mask == 0 {
            if (value != 0) != inverted {
                self.live.clear();
            }
            return;
        }
        field.transforms.push(Transform::Mask(mask, 0));
        let values = Values::one(value);
        if inverted { self.refuse(field, &values) } else { self.admit(field, &values) }
    }

    fn device(&mut self, source: Source, of: &DeviceMatch) {
        let DeviceMatch { name, mask, inverted } = *of;
        if mask == [0; 16] {
            if inverted {
                self.live.clear();
            }
            return;
        }
        let (name, mask) = (u128::from_be_bytes(name), u128::from_be_bytes(mask));
        let mut field = self.fields.load(source);
        field.transforms.push(Transform::Mask(mask, 0));
        let values = Values::one(name & mask);
        if inverted { self.refuse(field, &values) } else { self.admit(field, &values) }
    }

    /// Matches that are no regions are left open.
    pub(super) fn xt_match(&mut self, of: &Match) {
        match of {
            Match::Comment => {}
            Match::Tcp(of) => {
                self.ports(&of.ports);
                let (mask, set) = of.flags;
                if (mask, set) != (0, 0) {
                    let mut flags = self.fields.load(Source::transport(TCP_FLAGS));
                    flags.transforms.push(Transform::Mask(mask.into(), 0));
                    let values = Values::one(set.into());
                    if of.flags_inverted {
                        self.refuse(flags, &values);
                    } else {
                        self.admit(flags, &values);
                    }
                }
                if of.option != 0 {
                    self.hangs_on(Attribute::TcpOptions);
                }
            }
            Match::Udp(of) => self.ports(&of.ports),
            Match::Multiport(of) => self.multiport(of),
            Match::Icmp(of) => {
                self.within(Source::LaterFragment, 0, 0, false);
                let kind = of.kind.map_or((0, 0xff), |kind| (kind, kind));
                match (of.inverted, of.kind) {
                    (true, None) => self.hangs_on(Unknown::Extension),
                    (true, Some(_)) if of.codes != (0, 0xff) => self.hangs_on(Unknown::Extension),
                    (inverted, _) => {
                        self.within(Source::transport(0), kind.0.into(), kind.1.into(), inverted);
                        if !inverted {
                            let (first, last) = of.codes;
                            self.within(Source::transport(1), first.into(), last.into(), false);
                        }
                    }
                }
            }
            Match::IpRange(of) => {
                for (destination, range) in [(false, of.source), (true, of.destination)] {
                    if let Some(Range { first, last, inverted }) = range {
                        let v6 = self.is_v6();
                        let [first, last] = [first, last].map(|address| {
                            let number = u128::from_be_bytes(address);
                            if v6 { number } else { number >> 96 }
                        });
                        self.within(Source::address(destination, v6), first, last, inverted);
                    }
                }
            }
            Match::Mark(of) => {
                let mut mark = self.fields.load(Source::Meta(meta::MARK));
                mark.transforms.push(Transform::Mask(of.mask.into(), 0));
                let values = Values::one(of.mark.into());
                if of.inverted { self.refuse(mark, &values) } else { self.admit(mark, &values) }
            }
            Match::State(of) => self.states(of.states, false),
            Match::Conntrack(of) => self.conntrack(of),
            Match::Unknown(why) => self.hangs_on(*why),
            _ => self.hangs_on(Unknown::Extension),
        }
    }

    /// Ports, of packets that are no later fragments.
    fn ports(&mut self, ports: &Ports) {
        self.within(Source::LaterFragment, 0, 0, false);
        for (destination, range) in [(false, ports.source), (true, ports.destination)] {
            let Range { first, last, inverted } = range;
            if (first, last) != (0, u16::MAX) || inverted {
                self.within(Source::port(destination), first.into(), last.into(), inverted);
            }
        }
    }

    fn multiport(&mut self, of: &Multiport) {
        self.within(Source::LaterFragment, 0, 0, false);
        let ranges = of.ports.iter().map(|(first, last)| ((*first).into(), (*last).into()));
        let mut ports = Values::of(ranges.collect());
        if of.inverted {
            ports = Values::range(0, highest(16)).without(&ports);
        }
        let [source, destination] =
            [false, true].map(|side| (self.fields.load(Source::port(side)), ports.clone()));
        let admit = |this: &mut Self, (field, values): (Field, Values)| this.admit(field, &values);
        match of.side {
            Some(Side::Source) => admit(self, source),
            Some(Side::Destination) => admit(self, destination),
            // Neither of them.
            None if of.inverted => {
                admit(self, source);
                admit(self, destination);
            }
            None => self.admit_any(&[vec![source], vec![destination]]),
        }
    }

    /// States, by the bits of `xt_conntrack`.
    fn states(&mut self, states: u16, inverted: bool) {
        let bits = [
            (conntrack::INVALID, 1),
            (conntrack::ESTABLISHED, 2),
            (conntrack::RELATED, 4),
            (conntrack::NEW, 8),
            (conntrack::UNTRACKED, 64),
        ];
        let of = bits.into_iter().filter(|(bit, _)| (states & bit != 0) != inverted);
        let values = Values::of(of.map(|(_, state)| (state, state)).collect());
        let field = self.fields.load(Source::Ct(ct::STATE, None));
        self.admit(field, &values);
    }

    fn conntrack(&mut self, of: &Conntrack) {
        let Conntrack { states, protocol, addresses, ports, status, expires, direction } = of;
        match *states {
            // They compare the status too.
            Some((states, _)) if states & (conntrack::SNAT | conntrack::DNAT) != 0 => {
                self.hangs_on(Unknown::Extension);
            }
            Some((states, inverted)) => self.states(states, inverted),
            None => self.hangs_on(Unknown::Extension),
        }
        let alone = protocol.is_none()
            && addresses.iter().all(Option::is_none)
            && ports.iter().all(Option::is_none)
            && status.is_none()
            && expires.is_none()
            && direction.is_none();
        if !alone {
            self.hangs_on(Unknown::Extension);
        }
    }
}
