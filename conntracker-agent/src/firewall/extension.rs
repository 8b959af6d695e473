//! What the targets of xtables do with a packet (iptables-extensions(8), net/netfilter/xt_*.c).

use super::action::Action;

/// Targets after which the packet goes on to the next rule. Some drop a packet that they cannot change (TCPMSS on a
/// broken header); the verdict of the hook shows that.
const GO_ON: &[&str] = &[
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CONNMARK",
    "CONNSECMARK",
    "CT",
    "DNPT",
    "DSCP",
    "ECN",
    "HL",
    "HMARK",
    "IDLETIMER",
    "LED",
    "LOG",
    "MARK",
    "NFLOG",
    "NOTRACK",
    "RATEEST",
    "SECMARK",
    "SET",
    "SNPT",
    "TCPMSS",
    "TCPOPTSTRIP",
    "TEE",
    "TOS",
    "TRACE",
    "TTL",
    "ULOG",
];

/// What a target can do, besides letting the packet go on.
pub(super) fn actions(target: &str) -> &'static [Action] {
    match target {
        "ACCEPT" => &[Action::Accept],
        "DROP" => &[Action::Drop],
        "RETURN" => &[Action::Return],
        "REJECT" => &[Action::Reject],
        "QUEUE" | "NFQUEUE" => &[Action::Queue],
        "DNAT" | "SNAT" | "MASQUERADE" | "REDIRECT" | "NETMAP" => &[Action::Nat],
        "TPROXY" => &[Action::Accept, Action::Drop],
        "SYNPROXY" => &[Action::Synproxy],
        _ if GO_ON.contains(&target) => &[],
        _ => &[Action::Unknown],
    }
}
