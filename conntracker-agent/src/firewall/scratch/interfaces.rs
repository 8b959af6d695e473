//! Interfaces of the namespace in which rules are compiled: `iif` and `oif` are compiled to the index, and chains and
//! flowtables of devices want the device.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use crate::{
    firewall::objects::KernelObjects,
    netlink::routing::{objects::RoutingObjects, pair},
};

/// Where indexes of the other ends of pairs begin.
const PEERS: u32 = 1 << 24;

/// The interfaces of a host: index and name.
pub(super) fn of(objects: &KernelObjects) -> Result<Vec<(u32, String)>> {
    let routing =
        RoutingObjects::decode(&objects.routing).context("the interfaces make no sense")?;
    Ok(routing.links.into_iter().map(|link| (link.index, link.name)).collect())
}

/// Interfaces that were made.
#[derive(Debug, Default)]
pub(super) struct Made {
    names: BTreeSet<String>,
}

impl Made {
    /// Makes an interface; false if it is there already. Without an index it gets one that is free.
    pub(super) fn make(&mut self, index: Option<u32>, name: &str) -> Result<bool> {
        if name == "lo" || !self.names.insert(name.to_owned()) {
            return Ok(false);
        }
        let peer = PEERS + self.names.len() as u32;
        pair::make((index.unwrap_or(0), name), (peer, &format!("ct-peer{peer}")))
            .with_context(|| format!("cannot make interface `{name}` to compile rules"))?;
        Ok(true)
    }
}

/// Names of devices of chains and flowtables of nft: `device "eth0"`, `devices = { eth0, eth1 }`.
pub(super) fn devices(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut words = text
        .split(|c: char| c.is_whitespace() || matches!(c, ';' | ','))
        .flat_map(|word| word.split_inclusive(['{', '}', '=']))
        .filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        if !matches!(word, "device" | "devices" | "devices=") {
            continue;
        }
        let mut inside = false;
        for word in words.by_ref() {
            match word {
                "=" => {}
                "{" => inside = true,
                _ => {
                    let last = !inside || word.ends_with('}');
                    let name = word.trim_end_matches('}').trim_matches('"');
                    if is_name(name) {
                        names.insert(name.to_owned());
                    }
                    if last {
                        break;
                    }
                }
            }
        }
    }
    names
}

/// Whether an interface may have that name (`dev_valid_name` of net/core/dev.c), which no variable of nft has.
fn is_name(name: &str) -> bool {
    (1..16).contains(&name.len())
        && !name.starts_with('$')
        && !name.contains(['/', ':', '{', '}'])
        && name != "."
        && name != ".."
}

/// The interface that nft misses, by its message: `FILE:LINE:COLUMN-COLUMN: Error: Interface does not exist`.
pub(super) fn missing(said: &str) -> Option<String> {
    const WHY: &str = ": Error: Interface does not exist";
    let (before, _) = said.split_once(WHY)?;
    let at = before.split_whitespace().next_back()?;
    let mut parts = at.rsplitn(3, ':');
    let (columns, line, file) = (parts.next()?, parts.next()?, parts.next()?);
    let (first, last) = columns.split_once('-').unwrap_or((columns, columns));
    let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().nth(line.parse::<usize>().ok()?.checked_sub(1)?)?;
    let name = line.get(first.checked_sub(1)?..last.min(line.len()))?.trim_matches('"');
    is_name(name).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn devices_are_named_alone_or_in_braces() {
        let text = "chain a { type filter hook ingress device \"eth0\" priority 0; }\n\
                    chain b { type filter hook ingress devices = { eth1, \"eth2\" } priority 0; }\n\
                    flowtable f { hook ingress priority 0; devices = {eth3,eth4}; }\n\
                    chain c { type filter hook ingress device $wan priority 0; }";
        let found: Vec<_> = devices(text).into_iter().collect();
        assert_eq!(found, ["eth0", "eth1", "eth2", "eth3", "eth4"]);
    }

    #[test]
    fn the_missing_interface_is_where_nft_says() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "table inet a {{\n  chain b {{\n    iif \"eth9\" accept\n  }}\n}}").unwrap();
        let path = file.path().display();
        let said = format!("failed: {path}:3:9-14: Error: Interface does not exist iif eth9");
        assert_eq!(missing(&said).as_deref(), Some("eth9"));
        assert_eq!(missing("x:3:9-14: Error: syntax error"), None);
        assert_eq!(missing("x:0:0-99: Error: Interface does not exist"), None);
    }
}
