//! Rules of chains, in either layout of kernels ([`Rules`]).

use std::sync::Arc;

use anyhow::Result;

use super::{MOST_CHAINS, expressions::Expressions};
use crate::bpf::index::{
    layout::{Bits, NfTablesLayout, RuleHeader, Rules},
    memory::{Gone, Reader, u64_at},
};

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NftRule {
    /// Handle.
    pub handle: u64,
    /// Per-CPU pointer to its counter; the last one if it has several.
    pub counter: Option<u64>,
    /// Address of its expressions, as the kernel evaluates them.
    pub at: u64,
    /// Bytes of its expressions.
    pub len: u64,
    /// The function that evaluates its last expression; `None` if `nft_do_chain` evaluates it itself, or if the rule
    /// has no expression.
    pub last: Option<Evaluator>,
    /// The functions that evaluate earlier expressions which may end the rule with a verdict: verdict maps.
    pub early: Vec<Evaluator>,
}

impl NftRule {
    /// The functions whose end shows whether a packet matched.
    pub fn evaluators(&self) -> impl Iterator<Item = &Evaluator> {
        self.early.iter().chain(&self.last)
    }
}

/// An expression that the kernel evaluates by a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluator {
    /// Address of the `struct nft_expr`.
    pub expression: u64,
    /// Address of the function (`nft_expr_ops.eval`).
    pub eval: u64,
    /// What it is: `immediate`, `reject`, … (`nft_expr_type.name`).
    pub name: Arc<str>,
}

/// Bytes of an array of rules that are read at first.
const FIRST_BYTES: u64 = 256;

/// A page of memory is readable up to its end if any of it is.
const PAGE: u64 = 4096;

/// What it takes to read rules.
pub(super) struct RuleReader<'a, 'm> {
    pub reader: &'a mut Reader<'m>,
    pub layout: &'a NfTablesLayout,
    pub expressions: &'a mut Expressions,
}

impl RuleReader<'_, '_> {
    /// Active rules of each chain, in order. A chain that is being created has none yet.
    pub fn of_chains(&mut self, chains: &[u64], second: bool) -> Result<Vec<Vec<NftRule>>> {
        let (Rules::Blobs { chain, .. } | Rules::Arrays { chain, .. }) = self.layout.rules;
        let active: Vec<u64> =
            chains.iter().map(|at| at.wrapping_add(chain[usize::from(second)])).collect();
        let active = self.reader.words(&active)?;
        match self.layout.rules {
            Rules::Blobs { size, data, rule, is_last, .. } => {
                let sizes: Vec<u64> = active
                    .iter()
                    .filter(|blob| **blob != 0)
                    .map(|blob| blob.wrapping_add(size))
                    .collect();
                let mut sizes = self.reader.words(&sizes)?.into_iter();
                let mut blob = |blob: u64| {
                    let len = if blob == 0 { 0 } else { sizes.next().unwrap_or(0) };
                    self.in_blob(blob.wrapping_add(data), len, rule, is_last)
                };
                active.into_iter().map(&mut blob).collect()
            }
            Rules::Arrays { rule, .. } => {
                active.into_iter().map(|array| self.in_array(array, rule)).collect()
            }
        }
    }

    /// Consecutive rules, `len` bytes from address `begin` on.
    fn in_blob(
        &mut self,
        begin: u64,
        len: u64,
        header: RuleHeader,
        is_last: Bits,
    ) -> Result<Vec<NftRule>> {
        let blob = self.reader.bytes(begin, len)?;
        let mut rules = Vec::new();
        let mut at = 0;
        while at + header.data <= len {
            if is_last.get(&blob, at) != 0 {
                return Ok(rules);
            }
            let (handle, expressions) = (header.handle.get(&blob, at), at + header.data);
            let end = expressions + header.len.get(&blob, at);
            if end > len {
                break;
            }
            let bytes = &blob[expressions as usize..end as usize];
            rules.push(self.rule(handle, begin.wrapping_add(expressions), bytes)?);
            at = end;
        }
        // The blob's size does not include the rule that marks the end.
        if at == len { Ok(rules) } else { Err(Gone.into()) }
    }

    /// Rules by an array of pointers.
    fn in_array(&mut self, array: u64, header: RuleHeader) -> Result<Vec<NftRule>> {
        let rules = self.pointers(array)?;
        let headers: Vec<(u64, u64)> = rules.iter().map(|rule| (*rule, header.data)).collect();
        let headers = self.reader.stretches(&headers)?;
        let lens: Vec<u64> = (0..rules.len() as u64)
            .map(|number| header.len.get(&headers, number * header.data))
            .collect();
        let expressions: Vec<(u64, u64)> = rules
            .iter()
            .zip(&lens)
            .map(|(rule, len)| (rule.wrapping_add(header.data), *len))
            .collect();
        let bytes = self.reader.stretches(&expressions)?;
        let mut rest = bytes.as_slice();
        let mut found = Vec::with_capacity(rules.len());
        for (number, (at, len)) in (0..).zip(expressions) {
            let (own, others) = rest.split_at_checked(len as usize).ok_or(Gone)?;
            let handle = header.handle.get(&headers, number * header.data);
            found.push(self.rule(handle, at, own)?);
            rest = others;
        }
        Ok(found)
    }

    /// The pointers of an array that ends with a zero. The kernel does not store its length.
    fn pointers(&mut self, array: u64) -> Result<Vec<u64>> {
        let mut pointers = Vec::new();
        if array == 0 {
            return Ok(pointers);
        }
        let (mut at, mut step) = (array, FIRST_BYTES);
        while pointers.len() <= MOST_CHAINS {
            let len = step.min(PAGE - at % PAGE);
            for word in self.reader.bytes(at, len)?.chunks_exact(8) {
                match u64_at(word, 0) {
                    0 => return Ok(pointers),
                    rule => pointers.push(rule),
                }
            }
            at = at.wrapping_add(len);
            step = PAGE;
        }
        Err(Gone.into())
    }

    /// A rule by its expressions, which are at address `at`.
    fn rule(&mut self, handle: u64, at: u64, bytes: &[u8]) -> Result<NftRule> {
        let NfTablesLayout { tables, counter_pointer, lookup, .. } = self.layout;
        let len = bytes.len() as u64;
        let mut rule = NftRule { handle, at, len, ..NftRule::default() };
        let gives_verdict = |data| lookup.is_none_or(|lookup| lookup.gives_verdict(bytes, data));
        let mut next = 0;
        while next < len {
            let ops = u64_at(bytes, next + tables.expr_ops);
            let expression = self.expressions.get(self.reader, tables, ops)?;
            if expression.counts {
                rule.counter = Some(u64_at(bytes, next + tables.expr_data + counter_pointer));
            }
            let this = next;
            next += expression.size;
            if expression.eval == 0 {
                continue;
            }
            let evaluator = || Evaluator {
                expression: at.wrapping_add(this),
                eval: expression.eval,
                name: Arc::clone(&expression.name),
            };
            if next >= len {
                rule.last = Some(evaluator());
            } else if expression.looks_up && gives_verdict(this + tables.expr_data) {
                rule.early.push(evaluator());
            }
        }
        Ok(rule)
    }
}
