//! Kinds of expressions, identified by the address of their operations.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use anyhow::Result;

use crate::bpf::index::{
    layout::NfTables,
    memory::{Gone, Reader, u32_at},
};

/// Name of the expression that counts.
const COUNTER: &str = "counter";

/// Name of the expression that looks for an element of a set or map.
const LOOKUP: &str = "lookup";

/// The properties of all expressions with the same `struct nft_expr_ops`.
#[derive(Clone)]
pub(super) struct Expression {
    /// Bytes of the expression.
    pub size: u64,
    /// Whether it is a counter of its rule.
    pub counts: bool,
    /// Whether it looks for an element of a set or map.
    pub looks_up: bool,
    /// Address of the function that evaluates it; 0 if nft_do_chain evaluates it itself.
    pub eval: u64,
    /// `nft_expr_type.name`.
    pub name: Arc<str>,
}

/// The kinds that were met, which are few and looked up all the time.
#[derive(Default)]
pub(super) struct Expressions(HashMap<u64, Expression>);

impl Expressions {
    pub fn get(
        &mut self,
        reader: &mut Reader<'_>,
        layout: &NfTables,
        ops: u64,
    ) -> Result<&Expression> {
        Ok(match self.0.entry(ops) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(read(reader, layout, ops)?),
        })
    }
}

fn read(reader: &mut Reader<'_>, layout: &NfTables, ops: u64) -> Result<Expression> {
    let wanted = [layout.ops_size, layout.ops_type, layout.ops_eval].map(|at| ops.wrapping_add(at));
    let words = reader.words(&wanted)?;
    let [size, kind, eval] = *words.as_slice() else { return Err(Gone.into()) };
    let size = u64::from(u32_at(&size.to_ne_bytes(), 0));
    if size == 0 {
        return Err(Gone.into());
    }
    let name = reader.word(kind.wrapping_add(layout.type_name))?;
    let name = reader.string::<16>(name)?;
    let (counts, looks_up) = (name == COUNTER, name == LOOKUP);
    Ok(Expression { size, counts, looks_up, eval, name: name.into() })
}
