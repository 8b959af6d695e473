//! The rooms of the agent and of the BPF programs, in order: a room imports only from those below it, and files of
//! one room do not import each other in circles.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::imports::{Import, Sources};
use crate::workspace;

/// A crate's rooms.
struct Crate {
    /// Its sources.
    directory: &'static str,
    /// From the top. Each is a folder of the sources, or a file with the folder's name.
    rooms: &'static [&'static str],
}

const AGENT: Crate = Crate {
    directory: "conntracker-agent/src",
    rooms: &[
        "conntrack8",
        "commands",
        "live",
        "capture",
        "report",
        "recording",
        "flowtable",
        "conntrack",
        "bpf",
        "attribution",
        "firewall",
        "netlink",
        "os",
        "model",
    ],
};

const PROGRAMS: Crate = Crate {
    directory: "conntracker-ebpf/src",
    rooms: &["agent", "flows", "paths", "packet", "base"],
};

/// Rooms that import from one other room alone, and why.
const ONLY: [(&str, &str, &str); 1] =
    [("flowtable", "model", "it takes FlowEvents and nothing else")];

/// What belongs to no room: the crate's root, and the program, which is a crate of its own.
const OUTSIDE: [&str; 3] = ["lib", "main", "cli"];

/// Says each import that runs up, each room that is not in the table, and each circle.
pub fn check() -> Result<()> {
    let mut wrong = Vec::new();
    for of in [AGENT, PROGRAMS] {
        let sources = Sources::read(&workspace::root()?.join(of.directory))?;
        wrong.extend(
            faults(&of, &sources).into_iter().map(|why| format!("{}: {why}", of.directory)),
        );
    }
    for fault in &wrong {
        eprintln!("lint: {fault}");
    }
    match wrong.len() {
        0 => Ok(()),
        n => bail!("{n} faults in the order of rooms (xtask/src/lint/rooms.rs)"),
    }
}

fn faults(of: &Crate, sources: &Sources) -> Vec<String> {
    let mut wrong = Vec::new();
    for module in sources.modules() {
        let room = module.first().map_or("lib", String::as_str);
        if !of.rooms.contains(&room) && !OUTSIDE.contains(&room) {
            wrong.push(format!("`{room}` is no room"));
        }
    }
    wrong.dedup();
    wrong.extend(sources.imports().filter_map(|import| upwards(of, import)));
    wrong.extend(sources.imports().filter_map(only));
    let inside = |import: &&Import| !import.test && import.from.first() == import.to.first();
    wrong.extend(circles(sources.imports().filter(inside)));
    wrong
}

/// What is wrong with an import that leads to a room above its own.
fn upwards(Crate { rooms, .. }: &Crate, import: &Import) -> Option<String> {
    let place =
        |module: &[String]| rooms.iter().position(|room| module.first().is_some_and(|m| m == room));
    let (from, to) = (place(&import.from)?, place(&import.to)?);
    (to < from).then(|| {
        format!(
            "{} imports {}: the room `{}` is above `{}`",
            import.from.join("::"),
            import.to.join("::"),
            rooms[to],
            rooms[from]
        )
    })
}

/// What is wrong with an import of a room that may import from one other alone.
fn only(import: &Import) -> Option<String> {
    let (from, to) = (import.from.first()?, import.to.first()?);
    let (room, other, why) = ONLY.into_iter().find(|(room, ..)| from == room)?;
    (to != room && to != other).then(|| {
        format!(
            "{} imports {}: `{room}` imports from `{other}` alone, {why}",
            import.from.join("::"),
            import.to.join("::")
        )
    })
}

/// Files that import each other, each circle once. A file and those below it are one idea: what these take from it
/// is no circle.
fn circles<'a>(imports: impl Iterator<Item = &'a Import>) -> Vec<String> {
    let mut edges: BTreeMap<&[String], Vec<&[String]>> = BTreeMap::new();
    for Import { from, to, .. } in imports {
        if !from.starts_with(to) {
            edges.entry(from).or_default().push(to);
        }
    }
    let mut found: Vec<Vec<&[String]>> = Vec::new();
    for &start in edges.keys() {
        if found.iter().any(|circle| circle.contains(&start)) {
            continue;
        }
        let reached = reachable(&edges, start);
        let circle: Vec<&[String]> = reached
            .iter()
            .copied()
            .filter(|module| reachable(&edges, module).contains(&start))
            .collect();
        if circle.len() > 1 {
            found.push(circle);
        }
    }
    let name = |circle: Vec<&[String]>| {
        let names: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
        format!("files import each other: {}", names.join(", "))
    };
    found.into_iter().map(name).collect()
}

/// Everything that a module imports, and what that imports.
fn reachable<'a>(
    edges: &BTreeMap<&'a [String], Vec<&'a [String]>>,
    start: &'a [String],
) -> Vec<&'a [String]> {
    let mut reached: Vec<&[String]> = Vec::new();
    let mut next = vec![start];
    while let Some(module) = next.pop() {
        for &to in edges.get(module).into_iter().flatten() {
            if !reached.contains(&to) {
                reached.push(to);
                next.push(to);
            }
        }
    }
    reached.sort_unstable();
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(files: &[(&str, &str)]) -> Vec<String> {
        faults(&AGENT, &Sources::parse(files.iter().copied()).unwrap())
    }

    #[test]
    fn an_import_that_runs_up_is_a_fault_in_whatever_form() {
        let above = ("report/mod.rs", "pub struct Report; pub fn write() {}");
        let wrong = |text| said(&[above, ("model/mod.rs", text)]);
        let fault = ["model imports report: the room `report` is above `model`"];
        for text in [
            "use crate::report::Report;",
            "use crate::{report::{Report as R}};",
            "use super::report;",
            "fn f() { crate::report::write(); }",
            "fn f(_: crate::report::Report) {}",
            "fn f() { assert_eq!(crate::report::write(), ()); }",
            "#[cfg(test)] mod tests { use crate::report::Report; }",
        ] {
            assert_eq!(wrong(text), fault, "{text}");
        }
        assert!(wrong("use std::io; fn f(report: u8) -> u8 { report }").is_empty());
        assert!(
            said(&[above, ("model/mod.rs", ""), ("live/mod.rs", "use crate::{report, model};")])
                .is_empty()
        );
    }

    #[test]
    fn the_flow_table_takes_nothing_but_what_the_model_has() {
        let bpf = ("bpf/mod.rs", "pub struct Record;");
        let table =
            |text| said(&[bpf, ("model/mod.rs", "pub struct Flow;"), ("flowtable/mod.rs", text)]);
        assert!(table("use crate::model::Flow;").is_empty());
        let fault = "flowtable imports bpf: `flowtable` imports from `model` alone, \
                     it takes FlowEvents and nothing else";
        assert_eq!(table("use crate::bpf::Record;"), [fault]);
    }

    #[test]
    fn a_room_that_is_not_in_the_table_is_a_fault() {
        assert_eq!(said(&[("attic/mod.rs", "")]), ["`attic` is no room"]);
        assert!(said(&[("lib.rs", ""), ("main.rs", ""), ("cli/mod.rs", "")]).is_empty());
    }

    #[test]
    fn files_of_one_room_do_not_import_each_other() {
        let parent = ("model/mod.rs", "pub use self::a::A; pub struct P; mod a; mod b;");
        let circle = ["files import each other: model::a, model::b"];
        let b = ("model/b.rs", "use super::P; pub struct B(super::A);");
        assert_eq!(said(&[parent, b, ("model/a.rs", "use super::b::B; pub struct A;")]), circle);
        // In tests they may; and what a file takes from the one that it belongs to is no circle.
        let a = ("model/a.rs", "pub struct A; #[cfg(test)] mod tests { use super::super::b::B; }");
        assert!(said(&[parent, b, a]).is_empty());
    }

    #[test]
    fn agent_and_programs_are_in_order() {
        check().unwrap();
    }
}
