//! Packets that a rule rejected with an answer to the sender.

use super::{check, language::counted};

#[test]
fn a_sender_was_told_by_a_rule_that_rejects() {
    const LIMITED: &str = "
        base in accept
            - jump flood
            - jump refuse
        chain flood
            - drop|continue
        chain refuse
            - reject|continue";
    check(LIMITED, "dropped", "in drop chain");
    check(LIMITED, "dropped answered", "in/2 jump refuse inferred, refuse/1 reject inferred");
    // Then something else sent the packet.
    check("base in accept\n - drop", "dropped answered", "in drop chain (Unexplained)");
}

#[test]
fn only_rejects_send_packets_where_every_rule_is_known() {
    for (rule, want) in
        [("reject", true), ("drop", true), ("xt", true), ("unknown", false), ("wander", false)]
    {
        let program = counted(&format!("base in accept\n c {rule}")).program;
        assert_eq!(program.only_rejects_send(), want, "{rule}");
    }
}
