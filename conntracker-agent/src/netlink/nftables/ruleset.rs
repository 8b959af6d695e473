//! Tables, chains and rules of a dump.

use std::collections::HashMap;

use super::{
    super::wire::{DecodeError, Messages, netfilter},
    changes::NFNL_SUBSYS_NFTABLES,
    data::Verdict,
    dump::Dump,
    expression::{Expression, expressions},
    fields::Fields,
    set::{self, Set},
};

/// `enum nf_tables_msg_types`, those that a dump has.
const NEWTABLE: u8 = 0;
const NEWCHAIN: u8 = 3;
const NEWRULE: u8 = 6;
const NEWSET: u8 = 9;
const NEWSETELEM: u8 = 12;
const NEWOBJ: u8 = 18;
const NEWFLOWTABLE: u8 = 22;

/// NFT_TABLE_F_DORMANT.
const DORMANT: u32 = 1;

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Family (NFPROTO_): 1 inet, 2 ip, 3 arp, 5 netdev, 7 bridge, 10 ip6.
    pub family: u8,
    /// Name.
    pub name: String,
    /// Handle.
    pub handle: Option<u64>,
    /// Its base chains are at no hook.
    pub dormant: bool,
    /// Chains, in the order in which they were made.
    pub chains: Vec<Chain>,
    /// Sets and maps.
    pub sets: Vec<Set>,
    /// Objects.
    pub objects: Vec<Object>,
    /// Flowtables.
    pub flowtables: Vec<Flowtable>,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Name.
    pub name: String,
    /// Handle.
    pub handle: Option<u64>,
    /// Flags: 1 base chain, 2 offloaded, 4 bound to a rule.
    pub flags: u32,
    /// Hook, if it is a base chain.
    pub hook: Option<ChainHook>,
    /// Rules in order.
    pub rules: Vec<Rule>,
}

/// The hook of a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainHook {
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// Number (`enum nf_inet_hooks`, `enum nf_dev_hooks`).
    pub number: u32,
    /// Priority.
    pub priority: i32,
    /// Verdict behind the last rule.
    pub policy: Verdict,
    /// Interfaces, of chains in the family netdev and of inet's ingress.
    pub devices: Vec<String>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Handle.
    pub handle: u64,
    /// Expressions in order.
    pub expressions: Vec<Expression>,
}

/// A stateful object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Name.
    pub name: String,
    /// Kind: 1 counter, 2 quota, 3 ct helper, 4 limit, 5 connlimit, 6 tunnel, 7 ct timeout, 8 secmark,
    /// 9 ct expectation, 10 synproxy.
    pub kind: u32,
    /// Name of the helper, of kind 3.
    pub helper: Option<String>,
}

/// A flowtable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flowtable {
    /// Name.
    pub name: String,
    /// Flags: 1 offloaded to hardware, 2 counts.
    pub flags: u32,
}

/// Reads the tables of a dump.
pub fn tables(dump: &Dump) -> Result<Vec<Table>, DecodeError> {
    let mut reader = Reader::default();
    for message in Messages::new(dump.bytes()) {
        let message = message?;
        let [subsystem, kind] = message.kind.to_be_bytes();
        if subsystem != NFNL_SUBSYS_NFTABLES {
            return Err(DecodeError::UnexpectedMessage(message.kind));
        }
        let (family, attributes) = netfilter(message.payload)?;
        let fields = Fields::new(attributes)?;
        match kind {
            NEWTABLE => reader.table(family, &fields)?,
            NEWCHAIN => reader.chain(family, &fields)?,
            NEWRULE => reader.rule(family, &fields)?,
            NEWSET => reader.set(family, &fields)?,
            NEWSETELEM => reader.elements(family, &fields)?,
            NEWOBJ => reader.object(family, &fields)?,
            NEWFLOWTABLE => reader.flowtable(family, &fields)?,
            _ => return Err(DecodeError::UnexpectedMessage(message.kind)),
        }
    }
    Ok(reader.tables)
}

/// The tables so far, and where each table, chain and set is among them.
#[derive(Default)]
struct Reader {
    tables: Vec<Table>,
    by_name: HashMap<(u8, String), usize>,
    chains: HashMap<(usize, String), usize>,
    sets: HashMap<(usize, String), usize>,
}

impl Reader {
    /// The table that the first attribute of an object names.
    fn index(&self, family: u8, fields: &Fields<'_>) -> Result<usize, DecodeError> {
        let name = fields.text(1).ok_or(DecodeError::Missing("the name of the table"))?;
        self.by_name.get(&(family, name)).copied().ok_or(DecodeError::Missing("the table"))
    }

    fn table(&mut self, family: u8, fields: &Fields<'_>) -> Result<(), DecodeError> {
        let name = fields.text(1).ok_or(DecodeError::Missing("NFTA_TABLE_NAME"))?;
        self.by_name.insert((family, name.clone()), self.tables.len());
        let dormant = fields.be32(2).unwrap_or_default() & DORMANT != 0;
        let handle = fields.be64(4);
        self.tables.push(Table { family, name, handle, dormant, ..Table::default() });
        Ok(())
    }

    fn chain(&mut self, family: u8, fields: &Fields<'_>) -> Result<(), DecodeError> {
        let table = self.index(family, fields)?;
        let name = fields.text(3).ok_or(DecodeError::Missing("NFTA_CHAIN_NAME"))?;
        let hook = fields.nested(4)?.map(|of| hook(&of, fields)).transpose()?;
        let chains = &mut self.tables[table].chains;
        self.chains.insert((table, name.clone()), chains.len());
        let (handle, flags) = (fields.be64(2), fields.be32(10).unwrap_or_default());
        chains.push(Chain { name, handle, flags, hook, rules: Vec::new() });
        Ok(())
    }

    fn rule(&mut self, family: u8, fields: &Fields<'_>) -> Result<(), DecodeError> {
        let table = self.index(family, fields)?;
        let chain = fields.text(2).ok_or(DecodeError::Missing("NFTA_RULE_CHAIN"))?;
        let chain =
            self.chains.get(&(table, chain)).copied().ok_or(DecodeError::Missing("the chain"))?;
        let handle = fields.be64(3).ok_or(DecodeError::Missing("NFTA_RULE_HANDLE"))?;
        let rule = Rule { handle, expressions: expressions(fields.list(4))? };
        self.tables[table].chains[chain].rules.push(rule);
        Ok(())
    }

    fn set(&mut self, family: u8, fields: &Fields<'_>) -> Result<(), DecodeError> {
        let table = self.index(family, fields)?;
        let set = set::set(fields)?;
        let sets = &mut self.tables[table].sets;
        self.sets.insert((table, set.name.clone()), sets.len());
        sets.push(set);
        Ok(())
    }

    fn elements(&mut self, family: u8, fields: &Fields<'_>) -> Result<(), DecodeError> {
        let table = self.index(family, fields)?;
        let set = fields.text(2).ok_or(DecodeError::Missing("NFTA_SET_ELEM_LIST_SET"))?;
        let set = self.sets.get(&(table, set)).copied().ok_or(DecodeError::Missing("the set"))?;
        self.tables[table].sets[set].elements.append(&mut set::elements(fields)?);
        Ok(())
    }

    fn object(&mut self, family: u8, fields: &Fields<'_>) -> Result<(), DecodeError> {
        /// NFT_OBJECT_CT_HELPER.
        const HELPER: u32 = 3;
        let table = self.index(family, fields)?;
        let kind = fields.be32(3).ok_or(DecodeError::Missing("NFTA_OBJ_TYPE"))?;
        let data = if kind == HELPER { fields.nested(4)? } else { None };
        self.tables[table].objects.push(Object {
            name: fields.text(2).ok_or(DecodeError::Missing("NFTA_OBJ_NAME"))?,
            kind,
            helper: data.and_then(|data| data.text(1)),
        });
        Ok(())
    }

    fn flowtable(&mut self, family: u8, fields: &Fields<'_>) -> Result<(), DecodeError> {
        let table = self.index(family, fields)?;
        self.tables[table].flowtables.push(Flowtable {
            name: fields.text(2).ok_or(DecodeError::Missing("NFTA_FLOWTABLE_NAME"))?,
            flags: fields.be32(7).unwrap_or_default(),
        });
        Ok(())
    }
}

/// NFTA_CHAIN_HOOK, and what else the attributes of a chain say about its hook.
fn hook(of: &Fields<'_>, chain: &Fields<'_>) -> Result<ChainHook, DecodeError> {
    let mut devices: Vec<String> = of.text(3).into_iter().collect();
    for device in of.list(4) {
        let name = String::from_utf8_lossy(device?.text()).into_owned();
        // NFTA_HOOK_DEV repeats the only one.
        if !devices.contains(&name) {
            devices.push(name);
        }
    }
    Ok(ChainHook {
        kind: chain.text(7).unwrap_or_else(|| "filter".to_owned()),
        number: of.be32(1).ok_or(DecodeError::Missing("NFTA_HOOK_HOOKNUM"))?,
        priority: of.be32(2).ok_or(DecodeError::Missing("NFTA_HOOK_PRIORITY"))?.cast_signed(),
        policy: if chain.be32(5) == Some(0) { Verdict::Drop } else { Verdict::Accept },
        devices,
    })
}
