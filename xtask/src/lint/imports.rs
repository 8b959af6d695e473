//! Which modules of a crate import which, read from its sources.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use syn::visit::Visit;
use syn::{Attribute, ItemFn, ItemMod, ItemUse, Macro, UseTree};

/// A path from the crate's root.
type Segments = Vec<String>;

/// One module's import of another; both are files.
#[derive(Debug, PartialEq, Eq)]
pub struct Import {
    pub from: Segments,
    pub to: Segments,
    /// It is in a test.
    pub test: bool,
}

/// The sources of a crate.
pub struct Sources {
    /// By module: the paths that it names, and what its `use` items call them.
    modules: BTreeMap<Segments, Named>,
    imports: Vec<Import>,
}

#[derive(Default)]
struct Named {
    paths: Vec<(Segments, bool)>,
    names: BTreeMap<String, Segments>,
}

impl Sources {
    /// Reads all files below a directory.
    pub fn read(root: &Path) -> Result<Self> {
        let files = rust_files(root)?;
        let texts = files
            .iter()
            .map(|file| {
                let text = fs::read_to_string(root.join(file)).with_context(|| file.clone())?;
                Ok((file.as_str(), text))
            })
            .collect::<Result<Vec<_>>>()?;
        Self::parse(texts.iter().map(|(file, text)| (*file, text.as_str())))
    }

    /// From the files of a crate: paths below `src`, and texts.
    pub fn parse<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut modules = BTreeMap::new();
        for (file, text) in files {
            let module = module_of(file);
            let parsed = syn::parse_file(text).with_context(|| format!("cannot parse {file}"))?;
            let test = module.iter().any(|name| matches!(name.as_str(), "tests" | "fixtures"));
            let mut reader =
                Reader { file: &module, inside: module.clone(), test, named: Named::default() };
            reader.visit_file(&parsed);
            let named = reader.named;
            modules.insert(module, named);
        }
        let mut sources = Self { modules, imports: Vec::new() };
        let mut imports = Vec::new();
        for (from, named) in &sources.modules {
            for (path, test) in &named.paths {
                let to = sources.file_of(path, 8);
                let import = Import { from: from.clone(), to, test: *test };
                if import.from != import.to && !imports.contains(&import) {
                    imports.push(import);
                }
            }
        }
        sources.imports = imports;
        Ok(sources)
    }

    /// All modules that are files.
    pub fn modules(&self) -> impl Iterator<Item = &Segments> {
        self.modules.keys()
    }

    /// All imports, each once.
    pub fn imports(&self) -> impl Iterator<Item = &Import> {
        self.imports.iter()
    }

    /// The file where what a path names is defined: names that a module takes from elsewhere are followed.
    fn file_of(&self, path: &[String], most: u32) -> Segments {
        let longest = (0..=path.len()).rev().find(|&n| self.modules.contains_key(&path[..n]));
        let module = &path[..longest.unwrap_or(0)];
        let elsewhere = path
            .get(module.len())
            .and_then(|name| self.modules.get(module)?.names.get(name))
            .filter(|target| most > 0 && !target.starts_with(path));
        match elsewhere {
            Some(target) => {
                let rest = &path[module.len() + 1..];
                self.file_of(&[target, rest].concat(), most - 1)
            }
            None => module.to_vec(),
        }
    }
}

/// `report/json/mod.rs` and `report/json.rs` are report::json, `lib.rs` is the root.
fn module_of(file: &str) -> Segments {
    let mut segments: Segments =
        file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if segments.last().is_some_and(|last| last == "mod") || segments == ["lib"] {
        segments.pop();
    }
    segments
}

/// All Rust files below a directory, as paths from there.
pub fn rust_files(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.strip_prefix(root)?.to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Walks over a file.
struct Reader<'a> {
    file: &'a [String],
    /// The module that the walk is in: the file's, or one that is written out in it.
    inside: Segments,
    test: bool,
    named: Named,
}

impl Reader<'_> {
    /// From the crate's root, if a path begins with `crate`, `self` or `super`.
    fn absolute(&self, path: &[String]) -> Option<Segments> {
        let mut base: Segments = match path.first()?.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => self.inside.clone(),
            _ => return None,
        };
        let rest = path.iter().skip_while(|name| {
            let up = name.as_str() == "super";
            if up {
                base.pop();
            }
            up || matches!(name.as_str(), "crate" | "self")
        });
        let rest: Segments = rest.cloned().collect();
        base.extend(rest);
        Some(base)
    }

    fn name(&mut self, path: &[String]) {
        if let Some(path) = self.absolute(path) {
            self.named.paths.push((path, self.test));
        }
    }

    fn tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: String| [before, &[name]].concat();
        let (path, called) = match tree {
            UseTree::Path(path) => return self.tree(&with(path.ident.to_string()), &path.tree),
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.tree(before, tree));
            }
            UseTree::Glob(_) => (before.to_vec(), None),
            UseTree::Name(name) if name.ident == "self" => {
                (before.to_vec(), before.last().cloned())
            }
            UseTree::Name(name) => (with(name.ident.to_string()), Some(name.ident.to_string())),
            UseTree::Rename(name) => (with(name.ident.to_string()), Some(name.rename.to_string())),
        };
        self.name(&path);
        if let (Some(path), Some(called)) = (self.absolute(&path), called)
            && self.inside == self.file
        {
            self.named.names.insert(called, path);
        }
    }

    /// Runs in an item that may be for tests alone.
    fn item(&mut self, attributes: &[Attribute], walk: impl FnOnce(&mut Self)) {
        let before = self.test;
        self.test |= attributes.iter().any(is_for_tests);
        walk(self);
        self.test = before;
    }

    /// Paths in the words of a macro's call.
    fn words(&mut self, words: proc_macro2::TokenStream) {
        let mut path: Segments = Vec::new();
        let mut colons = 0;
        for word in words {
            match word {
                proc_macro2::TokenTree::Ident(name) if path.is_empty() || colons == 2 => {
                    path.push(name.to_string());
                    colons = 0;
                }
                proc_macro2::TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                other => {
                    self.name(&std::mem::take(&mut path));
                    colons = 0;
                    match other {
                        proc_macro2::TokenTree::Ident(name) => path.push(name.to_string()),
                        proc_macro2::TokenTree::Group(group) => self.words(group.stream()),
                        _ => {}
                    }
                }
            }
        }
        self.name(&path);
    }
}

/// `#[cfg(test)]`, `#[test]`.
fn is_for_tests(attribute: &Attribute) -> bool {
    let test = |list: &syn::MetaList| list.tokens.to_string() == "test";
    attribute.path().is_ident("test")
        || attribute.path().is_ident("cfg") && attribute.meta.require_list().is_ok_and(test)
}

impl<'a> Visit<'a> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'a ItemMod) {
        if item.content.is_none() {
            return;
        }
        self.inside.push(item.ident.to_string());
        self.item(&item.attrs, |reader| syn::visit::visit_item_mod(reader, item));
        self.inside.pop();
    }

    fn visit_item_fn(&mut self, item: &'a ItemFn) {
        self.item(&item.attrs, |reader| syn::visit::visit_item_fn(reader, item));
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        self.item(&item.attrs, |reader| reader.tree(&[], &item.tree));
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments: Segments =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        // A module may also be named by what the file itself calls it.
        self.name(&segments);
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'a Macro) {
        self.words(call.tokens.clone());
        syn::visit::visit_macro(self, call);
    }
}
