//! The plan of the lab and its construction with `ip`.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use super::{Host, Lab, Link, exec};

/// What a host is before its links come up: no router solicitations, no duplicate address
/// detection, no reverse path filter (the storm's sources are many), multicast listener reports
/// repeated at once and not in the middle of a test.
const SYSCTLS: [(&str, &str); 10] = [
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.all.accept_ra", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "0"),
    ("net.ipv6.conf.default.mldv2_unsolicited_report_interval", "1"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
];

const FORWARDING: [(&str, &str); 2] =
    [("net.ipv4.conf.all.forwarding", "1"), ("net.ipv6.conf.all.forwarding", "1")];

/// Names and addresses; nothing exists yet.
pub(super) fn plan(prefix: &str) -> Lab {
    let link = |name, net: u8, host: u8| Link {
        name,
        v4: Ipv4Addr::new(10, 77, net, host),
        v6: Ipv6Addr::new(0xfd77, net.into(), 0, 0, 0, 0, 0, host.into()),
    };
    let host = |suffix, links| Host { name: format!("{prefix}-{suffix}"), links };
    Lab {
        client: host("c", vec![link("eth0", 1, 2)]),
        router: host("r", vec![link("toclient", 1, 1), link("toserver", 2, 1)]),
        server: host("s", vec![link("eth0", 2, 2)]),
    }
}

/// Makes what the plan says.
pub(super) fn make(lab: &Lab) -> Result<()> {
    for host in lab.hosts() {
        add_namespace(host)?;
        for (key, value) in SYSCTLS {
            host.sysctl(key, value)?;
        }
    }
    for (key, value) in FORWARDING {
        lab.router.sysctl(key, value)?;
    }
    let (client, router, server) = (&lab.client.links[0], &lab.router.links, &lab.server.links[0]);
    batch(
        &lab.router,
        &format!(
            "{}\n{}\n{}\n{}\n{}",
            veth(&router[0], client, &lab.client),
            veth(&router[1], server, &lab.server),
            addresses(router, &[client, server]),
            "route add 10.78.0.0/16 via 10.77.1.2",
            "route add fd78::/64 via fd77:1::2",
        ),
    )?;
    // Local routes: the client answers for each address of the prefixes and may send from it.
    batch(
        &lab.client,
        &format!(
            "{}\nroute add default via 10.77.1.1\nroute add default via fd77:1::1\n\
             route add local 10.78.0.0/16 dev lo\nroute add local fd78::/64 dev lo",
            addresses(&lab.client.links, &[&router[0]]),
        ),
    )?;
    batch(
        &lab.server,
        &format!(
            "{}\nroute add default via 10.77.2.1\nroute add default via fd77:2::1",
            addresses(&lab.server.links, &[&router[1]]),
        ),
    )
}

fn add_namespace(host: &Host) -> Result<()> {
    // Older iproute2 races with itself when it makes /run/netns.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    exec::ip(["netns", "add", &host.name]).map(drop).context("making a namespace of the lab")
}

/// Runs `ip` commands in one go; the addresses tell it the family.
fn batch(host: &Host, lines: &str) -> Result<()> {
    let mut ip = Command::new("ip");
    ip.args(["-n", &host.name, "-batch", "-"]);
    exec::capture(&mut ip, lines).map(drop).context("wiring the lab")
}

fn veth(near: &Link, far: &Link, far_host: &Host) -> String {
    format!(
        "link add {} address {} type veth peer name {} address {} netns {}",
        near.name,
        near.mac(),
        far.name,
        far.mac(),
        far_host.name
    )
}

/// Addresses, the links up, and the neighbour of each link as a permanent entry.
fn addresses(links: &[Link], neighbours: &[&Link]) -> String {
    let mut lines = String::from("link set lo up\n");
    for (link, neighbour) in links.iter().zip(neighbours) {
        let Link { name, v4, v6 } = link;
        let mac = neighbour.mac();
        // Writing to a string cannot fail.
        let _ = write!(
            lines,
            "addr add {v4}/24 dev {name}\naddr add {v6}/64 dev {name} nodad\n\
             link set {name} up\n\
             neigh add {} lladdr {mac} nud permanent dev {name}\n\
             neigh add {} lladdr {mac} nud permanent dev {name}\n",
            neighbour.v4, neighbour.v6
        );
    }
    lines
}
