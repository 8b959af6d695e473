//! A report without the names and addresses of anybody, so that it can be shown to others.
//!
//! Addresses keep their common prefixes, and nothing else (as Xu, Fan, Ammar and Moon do in Crypto-PAn): each bit is
//! changed or not by what a keyed hash says of the bits before it. Names become hashes of them. The key is made for
//! one report and forgotten, so that two reports cannot be joined.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use anyhow::Result;
use sha2::{Digest, Sha256};

use super::{
    Header, Namespace, Report,
    assembly::in_order,
    sorter::{Sorted, Sorter},
};
use crate::model::{
    Flow, Tuple,
    path::{MarksBehind, Site, Step, Traversal, Verdict},
    process::Process,
};

/// The user that stands for all (`overflowuid` of proc_sys_kernel(5)).
const NOBODY: u32 = 65_534;

/// Replaces names and addresses.
pub(crate) struct Anonymizer {
    key: [u8; 32],
    addresses: HashMap<IpAddr, IpAddr>,
    sites: HashMap<Arc<Site>, Arc<Site>>,
}

impl Anonymizer {
    /// With a key that nobody else has.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key, addresses: HashMap::new(), sites: HashMap::new() }
    }

    /// Replaces everything in a report that names anybody; its flows are sorted again, with so many in memory.
    ///
    /// # Errors
    /// Those of the file that the flows are in.
    pub fn report(
        &mut self,
        mut report: Report<Sorted>,
        in_memory: usize,
    ) -> Result<Report<Sorted>> {
        let Header { host, namespaces, filters, notes, .. } = &mut report.header;
        *host = self.name(host);
        for Namespace { name, interfaces, untraced, .. } in namespaces {
            // `-` is the agent's own.
            if name != "-" {
                *name = self.name(name);
            }
            for interface in interfaces {
                interface.name = self.name(&interface.name);
            }
            untraced.clear();
        }
        if !filters.is_empty() {
            *filters = vec![format!("{} that are not shown", filters.len())];
        }
        if !notes.is_empty() {
            *notes = vec![format!("{} notes are left out, because they have names", notes.len())];
        }
        report.untold =
            report.untold.iter().map(|_| "something that has a name".to_owned()).collect();
        let (report, flows) = report.split();
        let mut sorter = Sorter::new(in_order(), in_memory);
        flows.drain(|mut flow| {
            self.flow(&mut flow);
            sorter.push(flow)
        })?;
        Ok(report.with_flows(sorter.finish()?))
    }

    fn flow(&mut self, flow: &mut Flow) {
        flow.key.orig = self.tuple(flow.key.orig);
        flow.reply = flow.reply.map(|tuple| self.tuple(tuple));
        for tuple in [&mut flow.parent, &mut flow.quotes].into_iter().flatten() {
            **tuple = self.tuple(**tuple);
        }
        if let Some(process) = &mut flow.process {
            self.process(process);
        }
        if let Some(secctx) = flow.details.as_mut().and_then(|details| details.secctx.as_mut()) {
            *secctx = self.name(secctx);
        }
        if let Some(drops) = &mut flow.drops {
            drops.change_clash(|clash| {
                clash.reply = self.tuple(clash.reply);
                clash.holder = clash.holder.map(|tuple| self.tuple(tuple));
            });
            drops.change_steps(|step| self.step(step));
        }
        flow.paths = flow.paths.changed(|path| self.path(path));
    }

    fn process(&self, process: &mut Process) {
        let Process { direction: _, uid, user, pid, comm, cgroup_id, cgroup, inode } = process;
        for name in [user, comm, cgroup].into_iter().flatten() {
            *name = self.name(name);
        }
        (*uid, *pid, *cgroup_id, *inode) = (NOBODY, None, None, None);
    }

    fn path(&mut self, path: &Traversal) -> Traversal {
        let steps = path.steps.iter().map(|step| {
            let mut step = step.clone();
            self.step(&mut step);
            step
        });
        let steps = steps.collect();
        let marks = path
            .marks
            .iter()
            .map(|marks| MarksBehind { chain: self.site(&marks.chain), ..marks.clone() })
            .collect();
        let nat = path.nat.map(|(before, after)| (self.tuple(before), self.tuple(after)));
        Traversal { marks, nat, steps, ..path.clone() }
    }

    fn step(&mut self, step: &mut Step) {
        step.site = self.site(&step.site);
        match &mut step.verdict {
            Verdict::Jump(chain) | Verdict::Goto(chain) => *chain = self.name(chain),
            _ => {}
        }
    }

    fn site(&mut self, site: &Arc<Site>) -> Arc<Site> {
        if let Some(changed) = self.sites.get(site) {
            return Arc::clone(changed);
        }
        let changed = Arc::new(Site {
            table: self.name(&site.table),
            chain: self.name(&site.chain),
            // It has addresses and comments.
            text: None,
            ..Site::clone(site)
        });
        self.sites.insert(Arc::clone(site), Arc::clone(&changed));
        changed
    }

    fn tuple(&mut self, tuple: Tuple) -> Tuple {
        Tuple { src: self.address(tuple.src), dst: self.address(tuple.dst), ..tuple }
    }

    /// An address that has as many bits in common with every other one as before.
    fn address(&mut self, address: IpAddr) -> IpAddr {
        if let Some(changed) = self.addresses.get(&address) {
            return *changed;
        }
        let changed = match address {
            IpAddr::V4(address) => {
                let bits = self.bits(4, u128::from(address.to_bits()) << 96, 32) >> 96;
                IpAddr::V4(Ipv4Addr::from_bits(bits as u32))
            }
            IpAddr::V6(address) => {
                IpAddr::V6(Ipv6Addr::from_bits(self.bits(6, address.to_bits(), 128)))
            }
        };
        self.addresses.insert(address, changed);
        changed
    }

    /// The bits, of which the highest ones count, changed by those before each.
    fn bits(&self, family: u8, bits: u128, count: u32) -> u128 {
        let mut changed = bits;
        for n in 0..count {
            let prefix = bits & !(u128::MAX >> n);
            let hash = Sha256::new()
                .chain_update(self.key)
                .chain_update([family, n as u8])
                .chain_update(prefix.to_be_bytes())
                .finalize();
            changed ^= u128::from(hash[0] & 1) << (127 - n);
        }
        changed
    }

    fn name(&self, name: &str) -> String {
        let hash = Sha256::new()
            .chain_update(self.key)
            .chain_update(b"name")
            .chain_update(name)
            .finalize();
        let [a, b, c, d] = [hash[0], hash[1], hash[2], hash[3]];
        format!("x{:08x}", u32::from_be_bytes([a, b, c, d]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::hook::Hook,
        report::{Format, fixtures::sample},
    };

    fn common(a: Ipv4Addr, b: Ipv4Addr) -> u32 {
        (a.to_bits() ^ b.to_bits()).leading_zeros()
    }

    proptest! {
        #[test]
        fn prefixes_are_kept_and_addresses_are_not(a: u32, b: u32, length in 0..33_u32, key: [u8; 32]) {
            let b = if length == 0 { b } else { a ^ (b >> (length - 1).min(31)) };
            let mut anonymizer = Anonymizer::new(key);
            let mut v4 = |bits| match anonymizer.address(IpAddr::V4(Ipv4Addr::from_bits(bits))) {
                IpAddr::V4(address) => address,
                IpAddr::V6(address) => panic!("{address}"),
            };
            let (x, y) = (v4(a), v4(b));
            prop_assert_eq!(common(x, y), common(Ipv4Addr::from_bits(a), Ipv4Addr::from_bits(b)));
        }
    }

    #[test]
    fn nothing_is_left_that_names_anybody() {
        let report = sample();
        let print = |report: &Report, format| {
            let mut out = Vec::new();
            report.render(format, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let before = print(&report, Format::Json);
        let (rest, flows) = report.split();
        let report = rest.with_flows(Sorted::Memory(flows));
        let report =
            Anonymizer::new([7; 32]).report(report, usize::MAX).unwrap().in_memory().unwrap();
        let after = print(&report, Format::Json);
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let mut names = Vec::new();
        collect(&parse(&before), "", &mut names);
        assert!(names.len() > 10, "{names:?}");
        let mut left = Vec::new();
        collect(&parse(&after), "", &mut left);
        // The name of a hook is nobody's.
        for name in names.iter().filter(|name| Hook::parse(name).is_none()) {
            assert!(!left.contains(name), "{name} is left: {after}");
        }
        assert_eq!(
            parse(&before)["footer"]["totals"],
            parse(&after)["footer"]["totals"],
            "what is counted stays"
        );
        let text = print(&report, Format::Text { explain: true });
        assert!(!text.contains("198.51.100."), "{text}");
    }

    /// Names and addresses of a report.
    fn collect(value: &serde_json::Value, key: &str, names: &mut Vec<String>) {
        const NAMES: [&str; 12] = [
            "host", "netns", "src", "dst", "table", "chain", "comm", "user", "cgroup", "text",
            "in", "out",
        ];
        match value {
            serde_json::Value::String(text) if NAMES.contains(&key) && text != "-" => {
                names.push(text.clone());
            }
            serde_json::Value::Array(all) => {
                for value in all {
                    collect(value, key, names);
                }
            }
            serde_json::Value::Object(all) => {
                for (key, value) in all {
                    collect(value, key, names);
                }
            }
            _ => {}
        }
    }
}
