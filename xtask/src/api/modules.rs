//! The modules of a crate, as far as they are compiled with some features, and what names in them mean.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use syn::punctuated::Punctuated;
use syn::{Attribute, Item, Meta, Token, UseTree, Visibility};

/// A path from the crate's root.
pub type Segments = Vec<String>;

/// A module.
pub struct Module {
    /// It is declared `pub`.
    pub public: bool,
    pub items: Vec<Item>,
    /// What `use` items call things: the name, the path that it stands for, whether it is `pub`.
    pub uses: Vec<(String, Segments, bool)>,
}

/// All modules of a crate, by their paths.
pub type Modules = BTreeMap<Segments, Module>;

/// Reads a crate from `lib.rs` in a directory.
pub fn read(source: &Path, features: &[&str]) -> Result<Modules> {
    let mut modules = Modules::new();
    let mut open = vec![(Segments::new(), true, source.join("lib.rs"), source.to_path_buf())];
    while let Some((path, public, file, directory)) = open.pop() {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let parsed = syn::parse_file(&text).with_context(|| file.display().to_string())?;
        for (name, public) in add(&mut modules, features, path.clone(), public, parsed.items) {
            let beside = directory.join(format!("{name}.rs"));
            let inside = directory.join(&name);
            let file = if beside.is_file() { beside } else { inside.join("mod.rs") };
            open.push(([path.as_slice(), &[name]].concat(), public, file, inside));
        }
    }
    Ok(modules)
}

/// Adds a module and those written out in it. Returns the modules that are files.
fn add(
    modules: &mut Modules,
    features: &[&str],
    path: Segments,
    public: bool,
    items: Vec<Item>,
) -> Vec<(String, bool)> {
    let mut files = Vec::new();
    let mut module = Module { public, items: Vec::new(), uses: Vec::new() };
    for item in items.into_iter().filter(|item| is_compiled(attributes(item), features)) {
        match item {
            Item::Mod(inner) => {
                let (name, public) = (inner.ident.to_string(), is_public(&inner.vis));
                match inner.content {
                    Some((_, items)) => {
                        let path = [path.as_slice(), &[name]].concat();
                        add(modules, features, path, public, items);
                    }
                    None => files.push((name, public)),
                }
            }
            Item::Use(item) => tree(&path, &[], &item.tree, is_public(&item.vis), &mut module.uses),
            other => module.items.push(other),
        }
    }
    modules.insert(path, module);
    files
}

pub fn is_public(of: &Visibility) -> bool {
    matches!(of, Visibility::Public(_))
}

/// Attributes of an item.
pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether an item is compiled outside of tests, with these features alone.
pub fn is_compiled(attributes: &[Attribute], features: &[&str]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).all(|attribute| {
        attribute.parse_args::<Meta>().is_ok_and(|condition| holds(&condition, features))
    })
}

fn holds(condition: &Meta, features: &[&str]) -> bool {
    match condition {
        Meta::NameValue(pair) if pair.path.is_ident("feature") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(name), .. }) => {
                features.contains(&name.value().as_str())
            }
            _ => false,
        },
        Meta::List(list) => {
            let parse = Punctuated::<Meta, Token![,]>::parse_terminated;
            let inner = list.parse_args_with(parse).unwrap_or_default();
            let mut inner = inner.iter().map(|condition| holds(condition, features));
            match list.path.get_ident().map(ToString::to_string).as_deref() {
                Some("any") => inner.any(|holds| holds),
                Some("not") => !inner.all(|holds| holds),
                _ => inner.all(|holds| holds),
            }
        }
        // `test`, `fuzzing`, ….
        _ => false,
    }
}

/// What a `use` in the module `at` calls things.
fn tree(
    at: &[String],
    before: &[String],
    tree_: &UseTree,
    public: bool,
    uses: &mut Vec<(String, Segments, bool)>,
) {
    let with = |name: String| [before, &[name]].concat();
    let (path, called) = match tree_ {
        UseTree::Path(path) => {
            return tree(at, &with(path.ident.to_string()), &path.tree, public, uses);
        }
        UseTree::Group(group) => {
            return group.items.iter().for_each(|inner| tree(at, before, inner, public, uses));
        }
        UseTree::Glob(_) => return,
        UseTree::Name(name) if name.ident == "self" => {
            (before.to_vec(), before.last().cloned().unwrap_or_default())
        }
        UseTree::Name(name) => (with(name.ident.to_string()), name.ident.to_string()),
        UseTree::Rename(name) => (with(name.ident.to_string()), name.rename.to_string()),
    };
    uses.push((called, absolute(at, &path), public));
}

/// A path that stands in the module `at`, from the crate's root; what begins with neither `crate`, `self` nor
/// `super` is another crate's, or a module below.
fn absolute(at: &[String], path: &[String]) -> Segments {
    let mut base = match path.first().map(String::as_str) {
        Some("self" | "super") => at.to_vec(),
        Some("crate") => Segments::new(),
        _ => return [at, path].concat(),
    };
    let rest = path.iter().skip_while(|name| {
        if *name == "super" {
            base.pop();
        }
        matches!(name.as_str(), "crate" | "self" | "super")
    });
    let rest: Segments = rest.cloned().collect();
    [base, rest].concat()
}

/// Where what a path names is defined: the module, and its name there. `None` if it is no item of this crate.
pub fn definition(modules: &Modules, path: &[String]) -> Option<(Segments, String)> {
    let mut path = path.to_vec();
    // Each step follows one `use`.
    for _ in 0..8 {
        let (name, module) = path.split_last()?;
        let inside = modules.get(module)?;
        if inside.items.iter().any(|item| name_of(item).as_ref() == Some(name)) {
            return Some((module.to_vec(), name.clone()));
        }
        path = inside.uses.iter().find(|(called, ..)| called == name)?.1.clone();
    }
    None
}

/// The name of an item that has one.
pub fn name_of(item: &Item) -> Option<String> {
    Some(match item {
        Item::Const(item) => item.ident.to_string(),
        Item::Enum(item) => item.ident.to_string(),
        Item::Fn(item) => item.sig.ident.to_string(),
        Item::Static(item) => item.ident.to_string(),
        Item::Struct(item) => item.ident.to_string(),
        Item::Trait(item) => item.ident.to_string(),
        Item::Type(item) => item.ident.to_string(),
        _ => return None,
    })
}

/// Modules that another crate can name.
pub fn public(modules: &Modules) -> Vec<&Segments> {
    let is_public = |path: &&Segments| {
        (1..=path.len()).all(|n| modules.get(&path[..n]).is_some_and(|module| module.public))
    };
    modules.keys().filter(is_public).collect()
}

#[cfg(test)]
pub fn of_text(text: &str) -> Modules {
    let mut modules = Modules::new();
    add(&mut modules, &[], Vec::new(), true, syn::parse_file(text).unwrap().items);
    modules
}
