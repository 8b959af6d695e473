//! Kernel memory laid out by hand, for tests of the walkers and for the fuzzer.

use std::collections::BTreeMap;

use anyhow::Result;

use super::memory::{Gone, Memory};
use crate::bpf::{
    btf::{BtfError, MemberAt, Members},
    symbols::{Kallsyms, Symbols},
};

/// Memory by address; what was never written cannot be read.
#[derive(Default)]
pub struct Image(pub BTreeMap<u64, u8>);

impl Image {
    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        self.0.extend((at..).zip(bytes.iter().copied()));
    }

    pub fn word(&mut self, at: u64, word: u64) {
        self.put(at, &word.to_ne_bytes());
    }
}

impl Memory for Image {
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
    ("net", "nf.hooks_ipv6", 40),
    ("net", "gen", 88),
    ("net", "nft.gencursor", 100),
    ("net_generic", "ptr", 8),
    ("nftables_pernet", "base_seq", 16),
    ("nf_hook_entries", "hooks", 8),
    ("nf_hook_entry", "priv", 8),
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
pub struct Offsets {
    pub arrays: bool,
}

impl Members for Offsets {
    fn offset(&self, strukt: &str, path: &str) -> Result<u32, BtfError> {
        // Old kernels have these, and not those.
        let absent =
            if self.arrays { path == "nft.base_seq" } else { path.starts_with("rules_gen") };
        if absent {
            return Err(BtfError::NoMember { name: strukt.to_owned(), path: path.to_owned() });
        }
        let known = OFFSETS.iter().find(|(s, p, _)| (*s, *p) == (strukt, path));
        Ok(known.map_or(0, |(_, _, offset)| *offset))
    }

    fn bit_field(&self, strukt: &str, path: &str) -> Result<MemberAt, BtfError> {
        let known = BITS.iter().find(|(s, p, ..)| (*s, *p) == (strukt, path));
        let absent = || BtfError::NoMember { name: strukt.to_owned(), path: path.to_owned() };
        known.map(|(_, _, bit, bits)| MemberAt { bit: *bit, bits: *bits }).ok_or_else(absent)
    }
}

pub const NET: u64 = 0x1000;
pub const TABLE: u64 = 0x2000;
pub const OPS_CMP: u64 = 0x3000;
pub const OPS_COUNTER: u64 = 0x3100;
pub const EVAL_COUNTER: u64 = 0xcccc;

/// Operations of an expression: size, function, type, and the type's name.
pub fn expression(memory: &mut Image, ops: u64, size: u32, eval: u64, name: &str) {
    memory.put(ops, &size.to_ne_bytes());
    memory.word(ops + 4, 0);
    memory.word(ops + 8, ops + 0x40);
    memory.word(ops + 16, eval);
    memory.word(ops + 0x40, ops + 0x60);
    memory.put(ops + 0x60, &[0; 16]);
    memory.put(ops + 0x60, name.as_bytes());
}

/// Expressions as (operations, size, first word of data).
pub fn expressions(expressions: &[(u64, u64, u64)]) -> Vec<u8> {
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
pub fn rule(handle: u64, wanted: &[(u64, u64, u64)]) -> Vec<u8> {
    let expressions = expressions(wanted);
    let mut bytes = (handle << 13 | (expressions.len() as u64) << 1).to_ne_bytes().to_vec();
    bytes.extend(expressions);
    bytes
}

/// A rule before Linux 5.17, with generation mask and user data behind its expressions.
pub fn old_rule(memory: &mut Image, at: u64, handle: u64, wanted: &[(u64, u64, u64)]) {
    let expressions = expressions(wanted);
    memory.put(at, &[0xaa; 16]);
    memory.word(at + 16, handle | 2 << 42 | (expressions.len() as u64) << 44 | 1 << 56);
    memory.put(at + 24, &expressions);
    memory.word(at + 24 + expressions.len() as u64, u64::MAX);
}

/// A chain whose active rules are in the given blob.
pub fn chain(memory: &mut Image, at: u64, next: u64, handle: u64, blob: Option<(u64, &[u8])>) {
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

pub fn operations(memory: &mut Image) {
    // Comparisons are evaluated in nft_do_chain itself.
    expression(memory, OPS_CMP, 32, 0, "cmp");
    expression(memory, OPS_COUNTER, 16, EVAL_COUNTER, "counter");
}

pub fn nft_memory() -> Image {
    let mut memory = Image::default();
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

/// Where old rules stand, 0x100 bytes apart, and how many there are.
pub const OLD_RULES: u64 = 0xc000;
pub const OLD_COUNT: u64 = 40;

/// A chain as before Linux 5.17. The second of its rules has no counter.
pub fn old_memory() -> Image {
    let mut memory = Image::default();
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

/// An entry of ip_tables with a target, 112 bytes and the target's own.
pub fn entry(target: &str, data: &str, counter: u64) -> Vec<u8> {
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

/// A table with a built-in chain, one of a user, and a target that is a function.
pub fn legacy_blob() -> Vec<u8> {
    [
        entry("", "", 10),
        entry("", "", 11),
        entry("REJECT", "", 12),
        entry("", "", 13),
        entry("ERROR", "mine", 0),
        entry("", "", 14),
        entry("", "", 15),
        entry("ERROR", "ERROR", 0),
    ]
    .concat()
}

pub const XT_TABLE: u64 = 0x8000;
pub const XT_INFO: u64 = 0x9000;
/// Targets: one that `ipt_do_table` evaluates itself, and one that is a function.
pub const XT_STANDARD: u64 = 0xa000;
pub const XT_REJECT: u64 = 0xb000;
pub const REJECT_TG: u64 = 0xffff_0001;

pub fn legacy_memory(blob: &[u8], begins: [u32; 5]) -> Image {
    let mut memory = Image::default();
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

/// Functions at hooks.
pub const SYMBOLS: [(u64, &str); 3] = [
    (0xffff_ffff_c000_1000, "nft_do_chain_ipv4"),
    (0xffff_ffff_c000_2000, "nf_nat_ipv4_in"),
    (0xffff_ffff_c000_3000, "ipt_do_table"),
];

pub fn symbols() -> Result<Symbols> {
    let line = |(at, name)| format!("{at:x} t {name}\n");
    Ok(Symbols::of(&Kallsyms::parse(SYMBOLS.map(line).concat())?))
}

/// An array of functions at a hook, as (function, private pointer, priority).
fn hook(memory: &mut Image, at: u64, functions: &[(u64, u64, i32)]) {
    let number = functions.len() as u64;
    memory.word(at, number);
    for (i, (function, private, priority)) in (0..).zip(functions) {
        memory.word(at + 8 + i * 16, *function);
        memory.word(at + 16 + i * 16, *private);
        let registered = at + 0x200 + i * 16;
        memory.word(at + 8 + number * 16 + i * 8, registered);
        memory.word(registered, u64::from(priority.cast_unsigned()));
    }
}

/// A namespace with base chains at two hooks, one of them below NAT; it counts commits as before Linux 6.17.
pub fn hooks_memory() -> Image {
    let [nft, nat, legacy] = SYMBOLS.map(|(at, _)| at);
    let (first, below, second, generic, pernet) = (0x4800, 0x4c00, 0x5000, 0x5800, 0x5c00);
    let mut memory = Image::default();
    memory.put(NET, &[0; 96]);
    memory.word(NET, first);
    memory.word(NET + 40 + 3 * 8, second);
    memory.word(NET + 88, generic);
    hook(&mut memory, first, &[(nft, 0x4000, -300), (nat, 0x4400, -100)]);
    memory.word(0x4400, below);
    hook(&mut memory, below, &[(nft, 0x4100, -90)]);
    hook(&mut memory, second, &[(legacy, XT_TABLE, 0)]);
    memory.word(0x4000 + 32, TABLE);
    // Its only table hangs in the list that begins in the second of two parts.
    memory.word(TABLE, pernet);
    memory.word(generic, 2);
    memory.word(generic + 8, 0);
    memory.word(generic + 16, pernet);
    memory.word(pernet, TABLE);
    memory.word(pernet + 16, 41);
    memory
}
