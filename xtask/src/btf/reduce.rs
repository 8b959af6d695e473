//! Which types are kept, and what of them.
//!
//! Structures that are not wanted keep name and size and lose their members, so that pointers to them,
//! and members of that type, are still what they were.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use super::blob::{
    ARRAY, Blob, CONST, ENUM, ENUM64, FUNC, FUNC_PROTO, PTR, RESTRICT, STRUCT, Strings, TYPE_TAG,
    TYPEDEF, Type, UNION, VOLATILE, write,
};
use super::wanted;

/// A type: number of its blob (0: vmlinux, then modules), id in it.
type Key = (usize, u32);

/// What is left of all blobs.
pub struct Reduced<'a> {
    base: &'a Blob,
    modules: Vec<&'a Blob>,
    /// Prototypes of functions that are wanted; others lose their parameters.
    prototypes: BTreeSet<Key>,
    kept: BTreeMap<Key, Type>,
}

impl<'a> Reduced<'a> {
    pub fn of(base: &'a Blob, modules: Vec<&'a Blob>) -> Result<Self> {
        let (prototypes, kept) = (BTreeSet::new(), BTreeMap::new());
        let mut reduced = Self { base, modules, prototypes, kept };
        let mut rest = reduced.roots();
        while let Some(key) = rest.pop() {
            if !reduced.kept.contains_key(&key) {
                let mut kept = reduced.reduce(key)?;
                rest.extend(references(&mut kept).into_iter().filter(|id| **id != 0).map(|id| {
                    // Types of vmlinux are its own, whichever module refers to them.
                    if *id < reduced.first(key.0) { (0, *id) } else { (key.0, *id) }
                }));
                reduced.kept.insert(key, kept);
            }
        }
        Ok(reduced)
    }

    fn blob(&self, number: usize) -> &'a Blob {
        if number == 0 { self.base } else { self.modules[number - 1] }
    }

    fn first(&self, number: usize) -> u32 {
        self.blob(number).first
    }

    /// What is wanted by name.
    fn roots(&mut self) -> Vec<Key> {
        let mut roots = Vec::new();
        for number in 0..=self.modules.len() {
            for (t, id) in self.blob(number).types.iter().zip(self.first(number)..) {
                let wanted = match t.kind {
                    STRUCT | UNION => !t.entries.is_empty() && wanted::members(&t.name).is_some(),
                    ENUM | ENUM64 => t.entries.iter().any(|entry| wanted::enumerator(&entry.name)),
                    FUNC => wanted::function(&t.name),
                    _ => false,
                };
                if wanted {
                    roots.push((number, id));
                }
                if wanted && t.kind == FUNC {
                    let prototype = t.size_or_ref;
                    let base = prototype < self.first(number);
                    self.prototypes.insert((if base { 0 } else { number }, prototype));
                }
            }
        }
        roots
    }

    /// A type without what is not wanted of it.
    fn reduce(&self, key: Key) -> Result<Type> {
        let (number, id) = key;
        let at = (id - self.first(number)) as usize;
        let mut t = self.blob(number).types.get(at).context("a type that does not exist")?.clone();
        match t.kind {
            STRUCT | UNION if t.name.is_empty() => {}
            STRUCT | UNION => match wanted::members(&t.name) {
                Some([]) => {}
                // Those that BTF has no name for may hold those that are wanted.
                Some(some) => t
                    .entries
                    .retain(|entry| entry.name.is_empty() || some.contains(&entry.name.as_str())),
                None => t.entries.clear(),
            },
            ENUM | ENUM64 => t.entries.retain(|entry| wanted::enumerator(&entry.name)),
            FUNC_PROTO if !self.prototypes.contains(&key) => {
                t.entries.clear();
                t.size_or_ref = 0;
            }
            _ => {}
        }
        Ok(t)
    }

    /// The blobs, vmlinux's first; `None` if nothing is left of a module.
    pub fn write(self) -> Vec<Option<Vec<u8>>> {
        let of_blob = |number: usize| self.kept.range((number, 0)..(number + 1, 0));
        let after_base = 1 + of_blob(0).count() as u32;
        let mut ids = BTreeMap::new();
        for number in 0..=self.modules.len() {
            let first = if number == 0 { 1 } else { after_base };
            ids.extend(of_blob(number).map(|(key, _)| *key).zip(first..));
        }
        let mut base_strings = Strings::default();
        let mut blobs = Vec::new();
        for number in 0..=self.modules.len() {
            let types: Vec<Type> = of_blob(number)
                .map(|(_, t)| {
                    let mut t = t.clone();
                    for id in references(&mut t) {
                        let base = *id < self.first(number);
                        *id = ids.get(&(if base { 0 } else { number }, *id)).copied().unwrap_or(0);
                    }
                    t
                })
                .collect();
            let mut own = base_strings.on_top();
            let strings = if number == 0 { &mut base_strings } else { &mut own };
            blobs.push((!types.is_empty()).then(|| write(&types, strings)));
        }
        blobs
    }
}

/// The ids that a type refers to.
fn references(t: &mut Type) -> Vec<&mut u32> {
    match t.kind {
        PTR | TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG | FUNC => vec![&mut t.size_or_ref],
        // Element and index.
        ARRAY => t.extra.iter_mut().take(2).collect(),
        STRUCT | UNION => t.entries.iter_mut().filter_map(|e| e.words.first_mut()).collect(),
        FUNC_PROTO => {
            let parameters = t.entries.iter_mut().filter_map(|entry| entry.words.first_mut());
            std::iter::once(&mut t.size_or_ref).chain(parameters).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::blob::Entry;
    use super::*;

    fn entry(name: &str, words: &[u32]) -> Entry {
        Entry { name: name.to_owned(), words: words.to_vec() }
    }

    fn of_kind(kind: u32, name: &str, size_or_ref: u32, entries: Vec<Entry>) -> Type {
        let (name, extra) = (name.to_owned(), Vec::new());
        Type { name, kind, flag: false, size_or_ref, entries, extra }
    }

    /// As `bpftool btf dump` shows it: names, sizes and references, entries.
    fn shown(bytes: &[u8], base: Option<&Blob>) -> (Blob, Vec<String>) {
        let blob = Blob::parse(bytes, base).unwrap();
        let types = blob.types.iter().zip(blob.first..).map(|(t, id)| {
            let entries: Vec<String> =
                t.entries.iter().map(|e| format!("{}:{}", e.name, e.words[0])).collect();
            format!("{id} {} {} [{}]", t.name, t.size_or_ref, entries.join(" "))
        });
        let types = types.collect();
        (blob, types)
    }

    #[test]
    fn what_is_wanted_stays_and_what_it_refers_to_is_hollow() {
        let base = [
            of_kind(STRUCT, "unknown", 8, vec![entry("a", &[2, 0])]), // 1
            of_kind(PTR, "", 1, Vec::new()),                          // 2
            of_kind(STRUCT, "lonely", 8, vec![entry("a", &[2, 0])]),  // 3
            of_kind(STRUCT, "sk_buff", 8, vec![entry("sk", &[2, 0])]), // 4
            of_kind(PTR, "", 4, Vec::new()),                          // 5
        ];
        let module = [
            of_kind(FUNC_PROTO, "", 0, vec![entry("skb", &[5])]), // 6
            of_kind(FUNC, "nf_confirm", 6, Vec::new()),           // 7
            of_kind(FUNC, "nf_other", 6, Vec::new()),             // 8
        ];
        let mut strings = Strings::default();
        let base = Blob::parse(&write(&base, &mut strings), None).unwrap();
        let module = write(&module, &mut strings.on_top());
        let module = Blob::parse(&module, Some(&base)).unwrap();
        let reduced = Reduced::of(&base, vec![&module, &module]).unwrap().write();
        let (base, types) = shown(reduced[0].as_ref().unwrap(), None);
        assert_eq!(types, ["1 unknown 8 []", "2  1 []", "3 sk_buff 8 [sk:2]", "4  3 []"]);
        for module in &reduced[1..] {
            let (_, types) = shown(module.as_ref().unwrap(), Some(&base));
            assert_eq!(types, ["5  0 [skb:4]", "6 nf_confirm 5 []"]);
        }
    }
}
