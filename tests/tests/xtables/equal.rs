//! The same rules of iptables in three forms: as iptables-legacy loads them, as iptables-nft does, and translated by
//! iptables-restore-translate and loaded by nft. Random packets get the same answers from all of them.
//!
//! `CONNTRACKER_XT_RULESETS` is the number of rulesets, `CONNTRACKER_XT_PACKETS` that of packets for each.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::net::IpAddr;

use conntracker::firewall::evaluate::interface::Interface;
use conntracker::firewall::evaluate::journey::Ending;
use conntracker::firewall::evaluate::packet::{Layer3, Packet, PacketType, Side};
use conntracker::firewall::evaluate::routes::{Route, RouteQuery, RouteType, Routes};
use conntracker::firewall::evaluate::state::EvaluatedStep;
use conntracker::firewall::evaluate::tracking::Tracking;
use conntracker::firewall::evaluate::unknown::{Attr, Attribute, UnknownSet};
use conntracker::firewall::evaluate::word::Word;
use conntracker::firewall::evaluate::{Evaluation, Firewall, Origin, evaluate};
use conntracker::firewall::legacy::raw;
use conntracker::model::path::{CtState, Direction};
use conntracker::model::{L4, Status, Tuple};
use conntracker::netlink::nftables::{dump::Dump, ruleset};
use conntracker_tests::is_quick;
use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::rulesets::{Kind, Random, Ruleset};

const RULESETS: usize = 100;
const QUICK_RULESETS: usize = 20;
const PACKETS: usize = 1_000;
const QUICK_PACKETS: usize = 500;

fn count(variable: &str, usual: usize, quick: usize) -> usize {
    let usual = if is_quick() { quick } else { usual };
    env::var(variable).map_or(usual, |count| count.parse().unwrap())
}

/// IPS_SRC_NAT_DONE and IPS_DST_NAT_DONE.
const NAT_DONE: u32 = 1 << 7 | 1 << 8;

/// The router of the lab: two links, routes to both networks.
pub struct RouterOfLab;

impl RouterOfLab {
    fn is_local(to: IpAddr) -> bool {
        const LOCAL: [&str; 6] =
            ["10.77.1.1", "10.77.2.1", "127.0.0.1", "fd77:1::1", "fd77:2::1", "::1"];
        LOCAL.iter().any(|local| *local == to.to_string())
    }
}

impl Routes for RouterOfLab {
    fn depends_on_source(&self) -> bool {
        false
    }

    fn route(&self, query: &RouteQuery<'_>) -> Attr<Route> {
        let text = query.to.to_string();
        let to_client = text.starts_with("10.77.1.") || text.starts_with("fd77:1::");
        let to_others = text.starts_with("10.78.") || text.starts_with("fd78:");
        let to_server = text.starts_with("10.77.2.") || text.starts_with("fd77:2::");
        let (kind, name) = match Self::is_local(query.to) {
            true => (RouteType::Local, "lo"),
            false if to_client || to_others => (RouteType::Unicast, "toclient"),
            false if to_server => (RouteType::Unicast, "toserver"),
            false => (RouteType::Unspec, "lo"),
        };
        Ok(Route { kind, interface: Some(Interface::named(name)), source: None })
    }

    fn address_type(&self, query: &RouteQuery<'_>) -> Attr<RouteType> {
        Ok(if Self::is_local(query.to) { RouteType::Local } else { RouteType::Unicast })
    }

    fn address_of(
        &self,
        interface: &Interface,
        layer3: Layer3,
        _: Option<IpAddr>,
    ) -> Attr<Option<IpAddr>> {
        let net = if interface.name == Interface::named("toclient").name { 1 } else { 2 };
        let text = match layer3 {
            Layer3::Ip => format!("10.77.{net}.1"),
            Layer3::Ip6 => format!("fd77:{net}::1"),
        };
        Ok(Some(text.parse().unwrap()))
    }
}

const V4: [&str; 7] =
    ["10.77.1.2", "10.77.1.1", "10.77.2.1", "10.77.2.2", "10.78.0.9", "10.78.200.9", "192.0.2.7"];
const V6: [&str; 7] =
    ["fd77:1::2", "fd77:1::1", "fd77:2::1", "fd77:2::2", "fd78::1:9", "fd78::2:9", "2001:db8::7"];
const PORTS: [u16; 12] = [7, 9, 20, 22, 53, 80, 81, 99, 443, 1024, 8080, 40_000];

/// A packet, and where it comes from.
fn packet(random: &mut Random) -> (Packet, Origin) {
    let v6 = random.chance(50);
    let addresses = if v6 { &V6 } else { &V4 };
    let [src, dst] = [0, 1].map(|_| random.pick(addresses).parse().unwrap());
    let icmp = if v6 { 58 } else { 1 };
    let proto = random.pick(&[6, 6, 17, 17, icmp, 132, 47]);
    let l4 = match proto {
        6 | 17 | 132 => L4::Ports { src: random.pick(&PORTS), dst: random.pick(&PORTS) },
        1 | 58 => {
            let kind = random.pick(if v6 { &[128, 129, 1] } else { &[8, 0, 3] });
            L4::Icmp { kind, code: 0, id: 7 }
        }
        _ => L4::None,
    };
    let tuple = Tuple { src, dst, proto, l4 };
    let mut packet = Packet::of(&tuple).unwrap();
    packet.set_tcp_flags(random.pick(&[0x02, 0x12, 0x10, 0x18, 0x11, 0x04]), 0xff);
    packet.set_ttl(random.pick(&[2, 63, 64, 65, 255]));
    packet.set_length(random.pick(&[40, 60, 80, 81, 1500]));
    packet.set_dscp_and_ecn(random.pick(&[0, 0x10, 0xb8]));
    packet.packet_type = Ok(PacketType::Host);
    packet.mark = Word::new(random.pick(&[0, 0, 1, 2, 0x10, 0x12]), Attribute::Mark.into());
    packet.owner = Ok(None);
    packet.tracking = tracking(random, &tuple);
    let local = RouterOfLab::is_local(src);
    if local {
        return (packet, Origin::Local);
    }
    let name = random.pick(&["toclient", "toserver", "other"]);
    packet.input = Ok(Some(Interface::named(name)));
    packet.output = Ok(None);
    (packet, Origin::Received)
}

/// Makes something unknown.
fn forget(random: &mut Random, packet: &mut Packet) {
    match random.below(6) {
        0 => packet.tracking.state = Err(Attribute::CtState.into()),
        1 => packet.mark = Word::partly(0x1, 0xf, Attribute::Mark.into()),
        2 => packet.forget_port(Side::Destination),
        3 => packet.forget_address(Side::Source),
        4 => packet.tracking.mark = Word::unknown(Attribute::CtMark.into()),
        _ => packet.input = Err(Attribute::InputInterface.into()),
    }
}

fn tracking(random: &mut Random, tuple: &Tuple) -> Tracking {
    let entry = Tracking::first(tuple);
    match random.below(5) {
        0 => Tracking::without_entry(CtState::Invalid),
        1 | 2 if entry.has_entry() == Ok(true) => {
            let state = random.pick(&[CtState::Established, CtState::Related]);
            let direction = random.pick(&[Direction::Original, Direction::Reply]);
            let status = random.pick(&[0, 1, 4 | 8]);
            let mark = random.pick(&[0, 1, 2]);
            let (original, reply) = match direction {
                Direction::Original => (entry.original, entry.reply),
                Direction::Reply => (entry.reply, entry.original),
            };
            Tracking {
                state: Ok(state),
                direction: Ok(direction),
                status: Word::new(
                    status | NAT_DONE | Status::CONFIRMED.0,
                    Attribute::CtStatus.into(),
                ),
                mark: Word::new(mark, Attribute::CtMark.into()),
                original,
                reply,
                ..entry
            }
        }
        _ => entry,
    }
}

/// What counts of an answer: the ends, each with what became of the packet.
fn answer(evaluation: &Evaluation) -> Vec<String> {
    let end = |ending: &Ending| {
        let packet = &ending.packet;
        let tracking = &packet.tracking;
        format!(
            "{:?}, mark {:x}/{:x}, connmark {:x}/{:x}, {:?} {:?}",
            ending.fate,
            packet.mark.value(),
            packet.mark.known(),
            tracking.mark.value(),
            tracking.mark.known(),
            tracking.state,
            tracking.reply,
        )
    };
    let mut all: Vec<String> = evaluation.endings.iter().map(end).collect();
    all.sort();
    all.dedup();
    all
}

/// The steps of each end, for a complaint.
fn steps(firewall: &Firewall, evaluation: &Evaluation) -> Vec<Vec<String>> {
    let step = |step: &EvaluatedStep| {
        let site = firewall.site(step.chain, step.index).unwrap();
        format!("{} {} {}: {:?}", site.table, site.chain, site.position.unwrap(), step.verdict)
    };
    let end = |ending: &Ending| ending.steps.iter().map(step).collect();
    evaluation.endings.iter().map(end).collect()
}

fn firewall(host: &Host) -> Firewall {
    let dump = host.enter(|| Ok(Dump::read()?)).unwrap();
    let legacy = host.enter(raw::read).unwrap();
    let legacy: Vec<_> = legacy.iter().map(|table| table.decode().unwrap()).collect();
    Firewall::new(&ruleset::tables(&dump).unwrap(), &legacy)
}

/// The rules of each family, without the table `security`: its priority is 50 in ip_tables, 150 as iptables-nft makes
/// it, and 0 as iptables-restore-translate writes it (1.8.9), so that the three forms mean different things.
fn loads(ruleset: &Ruleset) -> impl Iterator<Item = (&'static str, String)> {
    ruleset.loads.iter().filter_map(|(program, text)| {
        let v6 = match *program {
            "iptables-nft-restore" => "",
            "ip6tables-nft-restore" => "6",
            _ => return None,
        };
        let end = text.find("*security").unwrap_or(text.len());
        // Where `-m udp ! --dport` follows `-p udp` it loses the negation.
        Some((v6, text[..end].replace("! --dport", "--dport")))
    })
}

#[test]
fn three_forms_of_the_same_rules_give_equal_answers() {
    let rulesets = count("CONNTRACKER_XT_RULESETS", RULESETS, QUICK_RULESETS);
    let packets = count("CONNTRACKER_XT_PACKETS", PACKETS, QUICK_PACKETS);
    let (mut fates, mut undecided) = (BTreeMap::<String, usize>::new(), 0);
    let mut reasons = BTreeMap::<String, usize>::new();
    for number in 0..rulesets {
        let ruleset = Ruleset::generate(Kind::IptablesNft, number as u32);
        // Each form has a namespace of its own.
        let lab = Lab::new().unwrap();
        let [legacy, translated, nft] = lab.hosts();
        for (v6, text) in loads(&ruleset) {
            let load =
                |host: &Host, program: String| host.run_with_input([program], &text).unwrap();
            load(nft, format!("ip{v6}tables-nft-restore"));
            load(legacy, format!("ip{v6}tables-legacy-restore"));
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &text).unwrap();
            let program = format!("ip{v6}tables-restore-translate");
            let path = file.path().to_str().unwrap();
            let nft_text = translated.run([program.as_str(), "-f", path]).unwrap();
            translated.nft(&nft_text).unwrap();
        }
        let forms = [legacy, nft, translated].map(firewall);
        let mut random = Random::new(5_000_000 + number as u64);
        for _ in 0..packets {
            let (mut packet, origin) = packet(&mut random);
            let whole = random.chance(70);
            if !whole {
                forget(&mut random, &mut packet);
            }
            let [legacy, nft, translated] =
                [0, 1, 2].map(|form| evaluate(&forms[form], packet.clone(), origin, &RouterOfLab));
            let answers = [&legacy, &nft, &translated].map(answer);
            let evaluations = [&legacy, &nft, &translated];
            let steps = || [0, 1, 2].map(|form| steps(&forms[form], evaluations[form]));
            let equal = if whole {
                answers[0] == answers[1] && answers[1] == answers[2]
            } else {
                // One of them may see that an unknown makes no difference where another one does not.
                let decided: BTreeSet<_> =
                    evaluations.iter().filter_map(|of| of.fate().ok()).map(|of| of as u8).collect();
                decided.len() <= 1
            };
            assert!(
                equal,
                "ruleset {number}: {packet:?} {origin:?}\n{answers:#?}\n{:#?}\n{ruleset}",
                steps()
            );
            match legacy.fate() {
                Ok(fate) => *fates.entry(format!("{fate:?}")).or_default() += 1,
                Err(why) => {
                    undecided += 1;
                    for reason in UnknownSet::iter(why) {
                        *reasons.entry(reason.to_string()).or_default() += 1;
                    }
                }
            }
        }
    }
    let all = rulesets * packets;
    println!("{rulesets} rulesets, {all} packets: {fates:?}, undecided {undecided} by {reasons:?}");
    assert!(fates.len() >= 3, "{fates:?}");
}
