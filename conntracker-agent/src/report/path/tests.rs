use std::sync::Arc;

use super::*;
use crate::{
    model::{
        Status,
        hook::Hook,
        path::{
            CtState, Direction, MarksBehind,
            Provenance::{Chain, Exact, Inferred},
            Site, SiteKind,
        },
        process::Process,
        table::Family,
    },
    report::fixtures::{
        confirmed, drops, icmp, legacy, nft, only_dropped, ports, report, sample, step, traversal,
        ways,
    },
};

fn print(report: &Report, style: Style) -> String {
    let mut out = Vec::new();
    render(report, style, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The lines below the flow of a report of one flow with these paths.
fn below(mut flow: Flow, all: Vec<(Traversal, u64)>) -> Vec<String> {
    let epochs = all.iter().map(|(path, _)| u64::from(path.epoch)).max();
    flow.paths = ways(all);
    let mut report = report(vec![flow]);
    report.header.epochs = Some(epochs.unwrap_or(1));
    let text = print(&report, Style::Plain);
    let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
    lines.map(str::to_owned).collect()
}

fn tcp() -> Flow {
    ports(6, "192.0.2.1", 1024, "192.0.2.2", 80)
}

fn with_text(site: Site, text: &str) -> Site {
    Site { text: Some(text.to_owned()), ..site }
}

/// A rule of `inet fw`.
fn rule(chain: &str, position: u32, text: &str, verdict: Verdict) -> Step {
    let site = nft(Family::Inet, "fw", chain, SiteKind::Rule, position);
    step(with_text(site, text), verdict, Exact)
}

fn end(chain: &str, position: u32) -> Step {
    step(nft(Family::Inet, "fw", chain, SiteKind::Return, position), Verdict::Return, Exact)
}

fn policy(chain: &str, position: u32, verdict: Verdict) -> Step {
    step(nft(Family::Inet, "fw", chain, SiteKind::Policy, position), verdict, Exact)
}

fn jump(chain: &str) -> Verdict {
    Verdict::Jump(chain.to_owned())
}

fn goto(chain: &str) -> Verdict {
    Verdict::Goto(chain.to_owned())
}

fn reply(path: Traversal) -> Traversal {
    Traversal { direction: Direction::Reply, state: CtState::Established, ..path }
}

fn dropped(path: Traversal) -> Traversal {
    Traversal { outcome: Outcome::Dropped, ..path }
}

/// A connection through DNAT, two base chains, jumps, a goto and masquerade, with its replies; a datagram that a rule
/// of a sub chain drops; and an echo request that a policy drops.
fn firewall() -> Report {
    let mut web = confirmed(ports(6, "10.0.0.2", 1024, "198.51.100.1", 8080));
    let tuple = |src: &str, dst: &str, dport| ports(6, src, 80, dst, dport).key.orig;
    let untranslated = ports(6, "198.51.100.1", 8080, "10.0.0.2", 40123).key.orig;
    let behind_dnat = tuple("192.0.2.80", "10.0.0.2", 40123);
    let behind_snat = tuple("192.0.2.80", "192.0.2.1", 40123);
    web.reply = Some(behind_snat);
    web.status = web.status.union(Status::SRC_NAT).union(Status::DST_NAT);
    let nat = |chain: &str, text: &str| {
        let site = legacy("nat", chain, SiteKind::Rule, 1);
        step(with_text(site, text), Verdict::Accept, Exact)
    };
    let mut pre = traversal(
        Hook::Prerouting,
        vec![
            step(
                with_text(
                    legacy("mangle", "PREROUTING", SiteKind::Rule, 1),
                    "-A PREROUTING -p tcp -j CONNMARK --set-xmark 0x10/0xffffffff",
                ),
                Verdict::Continue,
                Exact,
            ),
            step(legacy("mangle", "PREROUTING", SiteKind::Policy, 2), Verdict::Accept, Exact),
            nat("PREROUTING", "-A PREROUTING -p tcp --dport 8080 -j DNAT --to 192.0.2.80:80"),
        ],
    );
    pre.connmark = Some((0, 0x10));
    pre.nat = Some((untranslated, behind_dnat));
    let early = Traversal {
        state: CtState::Early,
        ..traversal(
            Hook::Prerouting,
            vec![step(legacy("raw", "PREROUTING", SiteKind::Policy, 1), Verdict::Accept, Exact)],
        )
    };
    let mut forward = traversal(
        Hook::Forward,
        vec![
            rule("forward", 1, "counter", Verdict::Continue),
            rule("forward", 2, "iifname \"lan\" counter jump from_lan", jump("from_lan")),
            rule("from_lan", 2, "tcp dport vmap @services", jump("web")),
            rule("web", 1, "ip saddr 10.0.0.0/8 goto inside", goto("inside")),
            rule("inside", 1, "limit rate 5/second return", Verdict::Return),
            end("from_lan", 3),
            rule("forward", 3, "meta mark set 0x7 accept", Verdict::Accept),
            step(
                nft(Family::Inet, "late", "forward", SiteKind::Policy, 1),
                Verdict::Accept,
                Inferred,
            ),
        ],
    );
    forward.packet_mark = (0, 7);
    forward.marks = Arc::new([MarksBehind {
        chain: Arc::new(nft(Family::Inet, "fw", "forward", SiteKind::Chain, 0)),
        alone: true,
        packet: 7,
        connection: 0x10,
    }]);
    forward.connmark = Some((0x10, 0x10));
    let established = rule("forward", 1, "ct state established accept", Verdict::Accept);
    let mut post =
        traversal(Hook::Postrouting, vec![nat("POSTROUTING", "-A POSTROUTING -j MASQUERADE")]);
    post.nat = Some((behind_dnat, behind_snat));
    let forward_established = |path: Traversal| Traversal { state: CtState::Established, ..path };
    // The replies stand before what came first, and so do the later hooks.
    web.paths = ways(vec![
        (reply(traversal(Hook::Forward, vec![established.clone()])), 4),
        (post, 1),
        (forward_established(traversal(Hook::Forward, vec![established])), 3),
        (forward, 1),
        (pre, 1),
        (early, 1),
    ]);

    let mut blocked = only_dropped(ports(17, "10.0.0.9", 1024, "192.0.2.80", 53));
    blocked.drops = drops(&[(2, 2, 3), (2, 2, 3)]);
    blocked.paths = ways(vec![(
        dropped(traversal(
            Hook::Forward,
            vec![
                rule("forward", 2, "iifname \"lan\" counter jump from_lan", jump("from_lan")),
                rule("from_lan", 1, "udp dport 53 counter drop", Verdict::Drop),
            ],
        )),
        2,
    )]);

    let mut ping = only_dropped(icmp(1, "10.0.0.9", "192.0.2.80", 8, 0, 0));
    ping.drops = drops(&[(2, 2, 3)]);
    ping.paths = ways(vec![(
        dropped(traversal(
            Hook::Forward,
            vec![
                rule("forward", 2, "iifname \"lan\" counter jump from_lan", jump("from_lan")),
                end("from_lan", 3),
                policy("forward", 4, Verdict::Drop),
            ],
        )),
        1,
    )]);

    let mut report = report(vec![web, blocked, ping]);
    report.header.epochs = Some(1);
    report
}

#[test]
fn a_firewall_is_read_step_by_step() {
    assert_eq!(print(&firewall(), Style::Plain), include_str!("golden/firewall.txt"));
}

#[test]
fn on_a_terminal_only_colours_are_added() {
    let mut report = firewall();
    report.flows[0].paths.merge(&ways(vec![(
        traversal(Hook::Output, vec![Step { provenance: Inferred, ..end("user", 1) }]),
        1,
    )]));
    let coloured = print(&report, Style::Coloured);
    let lines: Vec<&str> = coloured.lines().map(str::trim).collect();
    for line in [
        "inet fw/forward 3             \x1b[32maccept\x1b[0m    meta mark set 0x7 accept",
        "inet fw/user 1                return    end of the chain\x1b[2m (inferred)\x1b[0m",
        "forward: 2 new packets, \x1b[31mDROPPED\x1b[0m",
        "from_lan 1       \x1b[31mDROP\x1b[0m      udp dport 53 counter drop",
    ] {
        assert!(lines.contains(&line), "{line:?} is not in {coloured}");
    }
    let mut plain = String::new();
    for part in coloured.split("\x1b[") {
        let end = part.find('m').filter(|_| !plain.is_empty()).map_or(0, |end| end + 1);
        plain.push_str(&part[end..]);
    }
    assert_eq!(plain, print(&report, Style::Plain));
}

/// Hostile names, two epochs, doubt, chains without rules, fragments, every kind of drop.
#[test]
fn flows_with_every_field_are_read_as_well() {
    assert_eq!(print(&sample(), Style::Plain), include_str!("golden/sample.txt"));
}

#[test]
fn equal_paths_are_told_once_with_the_packets_that_took_them() {
    use CtState::{Established, Invalid, New};
    let way = |state, epoch, fragment| Traversal {
        state,
        epoch,
        fragment,
        ..traversal(Hook::Input, vec![policy("input", 1, Verdict::Accept)])
    };
    let step = "    inet fw/input 1  accept    policy";
    let lines = below(
        tcp(),
        vec![
            (way(New, 1, false), 1),
            (way(Established, 1, false), 40),
            (way(New, 1, true), 2),
            (way(Invalid, 1, false), 1),
        ],
    );
    let packets = "1 new packet, 40 established packets, 2 new fragment packets, \
                   1 invalid (no entry) packet";
    let direction = "original (packets that were traced)";
    assert_eq!(lines, [direction, &format!("  input: {packets}"), step]);
    // Epochs are told only if there are several.
    let lines = below(
        tcp(),
        vec![
            (way(New, 2, false), 1),
            (way(New, 3, false), 1),
            (way(New, 7, false), 1),
            (way(Established, 3, false), 9),
        ],
    );
    let packets = "3 new packets in epochs 2-3, 7; 9 established packets in epoch 3";
    assert_eq!(lines, [direction, &format!("  input: {packets}"), step]);
}

#[test]
fn different_paths_at_one_hook_stand_one_below_the_other() {
    let way = |verdict| traversal(Hook::Input, vec![rule("input", 1, "jhash vmap @m", verdict)]);
    let lines = below(
        tcp(),
        vec![(way(Verdict::Accept), 2), (dropped(way(Verdict::Drop)), 1), (way(jump("a")), 1)],
    );
    assert_eq!(
        lines,
        [
            "original (packets that were traced)",
            "  input: 2 new packets",
            "    inet fw/input 1  accept    jhash vmap @m",
            "  input: 1 new packet, DROPPED",
            "    inet fw/input 1  DROP      jhash vmap @m",
            "  input: 1 new packet",
            "    inet fw/input 1  jump      jhash vmap @m -> a",
        ]
    );
}

#[test]
fn translations_of_equal_paths_are_counted() {
    let masquerade = |port| {
        let before = ports(6, "192.0.2.2", 80, "10.0.0.2", port).key.orig;
        let after = ports(6, "192.0.2.2", 80, "192.0.2.1", port + 1).key.orig;
        let steps = vec![policy("post", 1, Verdict::Accept)];
        (Traversal { nat: Some((before, after)), ..traversal(Hook::Postrouting, steps) }, 1)
    };
    let translations = |all| {
        let lines = below(tcp(), all);
        let nat = lines.iter().skip(3);
        nat.map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(translations(vec![masquerade(4000)]), ["snat: 10.0.0.2:4000 -> 192.0.2.1:4001"]);
    assert_eq!(
        translations((4000..4005).map(masquerade).collect()),
        [
            "snat: 10.0.0.2:4000 -> 192.0.2.1:4001 (1 packet)",
            "snat: 10.0.0.2:4001 -> 192.0.2.1:4002 (1 packet)",
            "snat: 10.0.0.2:4002 -> 192.0.2.1:4003 (1 packet)",
            "2 other translations",
        ]
    );
    let mut path = traversal(Hook::Postrouting, vec![policy("post", 1, Verdict::Accept)]);
    let echo = |dst: &str, id| icmp(1, "192.0.2.2", dst, 0, 0, id).key.orig;
    path.nat = Some((echo("10.0.0.2", 7), echo("192.0.2.1", 8)));
    assert_eq!(translations(vec![(path, 1)]), ["snat: 10.0.0.2 (id=7) -> 192.0.2.1 (id=8)"]);
}

#[test]
fn packets_that_a_machine_sends_to_itself_are_read_in_the_order_of_their_hooks() {
    use Hook::{Forward, Input, Output, Postrouting, Prerouting};
    let at = |hook| (traversal(hook, vec![policy("c", 1, Verdict::Accept)]), 1);
    let hooks = |hooks: &[Hook]| {
        let lines = below(tcp(), hooks.iter().copied().map(at).collect());
        let lines = lines.iter().filter_map(|line| line.strip_suffix(": 1 new packet"));
        lines.map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        hooks(&[Prerouting, Input, Output, Postrouting]),
        ["output", "postrouting", "prerouting", "input"]
    );
    assert_eq!(
        hooks(&[Postrouting, Forward, Prerouting]),
        ["prerouting", "forward", "postrouting"]
    );
}

#[test]
fn what_is_not_known_is_said() {
    let unplaced = |step: Step| Step { placed: false, ..step };
    let mut path = traversal(
        Hook::Forward,
        vec![
            rule("forward", 2, "counter jump a", jump("a")),
            unplaced(rule("a", 1, "counter", Verdict::Continue)),
            unplaced(step(
                nft(Family::Inet, "other", "forward", SiteKind::Chain, 0),
                Verdict::Unknown,
                Chain,
            )),
        ],
    );
    path.outcome = Outcome::Dropped;
    path.doubt = Some(Doubt::Capped);
    let mut without = traversal(Hook::Postrouting, vec![]);
    without.doubt = Some(Doubt::Mismatch);
    assert_eq!(
        below(tcp(), vec![(path, 1), (without, 1)]),
        [
            "original (packets that were traced)",
            "  forward: 1 new packet, DROPPED",
            "    inet fw/forward 2   jump      counter jump a",
            "    met as well, in an order that is not known:",
            "    inet fw/a 1         continue  counter",
            "    inet other/forward  unknown   which of its rules the packets met is not known",
            "    none of these steps is known to have dropped them",
            "    doubt: capped, the chain has more counters than are read",
            "  postrouting: 1 new packet",
            "    no step is known",
            "    doubt: mismatch, the rules in kernel memory differ from those that are listed",
        ]
    );
    assert_eq!(below(tcp(), Vec::new()), ["no packet was traced"]);
    // Where rules are not traced, the header says so.
    let mut flow = tcp();
    flow.paths = ways(vec![(traversal(Hook::Input, vec![]), 1)]);
    let report = report(vec![flow]);
    assert!(!print(&report, Style::Plain).contains("input"));
}

#[test]
fn names_and_texts_stay_in_their_lines() {
    let site = with_text(
        nft(Family::Inet, "f\x1b[31mw", "in\nput", SiteKind::Rule, 1),
        "counter jump {\n\t\tdrop\n\t} comment \"\u{202e}x\x1b[2J\"",
    );
    let mut flow = tcp();
    flow.process = Some(Box::new(Process {
        direction: Direction::Original,
        uid: 0,
        user: None,
        pid: None,
        comm: Some("a\nb\x1b".to_owned()),
        cgroup_id: None,
        cgroup: None,
        inode: None,
    }));
    let steps = vec![step(site, jump("to\r"), Exact)];
    assert_eq!(
        below(flow, vec![(traversal(Hook::Input, steps), 1)]),
        [
            r"process: a\nb\u{1b} (uid 0)",
            "original (packets that were traced)",
            "  input: 1 new packet",
            r#"    inet f\u{1b}[31mw/in\nput 1  jump      counter jump { drop } comment "\u{202e}x\u{1b}[2J" -> to\r"#,
        ]
    );
}

#[test]
fn a_long_name_does_not_move_the_rules_of_others() {
    let long = "x".repeat(120);
    let steps = vec![
        rule("input", 1, "counter jump", jump(&long)),
        rule(&long, 1, "counter accept", Verdict::Accept),
    ];
    let lines = below(tcp(), vec![(traversal(Hook::Input, steps), 1)]);
    let verdict = 4 + WIDEST + 2;
    assert_eq!(lines[2].find("jump      counter"), Some(verdict), "{lines:#?}");
    assert_eq!(lines[3], format!("      {long} 1  accept    counter accept"));
}
