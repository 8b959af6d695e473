//! Addresses and flows that rulesets of real programs are about.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;

use crate::burst::{self, Kind as Traffic, Planned, Sender};
use crate::lab::Lab;

/// What the rulesets are about: a container behind docker0, which the server plays, and endpoints of
/// services, which are the server too.
pub fn surroundings(lab: &Lab) -> Result<()> {
    let (router, server) = (&lab.router, &lab.server);
    for (host, command) in [
        (router, format!("link add docker0 type veth peer name ctr0 netns {}", server.name)),
        (router, "addr add 172.17.0.1/16 dev docker0".to_owned()),
        (router, "link set docker0 up".to_owned()),
        (server, "addr add 172.17.0.2/16 dev ctr0".to_owned()),
        (server, "link set ctr0 up".to_owned()),
        (server, "rule add from 172.17.0.2 table 100".to_owned()),
        (server, "route add default via 172.17.0.1 dev ctr0 table 100".to_owned()),
        (server, "route add local 10.180.0.0/16 dev lo".to_owned()),
        (router, "route add 10.180.0.0/16 via 10.77.2.2".to_owned()),
        (router, "route add 172.30.0.0/16 via 10.77.2.2".to_owned()),
        (router, "addr add 192.168.0.2/32 dev lo".to_owned()),
    ] {
        host.run(["ip"].into_iter().chain(command.split_whitespace()))?;
    }
    Ok(())
}

/// Flows that meet what the rulesets are about.
#[must_use]
pub fn flows(lab: &Lab, number: u32) -> Vec<Planned> {
    use Sender::{Client, Router, Server};
    use Traffic::{Echo, Tcp, Udp};
    let mut flows = burst::flows(lab, number);
    let client = flows[0].from.ip();
    let container = IpAddr::from([172, 17, 0, 2]);
    let own = lab.router.v4().into();
    let mut add = |sender, kind, from, to: IpAddr, port| {
        let index = flows.len() as u32;
        let id = number * 100 + index;
        let from = SocketAddr::new(from, 45_000 + id as u16);
        let to = SocketAddr::new(to, port);
        flows.push(Planned::new(sender, kind, from, to, id));
    };
    for (to, port) in [
        ([10, 77, 1, 1], 8443),
        ([172, 17, 0, 2], 80),
        ([172, 30, 0, 41], 80),
        ([172, 30, 0, 42], 80),
        ([172, 30, 0, 43], 80),
        ([172, 30, 0, 41], 81),
        ([172, 30, 9, 9], 80),
        ([192, 168, 0, 2], 3001),
        ([5, 6, 7, 8], 80),
    ] {
        add(Client, Tcp, client, to.into(), port);
        add(Client, Udp(1), client, to.into(), port);
    }
    add(Client, Echo, client, [172, 30, 0, 41].into(), 0);
    for (kind, port) in [(Tcp, 80), (Udp(2), 7)] {
        add(Server, kind, container, client, port);
        add(Server, kind, container, [10, 77, 1, 1].into(), port);
    }
    add(Router, Tcp, own, [172, 30, 0, 41].into(), 80);
    add(Router, Udp(1), own, [172, 30, 0, 41].into(), 81);
    flows
}
