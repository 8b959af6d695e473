//! The rulesets that packets meet while they are measured.

use std::fmt::Write;

/// What a router does anyway for a packet of a known flow.
pub const FIREWALL: &str = "
table inet firewall {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related counter accept
        ct state invalid drop
        meta l4proto udp counter accept
    }
}
";

/// Sets nftrace on every packet.
pub const NFTRACE: &str = "
table inet conntracker_bench_trace {
    chain prerouting { type filter hook prerouting priority -350; meta nftrace set 1; }
}
";

/// Base chains of 5, 50 and 500 rules on three hooks, all of which every packet is compared with: each
/// rule counts, the last one of each chain matches.
pub fn three_chains() -> String {
    let mut text = String::from("table inet firewall {\n");
    let chains =
        [("prerouting", "mangle", 5), ("forward", "filter", 50), ("postrouting", "mangle", 500)];
    for (hook, priority, rules) in chains {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "chain {hook} {{ type filter hook {hook} priority {priority}; policy accept;"
        );
        for rule in 1..rules {
            let (address, port) = (rule % 250 + 1, 10_000 + rule);
            let _ = writeln!(text, "ip saddr 198.51.100.{address} udp dport {port} counter drop");
        }
        text.push_str("ct state new,established,related counter accept\n}\n");
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_rules_as_promised() {
        assert_eq!(three_chains().matches(" counter ").count(), 555);
    }
}
