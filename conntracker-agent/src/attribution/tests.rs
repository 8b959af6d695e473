//! Rulesets of a few lines, observations, and the steps that follow.

mod answered;
mod fields;
mod interpreter;
mod language;
mod plain;
mod property;
mod random;
mod replay;
mod targets_seen;

use std::fmt::Write;

use self::language::{counted, observe, solved};
use super::{Finding, Observation, Packet, solve};
use crate::model::path::Outcome;

/// Solves and compares. Rulesets are in the words of `language`.
#[track_caller]
fn check(ruleset: &str, seen: &str, want: &str) {
    let program = counted(ruleset);
    let solution = solve(&program.program, None, &observe(&program, seen));
    assert_eq!(solved(&program, &solution), want, "{seen} in {ruleset}");
}

const NFT: &str = "
    base in accept
        c continue
        c jump user
        c drop
    chain user
        c return
        c accept
        c goto other
    chain other
        c continue";

#[test]
fn counters_of_nft_tell_the_whole_way() {
    for (seen, want) in [
        ("passed", "in/end accept exact"),
        ("passed in/1", "in/1 continue exact, in/end accept exact"),
        (
            "passed in/1 in/2 user/1",
            "in/1 continue exact, in/2 jump user exact, user/1 return exact, in/end accept exact",
        ),
        ("passed in/2 user/2", "in/2 jump user exact, user/2 accept exact"),
        (
            "passed in/2 user/3 other/1",
            "in/2 jump user exact, user/3 goto other exact, other/1 continue exact, \
             other/end return exact, in/end accept exact",
        ),
        ("dropped in/2 in/3", "in/2 jump user exact, user/end return exact, in/3 drop exact"),
    ] {
        check(NFT, seen, want);
    }
}

const LEGACY: &str = "
    legacy
    base in drop
        c return
        c jump user
        c goto user
        c accept
    chain user
        c return
        c drop";

#[test]
fn ends_count_in_ip_tables() {
    for (seen, want) in [
        // ipt_do_table: RETURN in a built-in chain goes to the underflow entry, which counts.
        ("dropped in/1 in/end", "in/1 return exact, in/end drop exact"),
        ("dropped in/end", "in/end drop exact"),
        (
            "passed in/2 in/4 user/end",
            "in/2 jump user exact, user/end return exact, in/4 accept exact",
        ),
        ("passed in/2 in/4 user/1", "in/2 jump user exact, user/1 return exact, in/4 accept exact"),
        (
            "dropped in/3 in/end user/end",
            "in/3 goto user exact, user/end return exact, in/end drop exact",
        ),
        ("dropped in/3 user/2", "in/3 goto user exact, user/2 drop exact"),
    ] {
        check(LEGACY, seen, want);
    }
}

#[test]
fn a_chain_that_is_met_twice() {
    let ruleset = "
        base in accept
            c jump user
            c continue
            c jump user
        chain user
            c return
            c continue";
    check(
        ruleset,
        "passed in/1 in/3 user/1*2",
        "in/1 jump user exact, user/1 return exact, in/3 jump user exact, user/1 return exact, \
         in/end accept exact",
    );
    check(
        ruleset,
        "passed in/1 in/3 user/2*2",
        "in/1 jump user exact, user/2 continue exact, user/end return exact, in/3 jump user exact, \
         user/2 continue exact, user/end return exact, in/end accept exact",
    );
    // Each happened once, but their order is unknown.
    check(
        ruleset,
        "passed in/1 in/3 user/1 user/2",
        "in/1 jump user exact, in/3 jump user exact, in/end accept exact, \
         user/1 return exact somewhere, user/2 continue exact somewhere",
    );
}

#[test]
fn a_chain_that_two_base_chains_lead_to() {
    let ruleset = "
        base a accept
            - jump user
            c continue
        base b accept
            c jump onwards
            c continue
        chain onwards
            - jump user
        chain user
            c continue";
    check(
        ruleset,
        "passed a/2 b/1 b/2 user/1",
        "a/2 continue exact, a/end accept inferred, b/1 jump onwards exact, \
         onwards/end return inferred, b/2 continue exact, b/end accept inferred, \
         user/1 continue exact somewhere",
    );
}

#[test]
fn what_is_open_is_left_open() {
    for (ruleset, seen, want) in [
        // Counterless jump: the counter behind it shows that it was taken.
        (
            "base in accept
                - jump user
                c continue
            chain user
                c continue",
            "passed user/1",
            "in/1 jump user evaluated, user/1 continue exact, user/end return evaluated, \
             in/end accept evaluated",
        ),
        // Rule or policy?
        (
            "base in accept
                - accept
                c continue",
            "passed",
            "in accept chain",
        ),
        // The counter behind it moved: the rule did not match.
        (
            "base in accept
                - accept
                c continue",
            "passed in/2",
            "in/2 continue exact, in/end accept evaluated",
        ),
        // Only one rule drops.
        (
            "base in accept
                - accept
                - drop",
            "dropped",
            "in/2 drop evaluated",
        ),
        (
            "base in drop
                - accept
                - drop",
            "dropped",
            "in drop chain",
        ),
        // What sets a mark decides nothing.
        (
            "base in accept
                - continue
                b continue
                c continue",
            "passed in/2 in/3",
            "in/3 continue exact, in/end accept exact",
        ),
        // Reached, matched or not.
        (
            "base in accept
                b accept",
            "passed in/1",
            "in accept chain",
        ),
        (
            "base in accept
                b accept",
            "passed",
            "in/end accept exact",
        ),
        (
            "base in drop
                b accept",
            "passed in/1",
            "in/1 accept evaluated",
        ),
        // A verdict map.
        (
            "base in drop
                b accept|jump user
            chain user
                c accept",
            "passed in/1 user/1",
            "in/1 jump user evaluated, user/1 accept exact",
        ),
        (
            "base in drop
                b accept|jump user
            chain user
                c accept",
            "passed in/1",
            "in/1 accept evaluated",
        ),
        (
            "base in drop
                - accept|queue",
            "passed",
            "in/1 unknown inferred",
        ),
    ] {
        check(ruleset, seen, want);
    }
}

#[test]
fn several_base_chains_on_a_hook() {
    let ruleset = "
        base a accept
            c continue
            c drop
        base b accept
            - drop
        base c drop
            c accept
            - drop";
    for (seen, want) in [
        (
            "passed a/1 c/1",
            "a/1 continue exact, a/end accept exact, b/end accept evaluated, c/1 accept exact",
        ),
        ("dropped a/2", "a/2 drop exact"),
        ("dropped a/1", "a/1 continue exact, a/end accept exact, b unknown chain, c unknown chain"),
        ("dropped among=0..0 a/2", "a/2 drop exact"),
        ("dropped among=1..1", "a/end accept exact, b/1 drop evaluated"),
        ("dropped among=2..2", "a/end accept exact, b/end accept evaluated, c drop chain"),
        ("dropped among=1..1 elsewhere=1", "a/end accept exact, b unknown chain"),
    ] {
        check(ruleset, seen, want);
    }
}

#[test]
fn translation_ends_the_nat_chains() {
    let ruleset = "
        nat a accept
            c nat
        nat b accept
            c continue
        base c accept";
    for (seen, want) in [
        ("passed a/1", "a/1 accept exact, c/end accept exact"),
        (
            "passed b/1",
            "a/end accept exact, b/1 continue exact, b/end accept exact, c/end accept exact",
        ),
        ("dropped a/1", "a/1 drop exact"),
    ] {
        check(ruleset, seen, want);
    }
    // What could not be translated is dropped there, or by the policy behind it.
    check(
        "nat a accept
            c nat
        base c drop",
        "dropped a/1",
        "a/1 unknown exact, c unknown chain",
    );
}

#[test]
fn other_verdicts() {
    for (rule, seen, want) in [
        ("reject", "dropped in/1", "in/1 reject exact"),
        ("queue", "passed in/1", "in/1 queue exact"),
        ("queue", "dropped in/1", "in/1 queue exact"),
        ("fwd", "dropped in/1", "in/1 stolen exact"),
        ("synproxy", "dropped in/1", "in/1 unknown inferred"),
        ("unknown", "dropped in/1", "in/1 drop exact"),
        ("unknown", "passed in/1", "in/1 unknown exact, in accept chain"),
        ("wander", "passed in/1", "in/1 unknown exact, in accept chain"),
        // Targets that go on drop what they cannot change.
        ("xt", "passed in/1", "in/1 continue exact, in/end accept exact"),
        ("xt", "dropped in/1", "in/1 unknown exact, in drop chain (Unexplained)"),
    ] {
        check(&format!("base in accept\n c {rule}"), seen, want);
    }
}

#[test]
fn without_counters_only_structure_speaks() {
    for (ruleset, seen, want) in [
        ("base in accept", "passed blind", "in/end accept evaluated"),
        ("base in accept\n c accept", "passed blind", "in accept chain"),
        ("base in accept\n c drop", "dropped blind in/1", "in/1 drop evaluated"),
        ("base in accept\n c continue", "passed blind in/1", "in/end accept evaluated"),
    ] {
        check(ruleset, seen, want);
    }
}

#[test]
fn what_cannot_be_is_not_explained() {
    for (seen, want) in [
        ("passed in/3", "in accept chain (Contradiction)"),
        ("passed in/2*2", "in accept chain (Contradiction)"),
        ("passed user/1", "in accept chain (Contradiction)"),
        ("dropped in/1", "in/1 continue exact, in drop chain (Unexplained)"),
        ("dropped user/1", "in drop chain (Contradiction)"),
    ] {
        check(NFT, seen, want);
    }
}

#[test]
fn a_chain_that_the_kernel_has_otherwise_hides_its_rules() {
    let ruleset = "
        base in accept
            c continue
            c jump user
            c drop
        differs user
            c accept
        base next accept
            c continue";
    for (seen, want) in [
        (
            "passed in/1 next/1",
            "in/1 continue exact, in/end accept exact, next/1 continue exact, next/end accept exact",
        ),
        (
            "passed in/1 in/2 next/1",
            "in/1 continue exact, in/2 jump user exact, in accept chain, next/1 continue exact, \
             next/end accept exact",
        ),
        ("dropped in/2 in/3", "in/2 jump user exact, in/3 drop exact"),
    ] {
        check(ruleset, seen, want);
    }
}

#[test]
fn chains_that_no_packet_can_come_to_do_not_count() {
    // Their unknown rules could have moved the counters of `user`.
    let mut ruleset = "base in accept\n c jump user\n c accept\n".to_owned();
    ruleset += "differs idle\nchain dead\n - wander\nother out accept\n - wander\nchain user\n";
    let mut seen = "passed in/1 in/2".to_owned();
    let mut want = "in/1 jump user exact, ".to_owned();
    for n in 1..=40 {
        ruleset += " c continue\n";
        write!(seen, " user/{n}").unwrap();
        write!(want, "user/{n} continue exact, ").unwrap();
    }
    check(&ruleset, &seen, &(want + "user/end return exact, in/2 accept exact"));
}

#[test]
fn chains_of_other_hooks_do_not_count() {
    // `user` is called from two base chains, but from one of each hook.
    check(
        "base in accept
            c jump user
        other out accept
            c jump user
        chain user
            c continue",
        "passed in/1 user/1",
        "in/1 jump user exact, user/1 continue exact, user/end return exact, in/end accept exact",
    );
}

#[test]
fn loops_do_not_hang() {
    let ruleset = "
        base in accept
            - goto a
        chain a
            - goto b
        chain b
            - goto a";
    check(ruleset, "passed", "in accept chain (Contradiction)");
}

#[test]
fn too_many_ways_leave_what_counters_told() {
    let mut ruleset = "base in accept\n c continue\n".to_owned();
    for n in 0..200 {
        writeln!(ruleset, " - jump a{}\n - accept", n % 100).unwrap();
    }
    for n in 0..100 {
        writeln!(ruleset, "chain a{n}\n - return\n c continue\n - return").unwrap();
    }
    // Whether the second one of these was met is not known either.
    ruleset += "nat first accept\n c nat\nnat second accept\n c nat\n";
    let program = counted(&ruleset);
    let all: Vec<String> = (0..40).map(|n| format!("a{n}/2")).collect();
    let seen = observe(&program, &format!("passed in/1 {}", all.join(" ")));
    let solution = solve(&program.program, None, &seen);
    assert_eq!(solution.finding, Finding::Exhausted);
    let said = solved(&program, &solution);
    let chains =
        "in/1 continue exact, in accept chain, first accept chain, a0/2 continue exact somewhere";
    assert!(said.starts_with(chains) && solution.steps.len() == 43, "{said}");
}

#[test]
fn a_typical_packet_is_solved_fast() {
    // kube-proxy with iptables: ten thousand services.
    let mut ruleset = "
        legacy
        nat PREROUTING accept
            c jump SERVICES
        chain SERVICES\n"
        .to_owned();
    for n in 0..10_000 {
        writeln!(ruleset, " c jump SVC{n}").unwrap();
    }
    for n in 0..10_000 {
        writeln!(ruleset, "chain SVC{n}\n c jump MARK\n c jump SEP{n}\nchain SEP{n}\n c nat")
            .unwrap();
    }
    ruleset += "chain MARK\n c xt\n";
    let program = counted(&ruleset);
    let seen = observe(
        &program,
        "passed PREROUTING/1 SERVICES/9000 SVC8999/1 MARK/1 MARK/end SVC8999/2 SEP8999/1",
    );
    let start = std::time::Instant::now();
    for _ in 0..100 {
        let solution = solve(&program.program, None, &seen);
        assert_eq!(
            solved(&program, &solution),
            "PREROUTING/1 jump SERVICES exact, SERVICES/9000 jump SVC8999 exact, \
             SVC8999/1 jump MARK exact, MARK/1 continue exact, MARK/end return exact, \
             SVC8999/2 jump SEP8999 exact, SEP8999/1 accept exact",
        );
    }
    // It takes 20 µs in a release build: this only finds what grows with the ruleset.
    assert!(start.elapsed().as_millis() < 1000, "{:?}", start.elapsed());
}

#[test]
fn observations_of_something_else_are_refused() {
    let program = counted(NFT);
    let mut seen = observe(&program, "passed");
    seen.chains[0].0 = 77;
    assert_eq!(solve(&program.program, None, &seen).finding, Finding::Contradiction);
    let empty = Observation {
        chains: Vec::new(),
        among: (0, 0),
        elsewhere: Vec::new(),
        v6: false,
        moved: Vec::new(),
        complete: true,
        targets_seen: None,
        outcome: Outcome::Passed,
        packet: Packet::default(),
    };
    assert_eq!(solve(&program.program, None, &empty).steps, []);
}
