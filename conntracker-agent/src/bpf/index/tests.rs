//! The readers on memory that was laid out by hand, with valid contents and with garbage.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use proptest::prelude::*;

use super::{
    layout::IndexLayout,
    legacy,
    memory::{Gone, Memory, Reader},
    nft::{self, Evaluator, NftRule},
};
use crate::bpf::btf::{BtfError, MemberAt, Members};

/// Memory by address; what was never written cannot be read.
#[derive(Default)]
struct Fake(BTreeMap<u64, u8>);

impl Fake {
    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.0.extend((at..).zip(bytes.iter().copied()));
    }

    fn word(&mut self, at: u64, word: u64) {
        self.put(at, &word.to_ne_bytes());
    }
}

impl Memory for Fake {
    fn pieces(&mut self, pieces: &[(u64, u32)]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for &(address, len) in pieces {
            for at in 0..u64::from(len) {
                let byte = address.checked_add(at).and_then(|at| self.0.get(&at));
                bytes.push(*byte.ok_or(Gone)?);
            }
        }
        Ok(bytes)
    }
}

/// Offsets of what is not at the beginning of its structure here.
const OFFSETS: &[(&str, &str, u32)] = &[
    ("nft_chain", "blob_gen_1", 8),
    ("nft_chain", "rules_gen_1", 8),
    ("nft_chain", "list", 16),
    ("nft_chain", "table", 32),
    ("nft_chain", "handle", 40),
    ("nft_table", "chains", 8),
    ("nft_table", "handle", 24),
    ("nft_rule_blob", "data", 8),
    ("nft_expr", "data", 8),
    ("nft_lookup", "dreg", 9),
    ("nft_lookup", "binding.flags", 12),
    ("nft_expr_ops", "type", 8),
    ("nft_expr_ops", "eval", 16),
    ("nft_rule_dp", "data", 8),
    ("nft_rule", "data", 24),
    ("net", "nft.gencursor", 100),
    ("xt_table", "private", 8),
    ("xt_table", "name", 16),
    ("xt_table_info", "hook_entry", 16),
    ("xt_table_info", "entries", 64),
    ("xt_entry_target", "u.kernel.target", 8),
    ("xt_target", "target", 48),
    ("ipt_entry", "target_offset", 88),
    ("ipt_entry", "next_offset", 90),
    ("ipt_entry", "counters", 96),
];

/// Bit fields: first bit and number of bits.
const BITS: &[(&str, &str, u32, u32)] = &[
    ("nft_rule_dp", "is_last", 0, 1),
    ("nft_rule_dp", "dlen", 1, 12),
    ("nft_rule_dp", "handle", 13, 42),
    ("nft_rule", "handle", 128, 42),
    ("nft_rule", "dlen", 172, 12),
];

/// A kernel of which these are the members; with rule blobs, or arrays as before Linux 5.17.
struct FakeBtf {
    arrays: bool,
}

impl Members for FakeBtf {
    fn offset(&self, strukt: &str, path: &str) -> Result<u32, BtfError> {
        if path.starts_with("rules_gen") && !self.arrays {
            return Err(BtfError::NoMember { name: strukt.to_owned(), path: path.to_owned() });
        }
        let known = OFFSETS.iter().find(|(s, p, _)| (*s, *p) == (strukt, path));
        Ok(known.map_or(0, |(_, _, offset)| *offset))
    }

    fn bit_field(&self, strukt: &str, path: &str) -> Result<MemberAt, BtfError> {
        let known = BITS.iter().find(|(s, p, ..)| (*s, *p) == (strukt, path)).unwrap();
        Ok(MemberAt { bit: known.2, bits: known.3 })
    }
}

fn layout(arrays: bool) -> IndexLayout {
    IndexLayout::find(&FakeBtf { arrays }).unwrap()
}

const NET: u64 = 0x1000;
const TABLE: u64 = 0x2000;
const OPS_CMP: u64 = 0x3000;
const OPS_COUNTER: u64 = 0x3100;
const EVAL_COUNTER: u64 = 0xcccc;

/// Operations of an expression: size, function, type, and the type's name.
fn expression(memory: &mut Fake, ops: u64, size: u32, eval: u64, name: &str) {
    memory.put(ops, &size.to_ne_bytes());
    memory.word(ops + 4, 0);
    memory.word(ops + 8, ops + 0x40);
    memory.word(ops + 16, eval);
    memory.word(ops + 0x40, ops + 0x60);
    memory.put(ops + 0x60, &[0; 16]);
    memory.put(ops + 0x60, name.as_bytes());
}

/// Expressions as (operations, size, first word of data).
fn expressions(expressions: &[(u64, u64, u64)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (ops, size, data) in expressions {
        let mut expression = ops.to_ne_bytes().to_vec();
        expression.extend(data.to_ne_bytes());
        expression.resize(*size as usize, 0);
        bytes.extend(expression);
    }
    bytes
}

/// A rule of a blob: header and expressions.
fn rule(handle: u64, wanted: &[(u64, u64, u64)]) -> Vec<u8> {
    let expressions = expressions(wanted);
    let mut bytes = (handle << 13 | (expressions.len() as u64) << 1).to_ne_bytes().to_vec();
    bytes.extend(expressions);
    bytes
}

/// A rule before Linux 5.17, with generation mask and user data behind its expressions.
fn old_rule(memory: &mut Fake, at: u64, handle: u64, wanted: &[(u64, u64, u64)]) {
    let expressions = expressions(wanted);
    memory.put(at, &[0xaa; 16]);
    memory.word(at + 16, handle | 2 << 42 | (expressions.len() as u64) << 44 | 1 << 56);
    memory.put(at + 24, &expressions);
    memory.word(at + 24 + expressions.len() as u64, u64::MAX);
}

/// A chain whose active rules are in the given blob.
fn chain(memory: &mut Fake, at: u64, next: u64, handle: u64, blob: Option<(u64, &[u8])>) {
    memory.word(at, 0);
    memory.word(at + 8, blob.map_or(0, |(at, _)| at));
    memory.word(at + 16, next);
    memory.word(at + 32, TABLE);
    memory.word(at + 40, handle);
    if let Some((at, bytes)) = blob {
        memory.word(at, bytes.len() as u64);
        memory.put(at + 8, bytes);
    }
}

fn operations(memory: &mut Fake) {
    // Comparisons are evaluated in nft_do_chain itself.
    expression(memory, OPS_CMP, 32, 0, "cmp");
    expression(memory, OPS_COUNTER, 16, EVAL_COUNTER, "counter");
}

fn nft_memory() -> Fake {
    let mut memory = Fake::default();
    memory.put(NET + 100, &[1, 0, 0, 0, 0, 0, 0, 0]);
    operations(&mut memory);
    let mut rules = rule(5, &[(OPS_CMP, 32, 7), (OPS_COUNTER, 16, 0xaaa0)]);
    rules.extend(rule(9, &[(OPS_CMP, 32, 7)]));
    rules.extend(rule(6, &[(OPS_COUNTER, 16, 1), (OPS_COUNTER, 16, 0xbbb0)]));
    let (first, second) = (0x4000, 0x5000);
    memory.word(TABLE + 8, first + 16);
    memory.word(TABLE + 24, 77);
    chain(&mut memory, first, second + 16, 1, Some((0x6000, &rules)));
    chain(&mut memory, second, TABLE + 8, 2, None);
    memory
}

fn read_nft(memory: &mut Fake) -> Result<Vec<nft::NftChain>> {
    read_nft_of(memory, false)
}

fn read_nft_of(memory: &mut Fake, arrays: bool) -> Result<Vec<nft::NftChain>> {
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
    let mut memory = Fake::default();
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

/// Where old rules stand, 0x100 bytes apart, and how many there are.
const OLD_RULES: u64 = 0x10_0000;
const OLD_COUNT: u64 = 40;

/// A chain as before Linux 5.17. The second of its rules has no counter.
fn old_memory() -> Fake {
    let mut memory = Fake::default();
    memory.put(NET + 100, &[1, 0, 0, 0, 0, 0, 0, 0]);
    operations(&mut memory);
    memory.word(TABLE + 8, 0x4000 + 16);
    memory.word(TABLE + 24, 77);
    chain(&mut memory, 0x4000, TABLE + 8, 1, None);
    // The array begins at the end of a page, and goes on for more than what is read at first.
    let array = 0x6ff0;
    memory.word(0x4000 + 8, array);
    memory.put(array, &[0; 16 + 4096]);
    for number in 0..OLD_COUNT {
        let at = OLD_RULES + number * 0x100;
        memory.word(array + number * 8, at);
        let both = [(OPS_CMP, 32, 7), (OPS_COUNTER, 16, 0xaaa0 + number)];
        old_rule(&mut memory, at, number + 5, if number == 1 { &both[..1] } else { &both });
    }
    memory
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

/// An entry of ip_tables with a target, 112 bytes and the target's own.
fn entry(target: &str, data: &str, counter: u64) -> Vec<u8> {
    let mut bytes = vec![0; 88];
    let len = 112 + 32 + 32u16;
    bytes.extend(112u16.to_ne_bytes());
    bytes.extend(len.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(counter.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(64u16.to_ne_bytes());
    bytes.extend(target.as_bytes());
    // The kernel has a pointer there, over the end of the name.
    bytes.resize(112 + 8, 0);
    let kind = if target == "REJECT" { XT_REJECT } else { XT_STANDARD };
    bytes.extend(kind.to_ne_bytes());
    bytes.resize(112 + 32, 0);
    bytes.extend(data.as_bytes());
    bytes.resize(len.into(), 0);
    bytes
}

const XT_TABLE: u64 = 0x8000;
const XT_INFO: u64 = 0x9000;
/// Targets: one that `ipt_do_table` evaluates itself, and one that is a function.
const XT_STANDARD: u64 = 0xa000;
const XT_REJECT: u64 = 0xb000;
const REJECT_TG: u64 = 0xffff_0001;

fn legacy_memory(blob: &[u8], begins: [u32; 5]) -> Fake {
    let mut memory = Fake::default();
    memory.word(XT_TABLE + 8, XT_INFO);
    memory.put(XT_TABLE + 16, &[0; 32]);
    memory.put(XT_TABLE + 16, b"filter");
    memory.word(XT_INFO, blob.len() as u64);
    let begins: Vec<u8> = begins.iter().flat_map(|begin| begin.to_ne_bytes()).collect();
    memory.put(XT_INFO + 16, &begins);
    memory.put(XT_INFO + 64, blob);
    memory.word(XT_STANDARD + 48, 0);
    memory.word(XT_REJECT + 48, REJECT_TG);
    memory
}

fn read_legacy(memory: &mut Fake) -> Result<legacy::LegacyTable> {
    let [v4, _] = layout(false).legacy;
    legacy::read(&mut Reader::new(memory), &v4.unwrap(), XT_TABLE, false, false)
}

#[test]
fn chains_of_a_legacy_table_are_told_apart() {
    let blob = [
        entry("", "", 10),
        entry("", "", 11),
        entry("REJECT", "", 12),
        entry("", "", 13),
        entry("ERROR", "mine", 0),
        entry("", "", 14),
        entry("", "", 15),
        entry("ERROR", "ERROR", 0),
    ]
    .concat();
    let none = u32::MAX;
    let mut memory = legacy_memory(&blob, [none, 0, 176, none, none]);
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
