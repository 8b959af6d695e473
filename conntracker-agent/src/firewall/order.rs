//! The order in which tables and chains are shown: that of trace lines.

use super::{
    iptables,
    model::{Chain, Table},
};
use crate::model::{
    hook::Hook,
    table::{Backend, Family},
};

/// Sorts tables (raw, mangle, nat, filter, security of iptables, then others by family and name) and
/// their chains (base chains by hook and name, then user chains by name).
pub(super) fn sort(tables: &mut [Table]) {
    for table in &mut *tables {
        table.chains.sort_by(|a, b| chain_key(a).cmp(&chain_key(b)));
    }
    tables.sort_by(|a, b| table_key(a).cmp(&table_key(b)));
}

fn table_key(table: &Table) -> (usize, Family, &str, Backend) {
    let known = iptables::TABLES.iter().position(|name| table.iptables && table.name == *name);
    (known.unwrap_or(iptables::TABLES.len()), table.family, &table.name, table.backend)
}

fn chain_key(chain: &Chain) -> (bool, Option<Hook>, &str) {
    (chain.base.is_none(), chain.base.as_ref().map(|base| base.hook), &chain.name)
}
