//! Interfaces by the names that they had when packets passed them.
//!
//! Records have the indices of interfaces. A renamed interface keeps its index, and the kernel may reuse the index of
//! a removed one, so flows refer to the number of a pair of index and name. The kernel notifies of each change of a
//! name; records that came before it are drained first, under the old name.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
};

use anyhow::Context;
use tokio::io::unix::AsyncFd;

use crate::{
    model::NetnsId,
    netlink::link::{InterfaceWatch, Noticed},
    os::{
        netns::Netns,
        watch::{any_ready, drained, watch},
    },
};

/// Numbers from this one on belong to later names of an index. The number of the first name is the index.
const LATER: u32 = 1 << 31;

/// Changes of names that are not applied yet.
pub(crate) type Renamed = Vec<(NetnsId, u32, String)>;

/// Interfaces of all namespaces.
#[derive(Default)]
pub(crate) struct Interfaces {
    known: BTreeMap<NetnsId, NamedInterface>,
    watches: BTreeMap<NetnsId, AsyncFd<InterfaceWatch>>,
}

/// Those of one namespace. Pure.
#[derive(Debug, Default)]
struct NamedInterface {
    /// Names of now, by index.
    now: HashMap<u32, String>,
    /// Numbers of indices with their names.
    numbers: HashMap<(u32, String), u32>,
    /// The same the other way round.
    names: HashMap<u32, (u32, String)>,
    /// Indices for which the kernel had no name.
    nameless: HashSet<u32>,
}

impl NamedInterface {
    /// The number of an index with a name.
    fn number(&mut self, index: u32, name: &str) -> u32 {
        if let Some(known) = self.numbers.get(&(index, name.to_owned())) {
            return *known;
        }
        let taken = self.names.contains_key(&index) || self.nameless.contains(&index);
        let number = if taken { LATER + self.names.len() as u32 } else { index };
        self.numbers.insert((index, name.to_owned()), number);
        self.names.insert(number, (index, name.to_owned()));
        number
    }

    /// Whether an index has another name already.
    fn differs(&self, index: u32, name: &str) -> bool {
        self.now.get(&index).is_some_and(|now| now != name)
    }
}

impl Interfaces {
    /// Learns the names of a namespace's interfaces, and watches them.
    pub fn add(&mut self, id: NetnsId, netns: &Netns) {
        let watched = netns
            .enter(|| InterfaceWatch::open().map_err(io::Error::other))
            .and_then(watch)
            .with_context(|| format!("cannot watch the interfaces of namespace `{}`", netns.name));
        match watched {
            Ok(watched) => {
                self.watches.insert(id, watched);
                self.learn(id);
            }
            Err(error) => log::warn!("{error:#}: they are printed as numbers"),
        }
    }

    /// Stops watching a namespace that has ended; the names of its interfaces are kept.
    pub fn remove(&mut self, id: NetnsId) {
        // Interfaces that no record had yet.
        self.learn(id);
        self.watches.remove(&id);
    }

    /// Forgets the interfaces of a namespace that has ended, when no flow refers to them.
    pub fn forget(&mut self, id: NetnsId) {
        self.known.remove(&id);
    }

    /// Waits for a change.
    pub async fn changed(&mut self) -> io::Result<()> {
        any_ready(&mut self.watches).await
    }

    /// Reads changes. New interfaces are added at once; new names of known ones are returned, to be applied when the
    /// records of earlier packets were drained.
    pub fn read(&mut self) -> Renamed {
        let mut renamed = Vec::new();
        let Self { watches, known } = self;
        watches.retain(|&id, watched| {
            let read = watched.get_mut().read().and_then(|Noticed { mut names, lost, all }| {
                if all {
                    drained(watched);
                }
                if lost {
                    names.extend(watched.get_mut().list()?);
                }
                Ok(names)
            });
            let names = match read {
                Ok(names) => names,
                // An error in one namespace does not affect the others.
                Err(error) => {
                    log::warn!(
                        "changes of interfaces in a namespace are not received any more: {error}"
                    );
                    return false;
                }
            };
            let known = known.entry(id).or_default();
            for (index, name) in names {
                let waits = renamed.iter().any(|(of, at, _)| (*of, *at) == (id, index));
                if waits || known.differs(index, &name) {
                    renamed.push((id, index, name));
                } else {
                    known.now.insert(index, name);
                }
            }
            true
        });
        renamed
    }

    /// From now on these are the names.
    pub fn apply(&mut self, renamed: Renamed) {
        for (id, index, name) in renamed {
            self.known.entry(id).or_default().now.insert(index, name);
        }
    }

    /// The number of an interface, for flows to refer to; 0 for none.
    pub fn number(&mut self, id: NetnsId, index: u32) -> u32 {
        let asked = |known: &NamedInterface| {
            known.now.contains_key(&index) || known.nameless.contains(&index)
        };
        if index != 0 && !self.known.get(&id).is_some_and(asked) {
            // The interface is newer than the last reading.
            self.learn(id);
        }
        let known = self.known.entry(id).or_default();
        if let Some(name) = known.now.get(&index).cloned() {
            return known.number(index, &name);
        }
        known.nameless.insert(index);
        index
    }

    /// The number of an interface with the name that a record has.
    pub fn number_named(&mut self, id: NetnsId, index: u32, name: &str) -> u32 {
        self.known.entry(id).or_default().number(index, name)
    }

    /// The name of an interface by its number.
    pub fn name(&self, id: NetnsId, number: u32) -> Option<&str> {
        let (_, name) = self.known.get(&id)?.names.get(&number)?;
        Some(name)
    }

    /// How many are known, in all namespaces.
    pub fn count(&self) -> usize {
        self.known.values().map(|known| known.names.len()).sum()
    }

    /// All of a namespace, by number: index and name.
    pub fn all(&self, id: NetnsId) -> impl Iterator<Item = (u32, u32, &str)> {
        let names = self.known.get(&id).into_iter().flat_map(|known| &known.names);
        let mut all: Vec<(u32, u32, &str)> =
            names.map(|(&number, (index, name))| (number, *index, name.as_str())).collect();
        all.sort_unstable();
        all.into_iter()
    }

    /// Lists the interfaces and adds new ones. New names of known ones arrive as changes.
    fn learn(&mut self, id: NetnsId) {
        let Some(watched) = self.watches.get_mut(&id) else { return };
        match watched.get_mut().list() {
            Ok(names) => {
                let known = self.known.entry(id).or_default();
                for (index, name) in names {
                    known.now.entry(index).or_insert(name);
                }
            }
            Err(error) => log::warn!("interface names may be out of date: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: NetnsId = NetnsId(0);

    impl Interfaces {
        /// Index and name of a number, if it has one.
        pub fn get(&self, id: NetnsId, number: u32) -> Option<(u32, &str)> {
            let (index, name) = self.known.get(&id)?.names.get(&number)?;
            Some((*index, name))
        }
    }

    fn interfaces(names: &[(u32, &str)]) -> Interfaces {
        let mut interfaces = Interfaces::default();
        interfaces.apply(names.iter().map(|(at, name)| (HERE, *at, (*name).to_owned())).collect());
        interfaces
    }

    #[test]
    fn a_renamed_interface_is_another_number_and_the_old_one_keeps_its_name() {
        let mut all = interfaces(&[(2, "eth0"), (3, "eth1")]);
        let before = all.number(HERE, 2);
        assert_eq!((before, all.number(HERE, 3), all.number(HERE, 0)), (2, 3, 0));
        all.apply(vec![(HERE, 2, "wan".to_owned())]);
        let after = all.number(HERE, 2);
        assert_ne!(before, after);
        assert_eq!(all.get(HERE, before), Some((2, "eth0")));
        assert_eq!(all.get(HERE, after), Some((2, "wan")));
        // Back again.
        all.apply(vec![(HERE, 2, "eth0".to_owned())]);
        assert_eq!(all.number(HERE, 2), before);
        assert_eq!(all.get(NetnsId(1), 2), None);
    }

    #[test]
    fn what_the_kernel_names_need_not_be_what_is_known() {
        let mut all = interfaces(&[(2, "wan")]);
        let told = all.number_named(HERE, 2, "eth0");
        assert_eq!((told, all.get(HERE, told)), (2, Some((2, "eth0"))));
        let now = all.number(HERE, 2);
        assert_eq!((now >= LATER, all.get(HERE, now)), (true, Some((2, "wan"))));
        assert_eq!(all.number_named(HERE, 2, "wan"), now);
    }

    #[test]
    fn an_interface_without_a_name_keeps_its_number_when_it_gets_one() {
        let mut all = Interfaces::default();
        assert_eq!((all.number(HERE, 7), all.get(HERE, 7)), (7, None));
        all.apply(vec![(HERE, 7, "late".to_owned())]);
        let named = all.number(HERE, 7);
        assert_eq!((all.get(HERE, 7), all.get(HERE, named)), (None, Some((7, "late"))));
    }
}
