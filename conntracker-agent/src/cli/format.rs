//! `--format` of `dump`, `get`, `delete` and `events`: one format and, as behind `-o` of conntrack(8), what
//! to print besides.

use conntracker::{
    commands::table::{
        format::{EntryFormat, With},
        list::ListFormat,
    },
    report::{conntrack, json::Style},
};

/// What `dump` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpFormat {
    /// The classic report.
    Report,
    /// A format that is printed while the table is read.
    List(ListFormat),
}

/// Of `dump`.
pub fn dump(text: &str) -> Result<DumpFormat, String> {
    let (name, with) = words(text, &["report", "plain", "xml", "save", "csv", "json", "ndjson"])?;
    let format = match name {
        "report" => return Ok(DumpFormat::Report),
        "json" => ListFormat::Report(Style::Document),
        "ndjson" => ListFormat::Report(Style::Lines),
        name => ListFormat::Entries(of_entries(name, without_timestamp(with)?)),
    };
    Ok(DumpFormat::List(format))
}

/// Of `get` and `delete`.
pub fn entries(text: &str) -> Result<EntryFormat, String> {
    let (name, with) = words(text, &["plain", "xml", "save", "csv", "ndjson"])?;
    Ok(of_entries(name, without_timestamp(with)?))
}

/// Of `events`.
pub fn events(text: &str) -> Result<EntryFormat, String> {
    let (name, with) = words(text, &["plain", "xml", "save", "ndjson"])?;
    Ok(of_entries(name, with))
}

fn of_entries(name: &str, with: With) -> EntryFormat {
    match name {
        "xml" => EntryFormat::Conntrack(conntrack::Format::Xml, with),
        "save" => EntryFormat::Conntrack(conntrack::Format::Save, with),
        "csv" => EntryFormat::Csv,
        "ndjson" => EntryFormat::Ndjson,
        _ => EntryFormat::Conntrack(conntrack::Format::Plain, with),
    }
}

fn without_timestamp(with: With) -> Result<With, String> {
    if with.timestamp {
        return Err("`timestamp` is for events; `ktimestamp` is when entries began".to_owned());
    }
    Ok(with)
}

/// The format among these, `plain` if none is given, and the extra fields to print.
fn words(text: &str, formats: &[&'static str]) -> Result<(&'static str, With), String> {
    let mut format = None;
    let mut with = With::default();
    for word in text.split(',') {
        if let Some(known) = formats.iter().copied().find(|known| *known == word) {
            if let Some(other) = format.replace(known).filter(|other| *other != known) {
                return Err(format!("`{other}` and `{known}` are two formats; give one"));
            }
            continue;
        }
        match word {
            "extended" => with.extended = true,
            "id" => with.id = true,
            "ktimestamp" => with.ktimestamp = true,
            "labels" => with.labels = true,
            "timestamp" => with.timestamp = true,
            _ => {
                return Err(format!(
                    "no format `{word}`; there are: {}; and with plain or xml: extended, id, ktimestamp, labels",
                    formats.join(", ")
                ));
            }
        }
    }
    let format = format.unwrap_or("plain");
    if with != With::default() && !matches!(format, "plain" | "xml") {
        return Err(format!(
            "extended, id, ktimestamp, labels and timestamp are for plain and xml, not for `{format}`"
        ));
    }
    Ok((format, with))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(with: With) -> EntryFormat {
        EntryFormat::Conntrack(conntrack::Format::Plain, with)
    }

    #[test]
    fn words_are_one_format_and_what_to_print_besides() {
        let with = With { id: true, labels: true, ..With::default() };
        for text in ["id,labels", "plain,id,labels", "labels,plain,id,plain"] {
            assert_eq!(entries(text), Ok(plain(with)), "{text}");
        }
        assert_eq!(
            dump("xml,ktimestamp"),
            Ok(DumpFormat::List(ListFormat::Entries(EntryFormat::Conntrack(
                conntrack::Format::Xml,
                With { ktimestamp: true, ..With::default() }
            ))))
        );
        assert_eq!(dump("json"), Ok(DumpFormat::List(ListFormat::Report(Style::Document))));
        assert_eq!(events("timestamp"), Ok(plain(With { timestamp: true, ..With::default() })));
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        for (text, what) in [
            ("plain,xml", "two formats"),
            ("csv,id", "not for `csv`"),
            ("report,labels", "not for `report`"),
            ("timestamp", "is for events"),
            ("XML", "no format `XML`; there are: report, plain"),
            ("", "no format ``"),
        ] {
            let error = dump(text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
        assert!(events("csv").unwrap_err().contains("there are: plain, xml, save, ndjson"));
    }
}
