//! Rules: conditions, what they set, their counter and their verdict.

use super::condition::{L4, conditions};
use super::{Class, Counter, Family, LEVELS, Place, Random, TWINS, user_chain};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Counts, at most.
    Nothing,
    Mark,
    Connmark,
    Jump,
    Goto,
    Return,
    Accept,
    Drop,
    Map,
    Reject,
    Notrack,
    Nat,
}

/// What packets do to a rule, in order: conditions, statements that cannot fail, verdict.
struct Parts {
    before: Vec<String>,
    verdict: String,
}

/// The line of a rule.
pub(super) fn rule(place: Place, random: &mut Random, counter: Counter) -> String {
    let action = action(place, random);
    let Parts { before, verdict } = parts(place, action, random);
    let (front, exact) = match counter {
        Counter::Front => ("counter", ""),
        Counter::Exact => ("", "counter"),
        Counter::None => ("", ""),
    };
    let words: Vec<&str> = [front]
        .into_iter()
        .chain(before.iter().map(String::as_str))
        .chain([exact, &verdict])
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ")
}

fn action(place: Place, random: &mut Random) -> Action {
    use Action::{
        Accept, Connmark, Drop, Goto, Jump, Map, Mark, Nat, Nothing, Notrack, Reject, Return,
    };
    // Deepest chains call none.
    let calls = usize::from(place.level < LEVELS);
    let only = |class| usize::from(place.class == class);
    random.weighted(&[
        (16, Nothing),
        (9, Mark),
        (7, Connmark),
        (20 * calls, Jump),
        (6 * calls, Goto),
        (7, Return),
        (8, Accept),
        (2, Drop),
        (if place.maps { 18 * calls } else { 0 }, Map),
        (4 * only(Class::Filter), Reject),
        (8 * only(Class::Raw), Notrack),
        (25 * usize::from(place.class.nat()), Nat),
    ])
}

fn parts(place: Place, action: Action, random: &mut Random) -> Parts {
    let mut need = L4::Any;
    let mut sets = "";
    let mut at_least_one = false;
    let v4 = match place.family {
        Family::Ip => true,
        Family::Ip6 => false,
        Family::Inet => random.chance(50),
    };
    let verdict = match action {
        Action::Nothing => {
            at_least_one = true;
            String::new()
        }
        Action::Mark => {
            sets = random.pick(&MARKS);
            random.pick(&["", "", "", "accept", "return"]).to_owned()
        }
        Action::Connmark => {
            sets = random.pick(&CONNMARKS);
            random.pick(&["", "", "", "return"]).to_owned()
        }
        Action::Jump => format!("jump {}", callee(place, random)),
        Action::Goto => format!("goto {}", callee(place, random)),
        Action::Return => "return".to_owned(),
        Action::Accept => "accept".to_owned(),
        Action::Drop => "drop".to_owned(),
        Action::Notrack => "notrack".to_owned(),
        Action::Reject => {
            let reject = reject(place.family, random);
            if reject.ends_with("reset") {
                need = L4::Tcp;
            }
            reject.to_owned()
        }
        Action::Map => return map(place, random),
        Action::Nat => {
            let (condition, nat) = nat(place.class, v4, random);
            if !condition.is_empty() {
                return Parts { before: vec![condition.to_owned()], verdict: nat.to_owned() };
            }
            need = if nat.contains("5999") { L4::TcpOrUdp } else { L4::Any };
            nat.to_owned()
        }
    };
    let mut before: Vec<String> =
        conditions(v4, need, at_least_one, random).into_iter().map(str::to_owned).collect();
    before.push(sets.to_owned());
    Parts { before, verdict }
}

const MARKS: [&str; 6] = [
    "meta mark set 0x1",
    "meta mark set 0x2",
    "meta mark set meta mark | 0x10",
    "meta mark set ct mark",
    "meta mark set ct mark | 0x4",
    "meta mark set 0",
];

const CONNMARKS: [&str; 5] = [
    "ct mark set 0x1",
    "ct mark set 0x2",
    "ct mark set meta mark",
    "ct mark set ct mark | 0x10",
    "ct mark set 0",
];

/// A user chain that a chain may call.
fn callee(place: Place, random: &mut Random) -> String {
    user_chain(place.class, place.level + 1, random.pick(&TWINS))
}

fn reject(family: Family, random: &mut Random) -> &'static str {
    let specific = match family {
        Family::Ip => "reject with icmp host-unreachable",
        Family::Ip6 => "reject with icmpv6 no-route",
        Family::Inet => "reject with icmpx admin-prohibited",
    };
    random.pick(&["reject", specific, "reject with tcp reset"])
}

/// The named verdict map of a class.
pub(super) fn verdict_map(class: Class) -> String {
    let [jump, go] = TWINS.map(|twin| user_chain(class, 1, twin));
    format!(
        "\tmap {}_verdicts {{ type inet_service : verdict; \
         elements = {{ 7 : jump {jump}, 53 : goto {go}, 80 : jump {go}, 9 : accept }}; }}\n",
        class.prefix()
    )
}

/// A verdict map behind a condition that all of its keys meet, and nothing else: where it is
/// looked up it decides.
fn map(place: Place, random: &mut Random) -> Parts {
    let (one, other) = (callee(place, random), callee(place, random));
    // Before conntrack everything is invalid.
    let invalid = if place.class == Class::Raw { "return" } else { "drop" };
    let (keys, verdict) = match random.below(if place.level == 0 { 6 } else { 4 }) {
        0 => (
            "tcp dport { 22, 80, 443 }",
            format!("tcp dport vmap {{ 22 : return, 80 : jump {one}, 443 : goto {other} }}"),
        ),
        1 => (
            "",
            format!(
                "ct state vmap {{ new : jump {one}, established : accept, related : return, \
                 invalid : {invalid}, untracked : goto {other} }}"
            ),
        ),
        2 => (
            "meta l4proto { tcp, udp }",
            format!("meta l4proto vmap {{ tcp : jump {one}, udp : jump {other} }}"),
        ),
        3 => (
            "iifname { \"toclient\", \"toserver\" }",
            format!("iifname vmap {{ \"toclient\" : goto {one}, \"toserver\" : accept }}"),
        ),
        _ => (
            random.pick(&["udp dport { 7, 9, 53, 80 }", "tcp dport 80"]),
            format!("th dport vmap @{}_verdicts", place.class.prefix()),
        ),
    };
    Parts { before: vec![keys.to_owned()], verdict }
}

/// A translation, with its conditions where it has its own.
fn nat(class: Class, v4: bool, random: &mut Random) -> (&'static str, &'static str) {
    match (class, v4) {
        (Class::Destination, true) => random.pick(&[
            ("ip daddr 10.77.1.1 tcp dport 22", "dnat ip to 10.77.2.2:80"),
            ("ip daddr 10.77.2.2 tcp dport 80", "dnat ip to 10.77.2.2:443"),
            ("ip daddr 10.77.1.1 udp dport 53", "dnat ip to 10.77.2.2"),
            ("udp dport 99", "redirect to :7"),
            ("tcp dport 81", "redirect to :8080"),
            ("udp dport 53", "dnat ip to 10.77.2.2"),
            (
                "ip daddr 10.77.0.0/16 tcp dport { 22, 81 }",
                "dnat ip to tcp dport map { 22 : 10.77.2.2, 81 : 10.77.1.1 }",
            ),
        ]),
        (Class::Destination, false) => random.pick(&[
            ("ip6 daddr fd77:1::1 tcp dport 22", "dnat ip6 to [fd77:2::2]:80"),
            ("ip6 daddr fd77:2::2 tcp dport 80", "dnat ip6 to [fd77:2::2]:443"),
            ("ip6 daddr fd77:1::1 udp dport 53", "dnat ip6 to fd77:2::2"),
            ("udp dport 99", "redirect to :7"),
            ("tcp dport 81", "redirect to :8080"),
            ("udp dport 53", "dnat ip6 to fd77:2::2"),
        ]),
        (Class::Input, true) => ("", "snat ip to 10.77.1.2"),
        (Class::Input, false) => ("", "snat ip6 to fd77:1::2"),
        (_, true) => random.pick(&[
            ("", "masquerade"),
            ("oifname \"toserver\"", "masquerade"),
            ("", "snat ip to 10.77.2.1"),
            ("", "snat ip to 10.77.2.1:5000-5999"),
            ("oifname \"toclient\"", "masquerade random"),
        ]),
        (_, false) => random.pick(&[
            ("", "masquerade"),
            ("oifname \"toserver\"", "masquerade"),
            ("", "snat ip6 to fd77:2::1"),
            ("", "snat ip6 to [fd77:2::1]:5000-5999"),
            ("oifname \"toclient\"", "masquerade random"),
        ]),
    }
}
