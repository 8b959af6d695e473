//! Which items another crate can name, by which path, and what they promise.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::TokenTree;
use syn::{ImplItem, Item, ItemImpl, Type};

use super::modules::{
    self, Modules, Segments, attributes, definition, is_compiled, is_public, name_of,
};
use super::signature;

/// An item: the module that defines it, and its name.
type Definition = (Segments, String);

/// A line for each thing, in order of their paths.
pub fn lines(crate_: &str, modules: &Modules) -> BTreeSet<String> {
    let named = |path: &[String]| {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        [&[crate_], path.as_slice()].concat().join("::")
    };
    let mut lines = BTreeSet::new();
    let public = modules::public(modules);
    for module in &public {
        lines.insert(format!("{}: mod", named(module)));
    }
    let (paths, aliases) = paths(modules, &public);
    for (path, definition) in &aliases {
        if let Some(path_of) = paths.get(definition) {
            lines.insert(format!("{}: pub use {}", named(path), named(path_of)));
        }
    }
    for ((module, name), path) in &paths {
        let items = modules.get(module).into_iter().flat_map(|module| &module.items);
        for item in items.filter(|item| name_of(item).as_ref() == Some(name)) {
            let path = named(path);
            lines.extend(signature::item(item).map(|text| format!("{path}: {text}")));
            lines.extend(
                signature::parts(item)
                    .into_iter()
                    .map(|(name, text)| format!("{path}::{name}: {text}")),
            );
        }
    }
    for (at, module) in modules {
        for item in &module.items {
            match item {
                Item::Impl(item) => {
                    let defined = type_of(item)
                        .and_then(|path| definition(modules, &[at.as_slice(), &path].concat()));
                    if let Some(path) = defined.and_then(|defined| paths.get(&defined)) {
                        lines.extend(implementation(&named(path), item, |of| {
                            // A trait that nobody else can name is no promise.
                            definition(modules, &[at.as_slice(), of].concat())
                                .is_none_or(|of| paths.contains_key(&of))
                        }));
                    }
                }
                // What it makes cannot be seen here; what it makes it from can.
                Item::Macro(item) if item.ident.is_none() && public.contains(&at) => {
                    let name = item
                        .mac
                        .path
                        .segments
                        .last()
                        .map(|last| last.ident.to_string())
                        .unwrap_or_default();
                    let tokens = item.mac.tokens.clone().into_iter().collect::<Vec<_>>();
                    for part in tokens.split(
                        |token| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ';'),
                    ) {
                        let part: proc_macro2::TokenStream = part.iter().cloned().collect();
                        lines.insert(format!("{}: {name}! {}", named(at), signature::text(&part)));
                    }
                }
                _ => {}
            }
        }
    }
    lines
}

/// By which path each item can be named, and by which others too.
fn paths(
    modules: &Modules,
    public: &[&Segments],
) -> (BTreeMap<Definition, Segments>, Vec<(Segments, Definition)>) {
    let mut paths = BTreeMap::new();
    let mut aliases = Vec::new();
    let inside = || public.iter().filter_map(|path| Some((*path, modules.get(*path)?)));
    for (path, module) in inside() {
        for item in module.items.iter().filter(|item| is_public_item(item)) {
            if let Some(name) = name_of(item) {
                paths.insert((path.clone(), name.clone()), [path.as_slice(), &[name]].concat());
            }
        }
    }
    for (path, module) in inside() {
        for (called, of, _) in module.uses.iter().filter(|(.., public)| *public) {
            let Some(defined) = definition(modules, of) else { continue };
            let here = [path.as_slice(), std::slice::from_ref(called)].concat();
            match paths.entry(defined) {
                Entry::Occupied(named) => aliases.push((here, named.key().clone())),
                Entry::Vacant(unnamed) => _ = unnamed.insert(here),
            }
        }
    }
    (paths, aliases)
}

fn is_public_item(item: &Item) -> bool {
    let hidden = attributes(item).iter().any(|attribute| {
        attribute.path().is_ident("doc") && signature::text(attribute).contains("(hidden)")
    });
    !hidden
        && match item {
            Item::Const(item) => is_public(&item.vis),
            Item::Enum(item) => is_public(&item.vis),
            Item::Fn(item) => is_public(&item.vis),
            Item::Static(item) => is_public(&item.vis),
            Item::Struct(item) => is_public(&item.vis),
            Item::Trait(item) => is_public(&item.vis),
            Item::Type(item) => is_public(&item.vis),
            _ => false,
        }
}

/// The type that an `impl` is for, as it is written there.
fn type_of(item: &ItemImpl) -> Option<Segments> {
    let Type::Path(path) = &*item.self_ty else { return None };
    Some(path.path.segments.iter().map(|segment| segment.ident.to_string()).collect())
}

/// Lines of an `impl` for the type at `path`.
fn implementation(
    path: &str,
    item: &ItemImpl,
    is_public: impl Fn(&[String]) -> bool,
) -> Vec<String> {
    let Some((_, of, _)) = &item.trait_ else {
        let is_compiled =
            |part: &&ImplItem| is_compiled(signature::attributes(part), &super::FEATURES);
        let parts = item.items.iter().filter(is_compiled).filter_map(signature::inherent);
        return parts.map(|(name, text)| format!("{path}::{name}: {text}")).collect();
    };
    let segments: Segments = of.segments.iter().map(|one| one.ident.to_string()).collect();
    if !is_public(&segments) {
        return Vec::new();
    }
    let none = item.generics.params.is_empty();
    let generics = if none { String::new() } else { signature::text(&item.generics) };
    let (of, for_) = (signature::text(of), signature::text(&*item.self_ty));
    vec![format!("{path}: impl{generics} {of} for {for_}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str) -> Vec<String> {
        lines("c", &modules::of_text(text)).into_iter().collect()
    }

    #[test]
    fn what_others_can_name_is_listed_by_the_path_that_they_name_it_by() {
        let text = "
            pub mod open {
                pub use self::shut::{Made, Made as Again};
                mod shut {
                    /// Docs.
                    #[derive(Clone, Debug)]
                    #[non_exhaustive]
                    pub struct Made<T> { /// Docs.
                        pub field: Vec<T>, hidden: u8 }
                    impl<T> Made<T> {
                        pub fn new(first: u8,
                                   second: u8,
                        ) -> Self { loop {} }
                        fn own() {}
                        pub(crate) fn ours() {}
                        #[cfg(test)] pub fn tests() {}
                    }
                    impl<T> From<T> for Made<T> { fn from(_: T) -> Self { loop {} } }
                    trait Own {}
                    impl<T> Own for Made<T> {}
                    pub struct Unreachable;
                }
                pub enum Kind { One(u8, u16), Two { a: u8 }, Three }
                #[doc(hidden)] pub fn nobody() {}
                #[cfg(feature = \"absent\")] pub fn absent() {}
                #[cfg(not(feature = \"absent\"))] pub const PRESENT: u8 = 1;
            }
            mod closed { pub struct Closed; }
            pub use open::Kind;
        ";
        assert_eq!(
            listed(text),
            [
                "c: mod",
                "c::Kind: pub use c::open::Kind",
                "c::open: mod",
                "c::open::Again: pub use c::open::Made",
                "c::open::Kind: pub enum Kind",
                "c::open::Kind::One: One(u8, u16)",
                "c::open::Kind::Three: Three",
                "c::open::Kind::Two: Two { a: u8 }",
                "c::open::Made: #[derive(Clone, Debug)] #[non_exhaustive] pub struct Made<T> { .. }",
                "c::open::Made: impl<T> From<T> for Made<T>",
                "c::open::Made::field: pub field: Vec<T>",
                "c::open::Made::new: pub fn new(first: u8, second: u8) -> Self",
                "c::open::PRESENT: pub const PRESENT: u8",
            ]
        );
    }
}
