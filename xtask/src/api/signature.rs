//! What an item promises, as one line of Rust: documentation, bodies and private fields left out.

use syn::spanned::Spanned;
use syn::{Attribute, Fields, Generics, ImplItem, Item, TraitItem, Visibility};

use super::modules::is_public;

/// The source of something, on one line.
pub fn text(of: &impl Spanned) -> String {
    let source = of.span().source_text().unwrap_or_default();
    let words: Vec<&str> = source
        .lines()
        .map(|line| line.split("//").next().unwrap_or(line))
        .flat_map(str::split_whitespace)
        .collect();
    words
        .join(" ")
        .replace("( ", "(")
        .replace(", )", ")")
        .replace(" )", ")")
        .replace("< ", "<")
        .replace(", >", ">")
}

/// Attributes that are promises.
fn promises(attributes: &[Attribute]) -> String {
    let wanted = |attribute: &&Attribute| {
        ["derive", "non_exhaustive", "must_use", "deprecated"]
            .iter()
            .any(|name| attribute.path().is_ident(name))
    };
    attributes.iter().filter(wanted).map(|attribute| text(attribute) + " ").collect()
}

/// `<T> … where …` of an item.
fn generics(of: &Generics) -> (String, String) {
    let clause =
        of.where_clause.as_ref().map_or_else(String::new, |clause| format!(" {}", text(clause)));
    (if of.params.is_empty() { String::new() } else { text(of) }, clause)
}

/// An item itself, without what is in it; `None` if it is of no kind that others can use.
pub fn item(item: &Item) -> Option<String> {
    Some(match item {
        Item::Const(item) => format!("pub const {}: {}", item.ident, text(&item.ty)),
        Item::Static(item) => format!("pub static {}: {}", item.ident, text(&item.ty)),
        Item::Fn(item) => format!("{}pub {}", promises(&item.attrs), text(&item.sig)),
        Item::Type(item) => {
            let (parameters, clause) = generics(&item.generics);
            format!("pub type {}{parameters}{clause} = {}", item.ident, text(&item.ty))
        }
        Item::Enum(item) => {
            let (parameters, clause) = generics(&item.generics);
            format!("{}pub enum {}{parameters}{clause}", promises(&item.attrs), item.ident)
        }
        Item::Struct(item) => {
            let (parameters, clause) = generics(&item.generics);
            let hidden = item.fields.iter().any(|field| !is_public(&field.vis));
            let fields = match &item.fields {
                Fields::Named(_) if hidden => " { .. }".to_owned(),
                Fields::Named(_) => String::new(),
                Fields::Unnamed(fields) => {
                    let field = |field: &syn::Field| match field.vis {
                        Visibility::Public(_) => format!("pub {}", text(&field.ty)),
                        _ => "_".to_owned(),
                    };
                    format!("({})", fields.unnamed.iter().map(field).collect::<Vec<_>>().join(", "))
                }
                Fields::Unit => ";".to_owned(),
            };
            format!(
                "{}pub struct {}{parameters}{clause}{fields}",
                promises(&item.attrs),
                item.ident
            )
        }
        Item::Trait(item) => {
            let (parameters, clause) = generics(&item.generics);
            let above = if item.supertraits.is_empty() {
                String::new()
            } else {
                format!(": {}", text(&item.supertraits))
            };
            format!("pub trait {}{parameters}{above}{clause}", item.ident)
        }
        _ => return None,
    })
}

/// What is in an item, as name and signature: fields, variants, methods of traits.
pub fn parts(item: &Item) -> Vec<(String, String)> {
    match item {
        Item::Struct(item) => {
            let public = item.fields.iter().filter(|field| is_public(&field.vis));
            let field = |field: &syn::Field| {
                let name = field.ident.as_ref()?.to_string();
                Some((name.clone(), format!("pub {name}: {}", text(&field.ty))))
            };
            public.filter_map(field).collect()
        }
        Item::Enum(item) => {
            let variant = |variant: &syn::Variant| {
                let mut fields = variant.fields.iter().map(|field| match &field.ident {
                    Some(name) => format!("{name}: {}", text(&field.ty)),
                    None => text(&field.ty),
                });
                let fields = fields.by_ref().collect::<Vec<_>>().join(", ");
                let name = &variant.ident;
                let text = match &variant.fields {
                    Fields::Named(_) => format!("{name} {{ {fields} }}"),
                    Fields::Unnamed(_) => format!("{name}({fields})"),
                    Fields::Unit => name.to_string(),
                };
                (name.to_string(), promises(&variant.attrs) + &text)
            };
            item.variants.iter().map(variant).collect()
        }
        Item::Trait(item) => {
            let part = |part: &TraitItem| match part {
                TraitItem::Fn(part) => Some((part.sig.ident.to_string(), text(&part.sig))),
                TraitItem::Const(part) => Some((
                    part.ident.to_string(),
                    format!("const {}: {}", part.ident, text(&part.ty)),
                )),
                TraitItem::Type(part) => {
                    Some((part.ident.to_string(), format!("type {}", part.ident)))
                }
                _ => None,
            };
            item.items.iter().filter_map(part).collect()
        }
        _ => Vec::new(),
    }
}

/// What another crate can call of an `impl` without a trait, as name and signature.
pub fn inherent(part: &ImplItem) -> Option<(String, String)> {
    match part {
        ImplItem::Fn(part) if is_public(&part.vis) => {
            let signature = format!("{}pub {}", promises(&part.attrs), text(&part.sig));
            Some((part.sig.ident.to_string(), signature))
        }
        ImplItem::Const(part) if is_public(&part.vis) => {
            Some((part.ident.to_string(), format!("pub const {}: {}", part.ident, text(&part.ty))))
        }
        _ => None,
    }
}

/// Attributes of a part of an `impl`.
pub fn attributes(part: &ImplItem) -> &[Attribute] {
    match part {
        ImplItem::Fn(part) => &part.attrs,
        ImplItem::Const(part) => &part.attrs,
        _ => &[],
    }
}
