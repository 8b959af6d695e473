//! Rulesets of Debian's firewall programs: paths and verdicts of packets, compared with the kernel's traces, and how many
//! of them are decided.

use conntracker_tests::{
    is_quick,
    lab::Lab,
    programs::{PROGRAMS, banned},
    rulesets::{Kind, Ruleset},
    trial::{
        Bench,
        surroundings::{flows, surroundings},
    },
};

use crate::traces::{Tally, judge};

/// Packets whose verdict is decided, in percent. The path need not be: these programs limit what they log. Of some
/// packets the kernel's trace does not say which state conntrack gave them.
const VERDICTS: usize = 95;

#[test]
fn rulesets_of_programs_do_what_is_said_of_them() {
    let mut tried = 0;
    for program in PROGRAMS {
        if !program.is_installed() || is_quick() && !program.quick {
            println!("{}: not tried", program.name);
            continue;
        }
        let mut bench = Bench::new().unwrap();
        surroundings(&bench.lab).unwrap();
        let flows = flows(&bench.lab, 0);
        let banned = banned(&flows);
        let ruleset =
            Ruleset { kind: Kind::NftBare, number: 0, loads: Vec::new(), chains: Vec::new() };
        let load = |_: &Ruleset, lab: &Lab| program.load(lab, &banned);
        let trial = bench.try_loaded(ruleset, flows, None, load).unwrap();
        let mut tally = Tally::default();
        judge(&bench, &trial, &mut tally);
        assert!(tally.packets > 50, "{}: {} packets", program.name, tally.packets);
        tally.pass(program.name, 0);
        let decided = tally.verdicts * 100 >= tally.plain * VERDICTS;
        assert!(decided, "{}: too few verdicts are decided", program.name);
        tried += 1;
    }
    println!("{tried} programs");
}
