//! Tables of ip_tables and ip6_tables, decoded from the kernel's entries: each entry is a header to compare, matches
//! and a target (net/ipv4/netfilter/ip_tables.c). A user chain begins behind an entry with the target ERROR, which
//! has its name, and every chain ends with an entry without matches: the policy or RETURN.

use std::collections::HashMap;

use thiserror::Error;

use super::raw::RawTable;
use crate::{
    firewall::{
        fields::Fields,
        model::{Counter, Policy},
    },
    model::{hook::Hook, table::Family},
};

/// The chains that ip_tables calls by hook, by the number of the hook.
const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// Bytes of a table's name, and of the name in a match or target (XT_TABLE_MAXNAMELEN, XT_EXTENSION_MAXNAMELEN).
const TABLE_NAME: usize = 32;
const EXTENSION_NAME: usize = 29;

/// Bytes before the data of a match or target: `struct xt_entry_match`, `struct xt_entry_target`.
const EXTENSION_HEAD: usize = 32;

/// `struct ipt_getinfo`: hooks that the table has, their first entries, and their policies.
const VALID_HOOKS: usize = 32;
const HOOK_ENTRY: usize = 36;
const UNDERFLOW: usize = 56;

/// Target of the entry that precedes a user chain, and of the last one.
const ERROR: &str = "ERROR";

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XtTable {
    /// [`Family::Ip`] or [`Family::Ip6`].
    pub family: Family,
    /// Name.
    pub name: String,
    /// Chains: the built-in ones by hook, then user chains by name.
    pub chains: Vec<XtChain>,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XtChain {
    /// Name.
    pub name: String,
    /// Of a built-in chain.
    pub base: Option<XtBase>,
    /// Rules in order, without the policy and without the RETURN at the end of a user chain.
    pub rules: Vec<XtRule>,
}

/// Where a built-in chain is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XtBase {
    /// Hook.
    pub hook: Hook,
    /// Policy.
    pub policy: Policy,
    /// Packets that met the policy.
    pub counter: Counter,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XtRule {
    /// What it compares of the IP header and of the devices.
    pub header: HeaderMatch,
    /// Its matches, in order.
    pub matches: Vec<XtExtension>,
    /// What it does.
    pub target: XtTarget,
    /// Packets that matched.
    pub counter: Counter,
}

/// `struct ipt_ip` or `struct ip6t_ip6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Source and destination address.
    pub addresses: [AddressMatch; 2],
    /// Input and output device.
    pub devices: [DeviceMatch; 2],
    /// Protocol, and whether it must be another one; `None`: any. Of IPv6 the last header that can be parsed.
    pub protocol: Option<(u16, bool)>,
    /// Whether the packet must be a later fragment (IPv4), and whether that is inverted.
    pub fragment: (bool, bool),
}

/// An address, IPv4 in the low 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressMatch {
    /// What the masked address must be.
    pub value: u128,
    /// Mask; it need not be that of a prefix.
    pub mask: u128,
    /// It must be another one.
    pub inverted: bool,
}

/// The name of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMatch {
    /// Name, with `+` at its end if that is how it was written; zeros behind it.
    pub name: [u8; 16],
    /// Bytes that are compared: `eth+` has a mask of three, `eth0` one of five, with the zero.
    pub mask: [u8; 16],
    /// It must be another one.
    pub inverted: bool,
}

/// A match or a target by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XtExtension {
    /// Name in the kernel.
    pub name: String,
    /// Revision.
    pub revision: u8,
    /// The C structure with its options; the kernel's own fields at its end are not meant for us.
    pub info: Vec<u8>,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XtTarget {
    /// Nothing: a rule that only counts.
    Continue,
    /// ACCEPT.
    Accept,
    /// DROP.
    Drop,
    /// QUEUE.
    Queue,
    /// RETURN.
    Return,
    /// `-j`: to a chain by its index in [`XtTable::chains`].
    Jump(usize),
    /// `-g`.
    Goto(usize),
    /// A target of its own.
    Extension(XtExtension),
}

/// Bytes that are no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the entries of ip_tables make no sense at byte {at}: {what}")]
pub struct BadTable {
    /// Offset in the entries.
    pub at: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// Offsets that differ between IPv4 and IPv6.
struct Layout {
    address: usize,
    protocol: usize,
    flags: usize,
    inverted: usize,
    goto: u8,
    target: usize,
    next: usize,
    counters: usize,
    size: usize,
}

impl Layout {
    const IP: Self = Self {
        address: 4,
        protocol: 80,
        flags: 82,
        inverted: 83,
        goto: 0x02,
        target: 88,
        next: 90,
        counters: 96,
        size: 112,
    };
    const IP6: Self = {
        // `struct xt_counters` holds `__u64`.
        let counters = 148usize.next_multiple_of(align_of::<u64>());
        Self {
            address: 16,
            protocol: 128,
            flags: 131,
            inverted: 132,
            goto: 0x04,
            target: 140,
            next: 142,
            counters,
            size: counters + 16,
        }
    };

    fn of(family: Family) -> &'static Self {
        if family == Family::Ip6 { &Self::IP6 } else { &Self::IP }
    }
}

/// IP6T_F_PROTO: the rule asks for a protocol. IPv4 has no such flag: protocol 0 is any.
const ASKS_PROTOCOL: u8 = 0x01;

/// IPT_F_FRAG.
const FRAGMENT: u8 = 0x01;

/// IPT_INV_VIA_IN and so on.
const INVERT_INPUT: u8 = 0x01;
const INVERT_OUTPUT: u8 = 0x02;
const INVERT_SOURCE: u8 = 0x08;
const INVERT_DESTINATION: u8 = 0x10;
const INVERT_FRAGMENT: u8 = 0x20;
const INVERT_PROTOCOL: u8 = 0x40;

/// An entry with its target as it stands there.
struct Entry<'a> {
    at: usize,
    next: usize,
    fields: Fields<'a>,
    matches: Vec<XtExtension>,
    target: XtExtension,
}

impl RawTable {
    /// Decodes it.
    ///
    /// # Errors
    /// Bytes that the kernel does not give.
    pub fn decode(&self) -> Result<XtTable, BadTable> {
        let layout = Layout::of(self.family);
        let info = Fields(&self.info);
        let short = BadTable { at: 0, what: "struct ipt_getinfo is too short" };
        let name = info.text(0, TABLE_NAME).ok_or(short)?;
        let valid = info.u32(VALID_HOOKS).ok_or(short)?;
        let mut begins = HashMap::new();
        let mut policies = HashMap::new();
        for (number, hook) in Hook::BY_NUMBER.into_iter().take(BUILT_IN.len()).enumerate() {
            let [begin, policy] = [HOOK_ENTRY, UNDERFLOW].map(|at| info.u32(at + 4 * number));
            let (begin, policy) = (begin.ok_or(short)?, policy.ok_or(short)?);
            if valid & 1 << number != 0 {
                begins.insert(begin as usize, (hook, BUILT_IN[number]));
                policies.insert(policy as usize, hook);
            }
        }
        let entries = entries(&self.entries, layout)?;
        let (ranges, starts) = chains(&entries, &begins)?;
        let chain = |range: &Range| {
            let Some((end, rules)) = entries[range.first..range.end].split_last() else {
                return Err(BadTable { at: range.at, what: "a chain without an end" });
            };
            let base = match range.hook {
                Some(hook) if policies.get(&end.at) == Some(&hook) => {
                    Some(XtBase { hook, policy: policy(end)?, counter: counter(end, layout)? })
                }
                Some(_) => {
                    return Err(BadTable { at: end.at, what: "a built-in chain without policy" });
                }
                None if verdict(&end.target) == Some(RETURN) => None,
                None => return Err(BadTable { at: end.at, what: "a chain without RETURN" }),
            };
            let rules = rules.iter().map(|entry| rule(entry, layout, &starts, self.family));
            Ok(XtChain { name: range.name.clone(), base, rules: rules.collect::<Result<_, _>>()? })
        };
        let chains = ranges.iter().map(chain).collect::<Result<_, _>>()?;
        Ok(XtTable { family: self.family, name, chains })
    }
}

/// Splits the blob.
fn entries<'a>(blob: &'a [u8], layout: &Layout) -> Result<Vec<Entry<'a>>, BadTable> {
    let mut entries = Vec::new();
    let mut at = 0;
    while at < blob.len() {
        let bad = |what| BadTable { at, what };
        let rest = Fields(&blob[at..]);
        let (Some(target), Some(next)) = (rest.u16(layout.target), rest.u16(layout.next)) else {
            return Err(bad("an entry that is cut off"));
        };
        let (target_at, length) = (usize::from(target), usize::from(next));
        let Some(bytes) = rest.slice(0, length) else {
            return Err(bad("an entry beyond the end"));
        };
        if target_at < layout.size {
            return Err(bad("a target inside the header"));
        }
        let fields = Fields(bytes);
        let mut matches = Vec::new();
        let mut match_at = layout.size;
        while match_at < target_at {
            let (found, size) =
                extension(fields, match_at).ok_or(bad("a match that is cut off"))?;
            matches.push(found);
            match_at += size;
        }
        if match_at != target_at {
            return Err(bad("a match that runs into the target"));
        }
        let (target, _) = extension(fields, target_at).ok_or(bad("a target that is cut off"))?;
        entries.push(Entry { at, next: at + length, fields, matches, target });
        at += length;
    }
    Ok(entries)
}

/// A match or target, and its size.
fn extension(fields: Fields<'_>, at: usize) -> Option<(XtExtension, usize)> {
    let size = usize::from(fields.u16(at)?);
    let info = fields.slice(at + EXTENSION_HEAD, at + size)?.to_vec();
    let name = fields.text(at + 2, EXTENSION_NAME)?;
    let revision = fields.u8(at + 2 + EXTENSION_NAME)?;
    Some((XtExtension { name, revision, info }, size))
}

/// A chain: entries from `first` on, the last one before `end` is its policy or RETURN.
struct Range {
    name: String,
    hook: Option<Hook>,
    at: usize,
    first: usize,
    end: usize,
}

/// Finds the chains, in display order, and the chain that begins at each offset.
fn chains(
    entries: &[Entry<'_>],
    begins: &HashMap<usize, (Hook, &str)>,
) -> Result<(Vec<Range>, HashMap<usize, usize>), BadTable> {
    let mut ranges: Vec<Range> = Vec::new();
    // The last entry ends the table.
    let Some((last, all)) = entries.split_last().filter(|(last, _)| last.target.name == ERROR)
    else {
        return Err(BadTable { at: 0, what: "no ERROR at the end" });
    };
    for (number, entry) in all.iter().enumerate() {
        let bad = |what| BadTable { at: entry.at, what };
        let begun = if entry.target.name == ERROR {
            let name = Fields(&entry.target.info).text(0, EXTENSION_NAME + 1);
            let name = name.ok_or(bad("a chain without a name"))?;
            Some(Range { name, hook: None, at: entry.next, first: number + 1, end: number + 1 })
        } else {
            begins.get(&entry.at).map(|&(hook, name)| {
                let name = name.to_owned();
                Range { name, hook: Some(hook), at: entry.at, first: number, end: number }
            })
        };
        ranges.extend(begun);
        let range = ranges.last_mut().ok_or(bad("an entry before the first chain"))?;
        if entry.target.name != ERROR {
            range.end = number + 1;
        }
    }
    if begins.len() != ranges.iter().filter(|range| range.hook.is_some()).count() {
        return Err(BadTable { at: last.at, what: "a hook without entries" });
    }
    ranges.sort_by(|a, b| {
        let key = |range: &Range| (range.hook.is_none(), range.hook);
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
    });
    let starts = ranges.iter().enumerate().map(|(index, range)| (range.at, index)).collect();
    Ok((ranges, starts))
}

fn rule(
    entry: &Entry<'_>,
    layout: &Layout,
    starts: &HashMap<usize, usize>,
    family: Family,
) -> Result<XtRule, BadTable> {
    let bad = |what| BadTable { at: entry.at, what };
    let (header, goes_to) = header(entry.fields, layout, family).ok_or(bad("no header"))?;
    let target = if entry.target.name.is_empty() {
        let verdict = verdict(&entry.target).ok_or(bad("no verdict"))?;
        match (verdict, usize::try_from(verdict)) {
            (ACCEPT, _) => XtTarget::Accept,
            (DROP, _) => XtTarget::Drop,
            (QUEUE, _) => XtTarget::Queue,
            (RETURN, _) => XtTarget::Return,
            (_, Ok(to)) if to == entry.next => XtTarget::Continue,
            (_, Ok(to)) => {
                let chain = *starts.get(&to).ok_or(bad("a jump to no chain"))?;
                if goes_to { XtTarget::Goto(chain) } else { XtTarget::Jump(chain) }
            }
            _ => return Err(bad("a verdict that does not exist")),
        }
    } else {
        XtTarget::Extension(entry.target.clone())
    };
    let counter = counter(entry, layout)?;
    Ok(XtRule { header, matches: entry.matches.clone(), target, counter })
}

/// Verdicts of the standard target: `-NF_ACCEPT - 1` and so on; XT_RETURN is `-NF_REPEAT - 1`. Other numbers are
/// offsets to go to.
const DROP: i32 = -1;
const ACCEPT: i32 = -2;
const QUEUE: i32 = -4;
const RETURN: i32 = -5;

fn verdict(target: &XtExtension) -> Option<i32> {
    Fields(&target.info).i32(0).filter(|_| target.name.is_empty())
}

fn policy(entry: &Entry<'_>) -> Result<Policy, BadTable> {
    match verdict(&entry.target) {
        Some(ACCEPT) => Ok(Policy::Accept),
        Some(DROP) => Ok(Policy::Drop),
        _ => Err(BadTable { at: entry.at, what: "a policy that does not exist" }),
    }
}

fn counter(entry: &Entry<'_>, layout: &Layout) -> Result<Counter, BadTable> {
    let [packets, bytes] = [0, 8].map(|at| entry.fields.u64(layout.counters + at));
    match (packets, bytes) {
        (Some(packets), Some(bytes)) => Ok(Counter { packets, bytes }),
        _ => Err(BadTable { at: entry.at, what: "no counters" }),
    }
}

/// The header, and whether the rule has IPT_F_GOTO.
fn header(fields: Fields<'_>, layout: &Layout, family: Family) -> Option<(HeaderMatch, bool)> {
    let (flags, inverted) = (fields.u8(layout.flags)?, fields.u8(layout.inverted)?);
    let is_inverted = |flag: u8| inverted & flag != 0;
    let number = |at: usize| {
        Some(if family == Family::Ip6 {
            u128::from_be_bytes(fields.array(at)?)
        } else {
            u32::from_be_bytes(fields.array(at)?).into()
        })
    };
    let size = layout.address;
    let address = |at: usize, flag| {
        let (value, mask) = (number(at)?, number(at + 2 * size)?);
        Some(AddressMatch { value, mask, inverted: is_inverted(flag) })
    };
    let device = |at: usize, flag| {
        let (name, mask) = (fields.array(4 * size + at)?, fields.array(4 * size + at + 32)?);
        Some(DeviceMatch { name, mask, inverted: is_inverted(flag) })
    };
    let protocol = fields.u16(layout.protocol)?;
    let asks = protocol != 0 && (family == Family::Ip || flags & ASKS_PROTOCOL != 0);
    let header = HeaderMatch {
        addresses: [address(0, INVERT_SOURCE)?, address(size, INVERT_DESTINATION)?],
        devices: [device(0, INVERT_INPUT)?, device(16, INVERT_OUTPUT)?],
        protocol: asks.then(|| (protocol, is_inverted(INVERT_PROTOCOL))),
        fragment: if family == Family::Ip {
            (flags & FRAGMENT != 0, is_inverted(INVERT_FRAGMENT))
        } else {
            (false, false)
        },
    };
    Some((header, flags & layout.goto != 0))
}

#[cfg(test)]
mod tests;
