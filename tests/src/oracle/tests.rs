//! Messages of a real kernel (Linux 6.18), and the two oracles of the kernel against its own tools.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::netlink::messages;
use super::nftrace::What;
use super::*;
use crate::burst::{self, Services};
use crate::lab::Lab;
use crate::rulesets::{Kind, ORACLE_TABLE, Ruleset};
use crate::tracer::L4;

/// Our own rule, with the headers of an echo request.
const BEGIN: &str = "a4000000110a000000000000000000000100000008000f0000000002080004000000000308000600030cbc45\
     08000200707265000e00010063745f6f7261636c650000000c00030000000000000000030c00050008000100\
     ffffffff08000a000000000206000b0000010000180008004500001c3a7e40004001e8c50a4d01020a4d0202\
     0c0009000800b32244dc000112000700e61398af4de5425cdb57f34208000000";
/// ip_tables: raw, PREROUTING, rule 1.
const LEGACY: &str = "b000000000040000000000000000000002000000080001000800000022000a0054524143453a207261773a50\
     5245524f5554494e473a72756c653a312000000008000400000000021000080000060000425cdb57f3420000\
     06000f000001000006001100000e000012001000e61398af4de5425cdb57f342080000001400030000000000\
     6b00c9ae0000000000031297200009004500001c3a7e40004001e8c50a4d01020a4d02020800b32244dc0001";
/// A rule with a jump; with what conntrack thinks.
const JUMP: &str = "d4000000110a000000000000000000000200000008000f0000000002080004000000000308000600030cbc45\
     07000200666f000006000100660000000c00030000000000000000051400050008000100fffffffd06000200\
     7500000008000a000000000206000b000001000008000c000000000306000d0000010000180008004500001c\
     3a7e40003f01e9c50a4d01020a4d02020c0009000800b32244dc000112000700e61398af4de5425cdb57f342\
     080000000800150000000008050013000000000008001200703f6be60800140000000100";
/// The end of a user chain: a rule without a handle.
const END: &str = "48000000110a000000000000000000000200000008000f0000000002080004000000000308000600030cbc45\
     060002007500000006000100660000000c00050008000100ffffffff";
/// The policy of a base chain, with a packet mark.
const POLICY: &str = "4c000000110a000000000000000000000200000008000f0000000002080004000000000108000600030cbc45\
     07000200666f00000600010066000000080010000000000108000e0000000005";
/// ip_tables: a user chain at the hook forward, and a mark.
const LEGACY_USER: &str = "bc0000000004000000000000000000000200000008000100080002001f000a0054524143453a2066696c7465\
     723a75313a72657475726e3a3220000008000400000000020800050000000003080002000000000710000800\
     00060000425cdb57f342000006000f000001000006001100000e000012001000e61398af4de5425cdb57f342\
     0800000014000300000000006b00c9ae0000000000031297200009004500001c3a7e40003f01e9c50a4d0102\
     0a4d02020800b32244dc0001";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().map(|digit| digit.to_digit(16).unwrap().try_into().unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn messages_of_nf_tables_are_read() {
    let decode = |hex, check: &dyn Fn(nftrace::Event<'_>)| {
        let bytes = bytes(hex);
        check(nftrace::Event::decode(&messages(&bytes).unwrap()[0]).unwrap());
    };
    decode(BEGIN, &|event| {
        let heads = event.heads.unwrap();
        assert_eq!((heads.tuple.proto, heads.error), (1, false));
        assert_eq!(heads.tuple.l4, L4::Icmp(8, 0, 0x44dc));
        assert_eq!(heads.tuple.src, IpAddr::from([10, 77, 1, 2]));
        assert_eq!((event.family, event.table, event.chain), ("inet", "ct_oracle", "pre"));
        assert_eq!((event.state, event.mark), (None, 0));
    });
    decode(JUMP, &|event| {
        let verdict = Verdict::Jump("u".to_owned());
        assert_eq!(event.what, What::Rule { handle: Some(5), verdict });
        assert_eq!(event.state, Some(State { name: "new", reply: false }));
    });
    decode(END, &|event| {
        assert_eq!(event.what, What::Rule { handle: None, verdict: Verdict::Continue });
        assert!(event.heads.is_none());
    });
    decode(POLICY, &|event| {
        assert_eq!((event.what, event.mark), (What::Policy(Verdict::Accept), 5));
    });
}

#[test]
fn messages_of_ip_tables_are_read() {
    let (first, second, nft) = (bytes(LEGACY), bytes(LEGACY_USER), bytes(BEGIN));
    let event = nflog::Event::decode(&messages(&first).unwrap()[0]).unwrap().unwrap();
    assert_eq!((event.family, event.table, event.chain), ("ip", "raw", "PREROUTING"));
    assert_eq!((event.hook, event.position, event.mark), (Hook::Prerouting, 1, 0));
    let traced = nftrace::Event::decode(&messages(&nft).unwrap()[0]).unwrap();
    assert_eq!(Some(event.heads), traced.heads, "the same packet");
    let event = nflog::Event::decode(&messages(&second).unwrap()[0]).unwrap().unwrap();
    assert_eq!((event.table, event.chain, event.hook), ("filter", "u1", Hook::Forward));
    assert_eq!((event.position, event.mark), (2, 7));
}

#[test]
fn messages_cut_short_are_errors() {
    for hex in [BEGIN, JUMP, POLICY, LEGACY] {
        let bytes = bytes(hex);
        for length in 16..bytes.len() {
            if let Ok(found) = messages(&bytes[..length]) {
                for message in found {
                    // They may say less, but may not panic.
                    let _ = nftrace::Event::decode(&message);
                    let _ = nflog::Event::decode(&message);
                }
            }
        }
    }
}

/// Rules, ends and policies by chain and verdict, with how often they were met.
type Counts = BTreeMap<(String, String), usize>;

fn count(traced: &Collection) -> Counts {
    let mut counts = Counts::new();
    for step in traced.packets.iter().flat_map(|packet| &packet.runs).flat_map(|run| &run.steps) {
        let chain = format!("{} {} {}", step.chain.family, step.chain.table, step.chain.name);
        let verdict = match (&step.kind, &step.verdict) {
            (StepKind::Policy, verdict) => format!("policy {verdict}"),
            // Of the end of a user chain nft says nothing.
            (StepKind::Return, _) => continue,
            (_, Verdict::Reject) => Verdict::Drop.to_string(),
            (_, verdict) => verdict.to_string(),
        };
        *counts.entry((chain, verdict)).or_default() += 1;
    }
    counts
}

#[test]
fn nft_monitor_trace_says_the_same() {
    let lab = Lab::new().unwrap();
    let _services = Services::start(&lab).unwrap();
    let mut oracle = Oracle::start(&lab.router).unwrap();
    let ruleset = Ruleset::generate(Kind::Nft, 1);
    ruleset.load(&lab.router).unwrap();
    let mut listing = Listing::default();
    listing.add_nft(&lab.router).unwrap();
    // `nft monitor` says nothing until there is something to say.
    let monitor = lab.router.spawn(["nft", "monitor", "trace"]).unwrap();
    while !monitor.stdout().contains("trace id") {
        let flows = burst::flows(&lab, 1);
        drop(burst::send(&lab, &flows[..1]).unwrap());
        oracle.collect(&listing, Duration::from_millis(50)).unwrap();
    }
    let mut before = 0;
    while monitor.stdout().len() != before {
        before = monitor.stdout().len();
        oracle.collect(&listing, Duration::from_millis(500)).unwrap();
    }
    let open = burst::send(&lab, &burst::flows(&lab, 2)).unwrap();
    let ours = count(&oracle.collect(&listing, Duration::from_millis(100)).unwrap());
    drop(open);
    let read = |text: &str| {
        let mut counts = Counts::new();
        for line in text.lines().filter(|line| !line.contains(ORACLE_TABLE)) {
            // trace id 1234 inet fw forward rule … (verdict jump next), … policy accept
            let words: Vec<&str> = line.split_whitespace().collect();
            let chain = words[3..6].join(" ");
            let verdict = match (words[6], line.rsplit_once("(verdict ")) {
                ("policy", _) => format!("policy {}", words[7]),
                ("rule", Some((_, verdict))) => verdict.trim_end_matches(')').to_owned(),
                _ => continue,
            };
            *counts.entry((chain, verdict)).or_default() += 1;
        }
        counts
    };
    let mut theirs = Counts::new();
    for _ in 0..100 {
        theirs = read(&monitor.stdout()[before..]);
        if theirs == ours {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(theirs, ours);
    assert!(ours.values().sum::<usize>() > 200);
}

/// The texts of `TRACE: …` in the order in which they came.
fn traces(oracle: &mut Oracle) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(found) = oracle.socket.receive(Duration::from_millis(100)).unwrap() {
        for message in found.iter().filter(|message| message.kind == nflog::MESSAGE) {
            let event = nflog::Event::decode(message).unwrap().unwrap();
            texts.push(format!("{}:{}:{}", event.table, event.chain, event.position));
        }
    }
    texts
}

#[test]
fn the_target_trace_says_the_same() {
    const RULES: &str = "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n:one -\n:two -\n\
                         -A FORWARD -p icmp -j one\n-A FORWARD -j DROP\n-A one -g two\n\
                         -A two -s 10.77.0.0/16\n-A two -p icmp -j RETURN\nCOMMIT\n\
                         *nat\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n\
                         :POSTROUTING ACCEPT\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n";
    const TRACE: &str =
        "*raw\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n-A PREROUTING -j TRACE\nCOMMIT\n";
    let lab = Lab::new().unwrap();
    let mut oracle = Oracle::start(&lab.router).unwrap();
    let mut ping = |load: &[&str], text: &str| {
        lab.router.run_with_input(["iptables-legacy-restore"], RULES).unwrap();
        lab.router.run_with_input(load, text).unwrap();
        let to = lab.server.v4().into();
        assert_eq!(crate::traffic::ping4(&lab.client, to, 5, 1).unwrap(), 0);
        traces(&mut oracle)
    };
    let mark = "table inet ct_oracle { chain pre { type filter hook prerouting priority -450; \
                meta nftrace set 1; }; }";
    let by_mark = ping(&["nft", "-f", "-"], mark);
    lab.router.nft("flush ruleset").unwrap();
    let mut by_target = ping(&["iptables-legacy-restore"], TRACE);
    // Its own table.
    by_target.retain(|text| !text.starts_with("raw:"));
    let expected =
        ["nat:PREROUTING:1", "filter:FORWARD:1", "filter:one:1", "filter:two:1", "filter:two:2"];
    assert_eq!(by_target[..5], expected);
    assert_eq!(by_target, by_mark);
}
