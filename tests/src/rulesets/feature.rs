//! What a rule has in it, so that a run can say which features met a packet.

/// Every feature, by its name and the words that show it in a rule of nft or of iptables.
pub const FEATURES: [(&str, &[&str]); 27] = [
    ("jump", &["jump ", "-j marks", "-j fw", "-j sec", "-j early", "-j dst", "-j src", "-j in"]),
    ("goto", &["goto ", "-g "]),
    ("return", &["return", "-j RETURN"]),
    ("accept", &["accept", "-j ACCEPT"]),
    ("drop", &["drop", "-j DROP"]),
    ("reject", &["reject", "-j REJECT"]),
    ("reject with reset", &["with tcp reset", "with tcp-reset"]),
    ("mark set", &["meta mark set 0x", "-j MARK"]),
    ("mark from connmark", &["meta mark set ct mark", "--restore-mark"]),
    ("connmark set", &["ct mark set 0x", "CONNMARK --set"]),
    ("connmark from mark", &["ct mark set meta mark", "--save-mark"]),
    ("mark matched", &["meta mark 0", "meta mark &", "-m mark"]),
    ("connmark matched", &["ct mark 0", "ct mark &", "-m connmark"]),
    ("ct state", &["ct state", "--ctstate", "--state"]),
    ("anonymous set", &[" {", "--dports"]),
    ("named set", &["@"]),
    ("concatenation", &["@pairs"]),
    ("verdict map", &["vmap {"]),
    ("named verdict map", &["_verdicts"]),
    ("snat", &["snat ", "-j SNAT"]),
    ("dnat", &["dnat ip", "-j DNAT"]),
    ("dnat by map", &["dport map"]),
    ("masquerade", &["masquerade", "-j MASQUERADE"]),
    ("redirect", &["redirect", "-j REDIRECT"]),
    ("notrack", &["notrack"]),
    ("interface", &["iifname", "oifname", "-i to", "-o to"]),
    ("local address", &["fib daddr type local", "--dst-type LOCAL"]),
];

/// Names of the features of a rule.
pub fn features(rule: &str) -> impl Iterator<Item = &'static str> {
    FEATURES
        .iter()
        .filter(move |(_, words)| words.iter().any(|word| rule.contains(word)))
        .map(|(name, _)| *name)
}
