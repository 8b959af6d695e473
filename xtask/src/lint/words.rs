//! Words that no type and no file is named by: they are this project's own, and say nothing to who knows netfilter.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail};
use syn::visit::Visit;

use super::imports::rust_files;
use crate::workspace;

/// The words.
const BANNED: [&str; 16] = [
    "place",
    "places",
    "way",
    "ways",
    "moment",
    "rests",
    "numbers",
    "told",
    "sighted",
    "peek",
    "known",
    "trust",
    "newcomers",
    "making",
    "happening",
    "eyes",
];

/// Crates whose names are looked at.
const CRATES: [&str; 3] =
    ["conntracker-agent/src", "conntracker-ebpf/src", "conntracker-common/src"];

/// Says each file and each type that is named by one of the words.
pub fn check() -> Result<()> {
    let mut wrong = 0;
    for crate_ in CRATES {
        let root = workspace::root()?.join(crate_);
        for file in rust_files(&root)? {
            let text = fs::read_to_string(root.join(&file)).with_context(|| file.clone())?;
            for name in names(&file, &text)?.iter().filter(|name| is_banned(name)) {
                eprintln!("lint: {crate_}/{file}: `{name}` is no word of netfilter's");
                wrong += 1;
            }
        }
    }
    if wrong > 0 {
        bail!("{wrong} names (xtask/src/lint/words.rs)");
    }
    Ok(())
}

fn is_banned(name: &str) -> bool {
    BANNED.contains(&name.to_lowercase().as_str())
}

/// What a file is called, and the types and modules in it.
fn names(file: &str, text: &str) -> Result<BTreeSet<String>> {
    let mut names = Names::default();
    let stem = file.trim_end_matches(".rs").rsplit('/').next().unwrap_or_default();
    names.0.insert(stem.to_owned());
    names.visit_file(&syn::parse_file(text).with_context(|| format!("cannot parse {file}"))?);
    Ok(names.0)
}

#[derive(Default)]
struct Names(BTreeSet<String>);

impl<'a> Visit<'a> for Names {
    fn visit_item(&mut self, item: &'a syn::Item) {
        let name = match item {
            syn::Item::Enum(item) => Some(&item.ident),
            syn::Item::Mod(item) => Some(&item.ident),
            syn::Item::Struct(item) => Some(&item.ident),
            syn::Item::Trait(item) => Some(&item.ident),
            syn::Item::Type(item) => Some(&item.ident),
            _ => None,
        };
        self.0.extend(name.map(ToString::to_string));
        syn::visit::visit_item(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_modules_and_types_are_looked_at() {
        let text = "mod way {} struct Place; enum Path { Way } type Eyes = u8; trait Numbers {} fn told() {}";
        let found = names("capture/newcomers.rs", text).unwrap();
        let banned: Vec<_> = found.iter().filter(|name| is_banned(name)).collect();
        assert_eq!(banned, ["Eyes", "Numbers", "Place", "newcomers", "way"]);
    }

    #[test]
    fn none_is_in_use() {
        check().unwrap();
    }
}
