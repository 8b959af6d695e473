//! Routes found in tables that were read before, compared with the kernel's own answers (`ip route get`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use conntracker::firewall::evaluate::interface::Interface;
use conntracker::firewall::evaluate::routes::{RouteQuery, RouteType, Routes};
use conntracker::firewall::evaluate::routing_tables::RoutingTables;
use conntracker::netlink::routing::dump::RoutingDump;
use conntracker::netlink::routing::objects::RoutingObjects;
use conntracker_tests::is_quick;
use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::rulesets::Random;
use serde_json::Value;

/// Interfaces that the test adds.
const LINKS: [&str; 3] = ["d0", "d1", "d2"];

/// Marks that rules compare.
const MARKS: [u32; 4] = [0, 1, 2, 0x10];

/// An address of few networks: routes of several lengths lead to most of them.
fn address(random: &mut Random, v6: bool) -> IpAddr {
    let [a, b, c] = [random.below(3), random.below(3), random.below(4)];
    if v6 {
        Ipv6Addr::new(0xfd00, a as u16, b as u16, 0, 0, 0, 0, c as u16 + 1).into()
    } else {
        Ipv4Addr::new(10, 100 + a as u8, b as u8, c as u8 + 1).into()
    }
}

/// The beginning of an address, as ip(8) takes it.
fn prefix(random: &mut Random, v6: bool) -> String {
    let lengths = if v6 { [16, 32, 48, 128] } else { [8, 16, 24, 32] };
    let length = lengths[random.below(4)];
    match address(random, v6) {
        IpAddr::V4(of) => {
            let mask = u32::MAX << (32 - length);
            format!("{}/{length}", Ipv4Addr::from_bits(of.to_bits() & mask))
        }
        IpAddr::V6(of) => {
            let mask = u128::MAX << (128 - length);
            format!("{}/{length}", Ipv6Addr::from_bits(of.to_bits() & mask))
        }
    }
}

fn ip(router: &Host, v6: bool, args: &[&str]) -> bool {
    let family = if v6 { "-6" } else { "-4" };
    router.run(["ip", family].iter().chain(args)).is_ok()
}

/// Random addresses, routes and rules of routing.
fn fill(router: &Host, random: &mut Random) {
    for (n, link) in LINKS.iter().enumerate() {
        // Only interfaces whose other end is up lead anywhere.
        let peer = format!("peer{n}");
        router.run(["ip", "link", "add", link, "type", "veth", "peer", "name", &peer]).unwrap();
        for end in [link, &*peer] {
            router.run(["ip", "link", "set", end, "up"]).unwrap();
        }
        let own = [
            format!("10.{}.0.1/24", 100 + n),
            format!("10.{}.1.1/30", 100 + n),
            format!("fd00:{n}::1/64"),
        ];
        for address in &own {
            router.run(["ip", "address", "add", address, "dev", link, "nodad"]).unwrap();
        }
        router.run(["sysctl", "-qw", &format!("net.ipv4.conf.{link}.rp_filter=0")]).unwrap();
    }
    router.run(["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0"]).unwrap();
    for v6 in [false, true] {
        for n in 0..24 {
            let (to, metric) = (prefix(random, v6), (10 + n).to_string());
            let table = ["main", "100", "101", "102"][random.below(4)];
            let kinds =
                ["unicast", "unicast", "unicast", "blackhole", "unreachable", "prohibit", "throw"];
            let kind = kinds[random.below(7)];
            let mut args = vec!["route", "add", kind, &to, "table", table, "metric", &metric];
            if kind == "unicast" {
                args.extend(["dev", LINKS[random.below(3)]]);
            }
            // Some are there already.
            ip(router, v6, &args);
        }
        for n in 0..8 {
            let priority = (1_000 + n).to_string();
            let (to, from, mark) =
                (prefix(random, v6), prefix(random, v6), MARKS[random.below(4)].to_string());
            let mut args = vec!["rule", "add", "priority", &priority];
            match random.below(6) {
                0 => args.extend(["to", &to]),
                1 => args.extend(["from", &from]),
                2 => args.extend(["fwmark", &mark]),
                3 => args.extend(["fwmark", "0x10/0x10", "from", &from]),
                4 => args.extend(["iif", LINKS[random.below(3)]]),
                _ => args.extend(["not", "to", &to]),
            }
            match random.below(8) {
                0 => args.extend(["prohibit"]),
                1 => args.extend(["lookup", "main", "suppress_prefixlength", "16"]),
                _ => args.extend(["lookup", ["100", "101", "102"][random.below(3)]]),
            }
            assert!(ip(router, v6, &args), "{args:?}");
        }
    }
}

/// What the kernel says: the kind of the route and its interface.
fn kernel(
    router: &Host,
    query: &RouteQuery<'_>,
    input: Option<&str>,
) -> (RouteType, Option<String>) {
    let (to, mark) = (query.to.to_string(), query.mark.to_string());
    let from = query.from.map(|from| from.to_string());
    let mut args = vec!["ip", "-j", "route", "get", &to, "mark", &mark];
    args.extend(from.as_deref().iter().flat_map(|from| ["from", from]));
    args.extend(input.iter().flat_map(|input| ["iif", input]));
    match router.run(args) {
        Ok(json) => {
            let route: Value = serde_json::from_str(&json).unwrap();
            let kind = match route[0]["type"].as_str() {
                Some("local") => RouteType::Local,
                Some("broadcast") => RouteType::Broadcast,
                Some("unreachable") => RouteType::Unreachable,
                Some("prohibit") => RouteType::Prohibit,
                Some("blackhole") => RouteType::Blackhole,
                Some(other) => panic!("{other}: {json}"),
                None => RouteType::Unicast,
            };
            (kind, route[0]["dev"].as_str().map(str::to_owned))
        }
        Err(error) => {
            let said = format!("{error:#}");
            let kind = [
                ("Network is unreachable", RouteType::Unspec),
                ("No route to host", RouteType::Unreachable),
                ("Permission denied", RouteType::Prohibit),
                ("Invalid argument", RouteType::Blackhole),
            ];
            let found = kind.iter().find(|(text, _)| said.contains(text));
            (found.unwrap_or_else(|| panic!("{said}")).1, None)
        }
    }
}

#[test]
fn routes_are_found_as_the_kernel_finds_them() {
    let (labs, queries) = if is_quick() { (2, 150) } else { (10, 500) };
    let mut random = Random::new(21);
    let (mut led, mut refused) = (0, 0);
    for _ in 0..labs {
        let lab = Lab::new().unwrap();
        let router = &lab.router;
        fill(router, &mut random);
        let dump = router.enter(|| Ok(RoutingDump::read()?.unwrap())).unwrap();
        let tables = RoutingTables::new(RoutingObjects::decode(dump.bytes()).unwrap());
        for _ in 0..queries {
            let v6 = random.below(2) == 1;
            let (to, from) = (address(&mut random, v6), address(&mut random, v6));
            // Packets from others have a source, which is neither this host's nor a broadcast.
            let of_others = tables.address_type(&RouteQuery::to(from)) == Ok(RouteType::Unicast);
            let received = random.below(2) == 1 && of_others;
            let link = LINKS[random.below(3)];
            let input = received.then(|| tables.interface(link).unwrap());
            let query = RouteQuery {
                to,
                from: received.then_some(from),
                input,
                output: None,
                mark: MARKS[random.below(4)],
            };
            let found = tables.route(&query).unwrap();
            let wanted = kernel(router, &query, received.then_some(link));
            let state = || {
                let family = if v6 { "-6" } else { "-4" };
                let rules = router.run(["ip", family, "rule"]).unwrap();
                let routes = router.run(["ip", family, "route", "show", "table", "all"]);
                format!("{query:?}\n{rules}\n{}", routes.unwrap())
            };
            if wanted.0 == RouteType::Unicast {
                assert_eq!(
                    (found.kind, found.interface.as_ref().map(Interface::text)),
                    wanted,
                    "{}",
                    state()
                );
                led += 1;
            } else {
                // What a received packet is refused for, the kernel does not always say.
                let refuses = received && wanted.0 != RouteType::Local;
                let told = |kind| if refuses { refusal(kind) } else { kind };
                let (kind, wanted) = (told(found.kind), told(wanted.0));
                assert_eq!(kind, wanted, "{}", state());
                refused += u32::from(wanted != RouteType::Local);
            }
        }
    }
    println!("{led} routes, {refused} refusals");
    assert!(led > 20 && refused > 20, "{led} routes, {refused} refusals");
}

/// One of all refusals.
fn refusal(kind: RouteType) -> RouteType {
    match kind {
        RouteType::Unspec | RouteType::Blackhole | RouteType::Prohibit => RouteType::Unreachable,
        other => other,
    }
}
