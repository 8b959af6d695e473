//! Rules that were met in order, and the steps that follow.

use SolvedVerdict::{Accept, Drop};

use super::language::{Named, counted, solved};
use crate::attribution::{Match, SolvedVerdict, Spot, replay};

/// `in/1 in/3=accept` as matches: a rule by its chain and position, and what it did if it says so.
fn matches(named: &Named, seen: &str) -> Vec<Match> {
    seen.split_whitespace()
        .map(|word| {
            let (rule, verdict) = word.split_once('=').map_or((word, None), |(r, v)| (r, Some(v)));
            let (chain, position) = rule.split_once('/').unwrap();
            let index = position.parse::<u32>().unwrap() - 1;
            let verdict = verdict.map(|verdict| match verdict {
                "accept" => Accept,
                "continue" => SolvedVerdict::Continue,
                "drop" => Drop,
                "return" => SolvedVerdict::Return,
                other => SolvedVerdict::Jump(named.chain(other)),
            });
            Match { spot: Spot { chain: named.chain(chain), index }, verdict }
        })
        .collect()
}

/// Replays what was met in base chain `in`, which its function left by `end`.
#[track_caller]
fn check(ruleset: &str, seen: &str, end: SolvedVerdict, want: &str) {
    let named = counted(ruleset);
    let base = named.chain("in");
    let solution = replay(&named.program, base, &matches(&named, seen), end);
    assert_eq!(solved(&named, &solution), want, "{seen}");
}

const RULES: &str = "
    base in accept
        - continue
        - jump user
        - drop
    chain user
        - return
        - accept
        - goto other
    chain other
        - continue";

#[test]
fn rules_without_counters_tell_the_whole_way() {
    for (seen, end, want) in [
        ("", Accept, "in/end accept exact"),
        ("in/1", Accept, "in/1 continue exact, in/end accept exact"),
        ("in/2 user/2", Accept, "in/2 jump user exact, user/2 accept exact"),
        (
            "in/1 in/2 user/1",
            Accept,
            "in/1 continue exact, in/2 jump user exact, user/1 return exact, in/end accept exact",
        ),
        (
            "in/2 user/3 other/1",
            Accept,
            "in/2 jump user exact, user/3 goto other exact, other/1 continue exact, \
             other/end return exact, in/end accept exact",
        ),
        ("in/2 in/3", Drop, "in/2 jump user exact, user/end return exact, in/3 drop exact"),
    ] {
        check(RULES, seen, end, want);
    }
}

#[test]
fn verdicts_of_maps_are_those_that_were_seen() {
    let maps = "
        base in drop
            - accept|drop|jump user
        chain user
            - accept|return";
    check(maps, "in/1=accept", Accept, "in/1 accept exact");
    check(maps, "in/1=drop", Drop, "in/1 drop exact");
    check(maps, "in/1=continue", Drop, "in/1 continue exact, in/end drop exact");
    check(
        maps,
        "in/1=user user/1=return",
        Drop,
        "in/1 jump user exact, user/1 return exact, in/end drop exact",
    );
}

#[test]
fn what_cannot_have_happened_is_a_contradiction_and_says_the_chain_alone() {
    for seen in ["other/1", "in/2 user/2 in/3", "in/1 in/1", "in/3"] {
        check(RULES, seen, Accept, "in accept chain (Contradiction)");
    }
    // An extension dropped it: the rules up to there were met all the same.
    check(RULES, "in/1", Drop, "in/1 continue exact, in drop chain (Unexplained)");
}
