//! What `rules show --format json` lists.

use serde_json::Value;

/// The elements of an array.
///
/// # Panics
/// It is none: that is a failure of the test.
#[must_use]
pub fn array(value: &Value) -> &[Value] {
    match value {
        Value::Array(elements) => elements,
        other => panic!("no array: {other}"),
    }
}

/// Every chain, with its table.
pub fn chains(document: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    array(&document["tables"])
        .iter()
        .flat_map(|table| array(&table["chains"]).iter().map(move |chain| (table, chain)))
}
