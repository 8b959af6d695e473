//! docs/recording.md has each number that a recording has.

const DOCUMENT: &str = include_str!("../../../../docs/recording.md");

/// Names and numbers of the constants of a module in a source.
fn constants(source: &str, module: &str) -> Vec<(String, u64)> {
    let begin = source.find(module).map(|at| &source[at + module.len()..]);
    let inside = begin.and_then(|rest| rest.split_once("\n}")).unwrap().0;
    let constants = inside.lines().filter_map(|line| line.trim().strip_prefix("pub const "));
    constants
        .filter_map(|line| {
            let (name, rest) = line.split_once(": ")?;
            let (_, number) = rest.split_once(" = ")?;
            Some((name.to_owned(), number.trim_end_matches(';').parse().ok()?))
        })
        .collect()
}

#[test]
fn the_document_has_each_column() {
    let columns = constants(include_str!("../columns.rs"), "mod column {");
    assert!(columns.len() > 50, "{columns:?}");
    for (name, number) in columns.iter().filter(|(name, _)| name != "COUNT_OF_COLUMNS") {
        let row = format!("| {number} | {name} | ");
        assert!(DOCUMENT.contains(&row), "docs/recording.md lacks {row}");
    }
    // And none that is not there.
    let rows = DOCUMENT.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (number, name) = (cells.next()?.parse::<u64>().ok()?, cells.next()?);
        name.starts_with(|c: char| c.is_ascii_uppercase()).then_some((name, number))
    });
    for (name, number) in rows {
        let column = columns.iter().any(|(of, n)| (of.as_str(), *n) == (name, number));
        assert!(column || is_type(number), "docs/recording.md has {number} {name}");
    }
}

/// Whether a number is that of a type of blocks.
fn is_type(number: u64) -> bool {
    u8::try_from(number).is_ok_and(|number| !super::BlockType::of(number).is_of_later_version())
}

#[test]
fn the_document_has_each_type_of_block_and_kind_of_event() {
    let types = (0..=u8::MAX).map(super::BlockType::of);
    for of in types.filter(|of| !of.is_of_later_version()) {
        let row = format!("| {} | {} |", of.number(), format!("{of:?}").to_uppercase());
        assert!(DOCUMENT.contains(&row), "docs/recording.md lacks {row}");
    }
    for (name, number) in constants(include_str!("../events/mod.rs"), "mod kind {") {
        let kinds =
            DOCUMENT.split_once("**Kinds**").and_then(|(_, rest)| rest.split_once("**Columns**"));
        let row = format!("\n| {number} | ");
        assert!(kinds.unwrap().0.contains(&row), "docs/recording.md lacks kind {number}, {name}");
    }
}
