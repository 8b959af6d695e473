//! The readers on memory that was laid out by hand, with valid contents and with garbage.

use std::collections::BTreeSet;

use anyhow::Result;
use proptest::prelude::*;

use super::{
    Generation, hooks,
    image::*,
    layout::IndexLayout,
    legacy,
    memory::{Gone, Memory, Reader},
    nft::{self, Evaluator, NftRule},
};
use crate::bpf::symbols::Function;

fn layout(arrays: bool) -> IndexLayout {
    IndexLayout::find(&Offsets { arrays }).unwrap()
}

fn read_nft(memory: &mut Image) -> Result<Vec<nft::NftChain>> {
    read_nft_of(memory, false)
}

fn read_nft_of(memory: &mut Image, arrays: bool) -> Result<Vec<nft::NftChain>> {
    let layout = layout(arrays).nf_tables.unwrap();
    nft::read(&mut Reader::new(memory), &layout, NET, &BTreeSet::from([0x4000]))
}

fn counter_at(expression: u64) -> Evaluator {
    Evaluator { expression, eval: EVAL_COUNTER, name: "counter".into() }
}

#[test]
fn chains_of_a_table_are_read_with_handles_and_last_counters() {
    let chains = read_nft(&mut nft_memory()).unwrap();
    assert_eq!(chains.len(), 2);
    assert_eq!((chains[0].address, chains[0].handle, chains[0].table), (0x4000, 1, 77));
    let rule = |handle, counter, at, len, last| NftRule {
        handle,
        counter,
        at,
        len,
        last,
        early: Vec::new(),
    };
    let blob = 0x6008;
    assert_eq!(
        chains[0].rules,
        [
            rule(5, Some(0xaaa0), blob + 8, 48, Some(counter_at(blob + 8 + 32))),
            rule(9, None, blob + 64, 32, None),
            rule(6, Some(0xbbb0), blob + 104, 32, Some(counter_at(blob + 104 + 16))),
        ]
    );
    assert_eq!((chains[1].handle, chains[1].rules.len()), (2, 0));
}

#[test]
fn verdict_maps_end_their_rule_early_and_sets_and_other_maps_do_not() {
    const OPS_LOOKUP: u64 = 0x3200;
    let mut memory = Image::default();
    memory.put(NET + 100, &[1, 0, 0, 0, 0, 0, 0, 0]);
    operations(&mut memory);
    expression(&mut memory, OPS_LOOKUP, 32, 0xdddd, "lookup");
    let lookup = |register: u8, flags: u32| {
        let mut rule = rule(5, &[(OPS_LOOKUP, 32, 0), (OPS_COUNTER, 16, 0xaaa0)]);
        rule[8 + 8 + 9] = register;
        rule[8 + 8 + 12..][..4].copy_from_slice(&flags.to_ne_bytes());
        rule
    };
    // A set, a map of marks, a map of verdicts (of intervals); and one that is the end of its rule anyway.
    let mut rules = [lookup(0, 0), lookup(1, 8), lookup(0, 8 | 4)].concat();
    let mut bare = rule(6, &[(OPS_LOOKUP, 32, 0)]);
    bare[8 + 8 + 12] = 8;
    rules.extend(bare);
    memory.word(TABLE + 8, 0x4000 + 16);
    memory.word(TABLE + 24, 77);
    chain(&mut memory, 0x4000, TABLE + 8, 1, Some((0x6000, &rules)));
    let chains = read_nft(&mut memory).unwrap();
    let early: Vec<Vec<u64>> = chains[0]
        .rules
        .iter()
        .map(|rule| rule.early.iter().map(|one| one.expression).collect())
        .collect();
    assert_eq!(early, [vec![], vec![], vec![0x6008 + 2 * 56 + 8], vec![]]);
    let evaluators = chains[0].rules[2].evaluators().map(|one| one.eval);
    assert_eq!(evaluators.collect::<Vec<_>>(), [0xdddd, EVAL_COUNTER]);
}

#[test]
fn rules_of_old_kernels_are_read_by_their_array() {
    let mut memory = old_memory();
    let chains = read_nft_of(&mut memory, true).unwrap();
    let rules = &chains[0].rules;
    assert_eq!(rules.len() as u64, OLD_COUNT);
    let (counter, last) = (Some(0xaaa0), Some(counter_at(OLD_RULES + 24 + 32)));
    let first =
        NftRule { handle: 5, counter, at: OLD_RULES + 24, len: 48, last, early: Vec::new() };
    assert_eq!(rules[0], first);
    assert_eq!((rules[1].handle, rules[1].counter, rules[1].len), (6, None, 32));
    assert_eq!(rules[1].last, None);
    assert_eq!((rules[39].handle, rules[39].counter), (44, Some(0xaaa0 + 39)));
    memory.0.remove(&(OLD_RULES + 0x700 + 30));
    assert!(read_nft_of(&mut memory, true).unwrap_err().is::<Gone>());
}

#[test]
fn the_other_generation_is_the_other_blob() {
    let mut memory = nft_memory();
    memory.put(NET + 100, &[0]);
    let chains = read_nft(&mut memory).unwrap();
    assert!(chains.iter().all(|chain| chain.rules.is_empty()));
}

#[test]
fn memory_that_was_freed_is_gone_and_no_panic() {
    let mut memory = nft_memory();
    memory.0.retain(|at, _| *at != 0x6000 + 8 + 20);
    assert!(read_nft(&mut memory).unwrap_err().is::<Gone>());
    let mut memory = nft_memory();
    // A blob that ends in the middle of a rule.
    memory.word(0x6000, 30);
    assert!(read_nft(&mut memory).unwrap_err().is::<Gone>());
    let mut memory = nft_memory();
    expression(&mut memory, OPS_CMP, 0, 0, "cmp");
    assert!(read_nft(&mut memory).unwrap_err().is::<Gone>());
}

fn read_legacy(memory: &mut Image) -> Result<legacy::LegacyTable> {
    let [v4, _] = layout(false).legacy;
    legacy::read(&mut Reader::new(memory), &v4.unwrap(), XT_TABLE, false, false)
}

#[test]
fn chains_of_a_legacy_table_are_told_apart() {
    let none = u32::MAX;
    let mut memory = legacy_memory(&legacy_blob(), [none, 0, 176, none, none]);
    let table = read_legacy(&mut memory).unwrap();
    assert_eq!(table.name, "filter");
    assert_eq!((table.guard.address, table.guard.value), (XT_TABLE + 8, XT_INFO));
    let chains: Vec<(&str, &[u64])> =
        table.chains.iter().map(|chain| (&*chain.name, &*chain.counters)).collect();
    let expected: [(&str, &[u64]); 3] =
        [("INPUT", &[10]), ("FORWARD", &[11, 12, 13]), ("mine", &[14, 15])];
    assert_eq!(chains, expected);
    let data = XT_INFO + 64 + 2 * 176 + 112 + 32;
    let reject = legacy::LegacyTarget { data, function: REJECT_TG };
    assert_eq!(table.chains[1].targets, [None, Some(reject), None]);
    assert_eq!(table.chains[2].targets, [None, None]);
}

#[test]
fn a_legacy_table_without_an_end_is_gone() {
    let blob = [entry("", "", 10), entry("", "", 11)].concat();
    let mut memory = legacy_memory(&blob, [0, 0, 0, 0, 0]);
    assert!(read_legacy(&mut memory).unwrap_err().is::<Gone>());
}

#[test]
fn functions_at_hooks_are_read_with_those_that_nat_calls() {
    let mut memory = hooks_memory();
    let reader = &mut Reader::new(&mut memory);
    let hooks = hooks::read(reader, &layout(true), &mut symbols().unwrap(), NET).unwrap();
    let found = |v6: usize, hook: usize| -> Vec<_> {
        let functions = hooks[v6][hook].functions.iter();
        functions.map(|f| (f.function, f.private, f.priority, f.nat_priority)).collect()
    };
    assert_eq!(
        found(0, 0),
        [
            (Function::NfTables, 0x4000, -300, None),
            (Function::Nat, 0x4400, -100, None),
            (Function::NfTables, 0x4100, -100, Some(-90)),
        ]
    );
    assert_eq!(found(1, 3), [(Function::Legacy, XT_TABLE, 0, None)]);
    assert_eq!(hooks.iter().flatten().filter(|list| !list.functions.is_empty()).count(), 2);
    assert_eq!((hooks[0][0].guard.address, hooks[0][0].guard.value), (NET, 0x4800));
}

#[test]
fn commits_are_counted_in_the_part_that_the_list_of_tables_begins_in() {
    let mut memory = hooks_memory();
    let layout = layout(true).nf_tables.unwrap();
    let generation = nft::generation(&mut Reader::new(&mut memory), &layout, NET, Some(0x4000));
    assert_eq!(generation.unwrap(), Generation { base_seq_at: 0x5c10, base_seq: 41 });
}

/// Pointers near the end of all addresses, which the offset of a member leads beyond.
#[test]
fn pointers_that_lead_beyond_the_last_address_are_gone_and_no_panic() {
    const LAST: u64 = u64::MAX - 2;
    // A table's pointer in a chain, a table's first chain, a chain's rules.
    for (arrays, at) in [(false, 0x4000 + 32), (false, TABLE + 8), (false, 0x4008), (true, 0x4008)]
    {
        let mut memory = if arrays { old_memory() } else { nft_memory() };
        memory.word(at, LAST);
        assert!(read_nft_of(&mut memory, arrays).unwrap_err().is::<Gone>(), "{at:x}");
    }
    let mut memory = legacy_memory(&legacy_blob(), [0; 5]);
    memory.word(XT_TABLE + 8, LAST);
    assert!(read_legacy(&mut memory).unwrap_err().is::<Gone>());
    // An array of functions, the private pointer of NAT, what a function was registered with.
    for at in [NET, 0x4828, 0x4830] {
        let mut memory = hooks_memory();
        memory.word(at, LAST);
        let reader = &mut Reader::new(&mut memory);
        let hooks = hooks::read_known(reader, &layout(true), &symbols().unwrap(), NET);
        assert!(hooks.unwrap_err().is::<Gone>(), "{at:x}");
    }
    // A table, and the parts of a namespace.
    let tables = layout(true).nf_tables.unwrap();
    for at in [0x4000 + 32, NET + 88] {
        let mut memory = hooks_memory();
        memory.word(at, LAST);
        let generation = nft::generation(&mut Reader::new(&mut memory), &tables, NET, Some(0x4000));
        assert!(generation.unwrap_err().is::<Gone>(), "{at:x}");
    }
}

/// Memory full of zeros, and how much was read of it.
#[derive(Default)]
struct Zeros(u64);

impl Memory for Zeros {
    fn pieces(&mut self, pieces: &[(u64, u32)]) -> Result<Vec<u8>> {
        let len: u64 = pieces.iter().map(|(_, len)| u64::from(*len)).sum();
        self.0 += len;
        Ok(vec![0; len as usize])
    }
}

#[test]
fn no_more_is_read_at_once_than_a_structure_can_have() {
    let mut memory = Zeros::default();
    let mut read = |wanted: &[(u64, u64)]| {
        let found = Reader::new(&mut memory).stretches(wanted);
        (found.map_err(|error| error.is::<Gone>()), std::mem::take(&mut memory.0))
    };
    assert_eq!(read(&[(0, 1000), (9, 24)]), (Ok(vec![0; 1024]), 1024));
    for wanted in [[(0, 64 << 20), (0, 1)], [(0, 64), (0, u64::MAX)]] {
        assert_eq!(read(&wanted), (Err(true), 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn damaged_memory_is_read_or_gone_never_a_panic(
        damage in prop::collection::vec((0usize..400, any::<u8>()), 0..8),
        kind in 0..3,
    ) {
        if kind == 0 {
            let mut blob = [entry("", "", 1), entry("ERROR", "a", 0), entry("", "", 2),
                entry("ERROR", "ERROR", 0)].concat();
            for (at, byte) in damage {
                blob[at] = byte;
            }
            let _ = read_legacy(&mut legacy_memory(&blob, [0; 5]));
        } else {
            let mut memory = if kind == 1 { nft_memory() } else { old_memory() };
            let addresses: Vec<u64> = memory.0.keys().copied().collect();
            for (at, byte) in damage {
                memory.0.insert(addresses[at % addresses.len()], byte);
            }
            let _ = read_nft_of(&mut memory, kind == 2);
        }
    }
}
