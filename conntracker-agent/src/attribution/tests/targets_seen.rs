//! Targets that a probe watched: what they prove with counters, and without them.

use super::check;

const LOGS: &str = "
    legacy
    base in drop
        w xt
        c jump user
        c jump user
        w reject
    chain user
        w xt
        c return";

#[test]
fn targets_tell_where_counters_were_moved_by_others() {
    check(LOGS, "dropped blind sighted in/4=drop in/2*7", "in/4 reject exact");
    // It has not run: it did not match.
    check(LOGS, "dropped blind sighted", "in/end drop inferred");
    check(
        LOGS,
        "dropped blind sighted in/1=continue user/1=continue in/4=drop",
        "in/1 continue exact, user/1 continue exact, in/4 reject exact",
    );
}

#[test]
fn the_order_of_targets_is_the_order_of_rules() {
    // Counters alone leave open in which of two visits the user chain's rule matched.
    let counters = "in/1 in/2 in/3 user/1 user/2*1 user/end*1 in/4";
    let order = "in/1=continue user/1=continue in/4=drop";
    check(
        LOGS,
        &format!("dropped {counters} sighted {order}"),
        "in/1 continue exact, in/2 jump user exact, in/3 jump user exact, in/4 reject exact, \
         user/1 continue exact somewhere, user/2 return exact somewhere, \
         user/end return exact somewhere",
    );
    // A target of the user chain that ran before the base chain's first rule: not in these rules.
    check(
        LOGS,
        "dropped blind sighted user/1=continue in/1=continue in/4=drop",
        "in drop chain (Contradiction)",
    );
}

const TWICE: &str = "
    legacy
    base in accept
        c jump user
        w xt
        c jump user
        w xt
    chain user
        w xt";

#[test]
fn a_target_between_two_visits_tells_them_apart() {
    let ran = |order: &str| {
        format!("passed in/1 in/2 in/3 in/4 in/end user/1 user/end*2 sighted {order}")
    };
    check(
        TWICE,
        &ran("user/1=continue in/2=continue in/4=continue"),
        "in/1 jump user exact, user/1 continue exact, user/end return exact, in/2 continue exact, \
         in/3 jump user exact, user/end return exact, in/4 continue exact, in/end accept exact",
    );
    check(
        TWICE,
        &ran("in/2=continue user/1=continue in/4=continue"),
        "in/1 jump user exact, user/end return exact, in/2 continue exact, in/3 jump user exact, \
         user/1 continue exact, user/end return exact, in/4 continue exact, in/end accept exact",
    );
}

#[test]
fn what_a_target_said_is_its_verdict() {
    let new = "
    legacy
    base in accept
        w unknown
        w xt";
    check(
        new,
        "passed in/1 in/end sighted in/1=continue",
        "in/1 continue exact, in/end accept exact",
    );
    check(new, "passed in/1 sighted in/1=accept", "in/1 accept exact");
    // Extensions drop packets that they cannot change.
    check(
        new,
        "dropped in/1 in/2 sighted in/1=continue in/2=drop",
        "in/1 continue exact, in/2 drop exact (Unexplained)",
    );
    // The counter of the first moved, and its target did not run: the target is right about the packet.
    check(new, "passed in/1 in/end sighted", "in/end accept exact");
}
