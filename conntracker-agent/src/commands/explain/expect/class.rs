//! Some of the addresses and ports that a line is about, where not all can be looked at.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use ipnet::IpNet;

/// Numbers of which each is looked at; of more, so many are chosen.
const EACH: u128 = 16;

/// What some values stand for.
pub(super) struct Chosen<T> {
    pub values: Vec<T>,
    /// They are all there are.
    pub all: bool,
}

/// Addresses of a network that hosts may have: all, if they are few; otherwise the first and the last, and some
/// between them.
pub(super) fn addresses(network: IpNet) -> Chosen<IpAddr> {
    let bits = u32::from(network.max_prefix_len() - network.prefix_len());
    let base = match network.network() {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    let address = |offset: u128| -> IpAddr {
        match network {
            IpNet::V4(_) => Ipv4Addr::from((base + offset) as u32).into(),
            IpNet::V6(_) => Ipv6Addr::from(base + offset).into(),
        }
    };
    let Chosen { values, all } = spread(1_u128.checked_shl(bits).unwrap_or(u128::MAX));
    let edge = |address: &IpAddr| *address == network.network() || *address == network.broadcast();
    // The first and the last address of a network of IPv4 have no host.
    let without_host =
        |address: &IpAddr| (2..32).contains(&bits) && address.is_ipv4() && edge(address);
    let values = values.into_iter().map(address);
    let values = values.filter(|address| is_of_host(address) && !without_host(address));
    Chosen { values: values.collect(), all }
}

/// Whether a host may have an address, and packets with it cross a router.
fn is_of_host(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !matches!(address.octets()[0], 0 | 127 | 224..=255),
        IpAddr::V6(address) => {
            !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
        }
    }
}

/// Ports, chosen likewise; of none, those of all.
pub(super) fn ports(ranges: &[RangeInclusive<u16>]) -> Chosen<u16> {
    let any = [1..=u16::MAX];
    let mut chosen = Chosen { values: Vec::new(), all: true };
    for range in if ranges.is_empty() { &any } else { ranges } {
        let Chosen { values, all } = spread(range.len() as u128);
        chosen.values.extend(values.into_iter().map(|offset| range.start() + offset as u16));
        chosen.all &= all;
    }
    chosen
}

/// Some of the numbers below `count`: all, if they are few; otherwise both ends, their neighbours, and others in
/// steps.
fn spread(count: u128) -> Chosen<u128> {
    if count <= EACH {
        return Chosen { values: (0..count).collect(), all: true };
    }
    let step = count / (EACH - 4);
    let mut values = vec![0, 1, count - 2, count - 1];
    values.extend((1..EACH - 4).map(|n| n * step + n * 7 % step.max(1)).filter(|n| *n < count));
    values.sort_unstable();
    values.dedup();
    Chosen { values, all: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_all_and_many_are_some() {
        let few = addresses("10.0.0.0/29".parse().unwrap());
        assert_eq!((few.values.len(), few.all), (6, true));
        let many = addresses("10.0.0.0/8".parse().unwrap());
        assert!(!many.all && many.values.len() > 10);
        assert!(many.values.contains(&"10.255.255.254".parse().unwrap()));
        let all = addresses("::/0".parse().unwrap());
        assert!(all.values.iter().all(is_of_host) && !all.all);
        let one = addresses("fd00::1/128".parse().unwrap());
        assert_eq!((one.values, one.all), (vec!["fd00::1".parse().unwrap()], true));
    }

    #[test]
    fn ports_of_ranges_are_chosen_from_each() {
        let chosen = ports(&[80..=81, 1000..=1000]);
        assert_eq!((chosen.values, chosen.all), (vec![80, 81, 1000], true));
        let any = ports(&[]);
        assert!(any.values.contains(&1) && any.values.contains(&u16::MAX) && !any.all);
    }
}
