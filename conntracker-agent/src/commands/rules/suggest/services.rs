//! Names of services (services(5)).

use std::{collections::HashMap, fs};

use conntracker_common::{IPPROTO_ICMP, IPPROTO_ICMPV6};

use crate::model::protocol;

/// Types of ICMP and ICMPv6 that begin a flow.
const ICMP: [(u8, u16, &str); 4] = [
    (IPPROTO_ICMP, 8, "echo request"),
    (IPPROTO_ICMP, 13, "timestamp request"),
    (IPPROTO_ICMP, 17, "address mask request"),
    (IPPROTO_ICMPV6, 128, "echo request"),
];

/// Names by protocol and port.
#[derive(Default)]
pub(super) struct Services(HashMap<(u8, u16), String>);

impl Services {
    /// Those of /etc/services; none if there is no such file.
    pub fn read() -> Self {
        Self::of(&fs::read_to_string("/etc/services").unwrap_or_default())
    }

    fn of(text: &str) -> Self {
        let mut names = HashMap::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let (Some(name), Some(service)) = (words.next(), words.next()) else { continue };
            let Some((port, of)) = service.split_once('/') else { continue };
            let plain =
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            if let (Ok(port), Some(of), true) = (port.parse(), protocol::number(of), plain) {
                names.entry((of, port)).or_insert_with(|| name.to_owned());
            }
        }
        for (of, kind, name) in ICMP {
            names.insert((of, kind), name.to_owned());
        }
        Self(names)
    }

    /// The name of a port or a type of ICMP.
    pub fn name(&self, port: u16, protocol: u8) -> Option<&str> {
        self.0.get(&(protocol, port)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_port_counts() {
        let services = Services::of(
            "ssh 22/tcp # shell\nother 22/tcp\nbad\"name 23/tcp\ndomain 53/udp nameserver\n",
        );
        assert_eq!(services.name(22, 6), Some("ssh"));
        assert_eq!(services.name(53, 17), Some("domain"));
        assert_eq!((services.name(53, 6), services.name(23, 6)), (None, None));
        assert_eq!(services.name(8, IPPROTO_ICMP), Some("echo request"));
    }
}
