//! Text that others chose: names of namespaces and processes, comments of rules, messages of other programs. It must
//! not control the terminal, end a line or reverse the reading order.
//!
//! Each output has its own escape: [`OneLine`] for text and messages, [`bytes()`] for the lines of conntrack(8), and
//! [`json`] for JSON. [`is_harmful`] alone decides which characters are escaped.

use std::borrow::Cow;
use std::{
    fmt::{self, Write as _},
    io,
    ops::RangeInclusive,
};

use serde::Serialize;
use serde_json::{Serializer, ser::Formatter};

/// Invisible characters that change how the text around them is shown (category Cf of Unicode, without the visible
/// signs of Arabic and other scripts), and those that end a line (Zl, Zp).
const FORMATS: [RangeInclusive<char>; 11] = [
    '\u{ad}'..='\u{ad}',
    // Arabic letter mark.
    '\u{61c}'..='\u{61c}',
    '\u{180e}'..='\u{180e}',
    // Spaces without width, marks of direction.
    '\u{200b}'..='\u{200f}',
    // Ends of lines and paragraphs, embeddings and overrides of direction.
    '\u{2028}'..='\u{202e}',
    // Invisible operators, isolates of direction.
    '\u{2060}'..='\u{206f}',
    '\u{feff}'..='\u{feff}',
    '\u{fff9}'..='\u{fffb}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    // Tags.
    '\u{e0000}'..='\u{e007f}',
];

/// Whether a character must be escaped: control characters, including C1, which some terminals obey, and invisible
/// characters that change how the text around them is shown.
#[must_use]
pub fn is_harmful(c: char) -> bool {
    c.is_control() || (!c.is_ascii() && FORMATS.iter().any(|range| range.contains(&c)))
}

/// Text that stays in its line: harmful characters are written as escapes (`\n`, `\u{202e}`).
pub struct OneLine<'a>(pub &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        split_at_harmful(self.0, |plain, harmful| {
            f.write_str(plain)?;
            harmful.map_or(Ok(()), |c| write!(f, "{}", c.escape_default()))
        })
    }
}

/// Calls `each` with each piece of plain text and the harmful character that follows it.
fn split_at_harmful<E>(
    text: &str,
    mut each: impl FnMut(&str, Option<char>) -> Result<(), E>,
) -> Result<(), E> {
    let mut rest = text;
    while let Some(at) = rest.find(is_harmful) {
        let (plain, tail) = rest.split_at(at);
        let mut tail = tail.chars();
        each(plain, tail.next())?;
        rest = tail.as_str();
    }
    each(rest, None)
}

/// Appends bytes, with `?` in place of harmful characters and of bytes that are not UTF-8.
pub fn bytes(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        let appended = split_at_harmful(chunk.valid(), |plain, harmful| {
            out.extend_from_slice(plain.as_bytes());
            out.extend(harmful.map(|_| b'?'));
            Ok::<_, std::convert::Infallible>(())
        });
        let Ok(()) = appended;
        out.extend(chunk.invalid().iter().map(|_| b'?'));
    }
}

/// Writes a value as JSON in one line. Harmful characters are written as escapes (`\u001b`), which a JSON parser
/// reads back.
pub fn json<W: io::Write + ?Sized>(out: &mut W, value: &impl Serialize) -> io::Result<()> {
    Ok(value.serialize(&mut Serializer::with_formatter(out, Escaped))?)
}

/// Compact JSON. Below U+0020 serde_json escapes itself.
struct Escaped;

impl Formatter for Escaped {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        // Nearly all strings are plain ASCII, the names of fields among them.
        if fragment.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return writer.write_all(fragment.as_bytes());
        }
        split_at_harmful(fragment, |plain, harmful| {
            writer.write_all(plain.as_bytes())?;
            let mut units = [0; 2];
            let units = harmful.map_or(&mut [][..], |c| c.encode_utf16(&mut units));
            units.iter().try_for_each(|unit| write!(writer, "\\u{unit:04x}"))
        })
    }
}

/// The text with each line as [`OneLine`].
#[must_use]
pub fn lines(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for line in text.lines() {
        // Writing to memory does not fail.
        let _ = writeln!(clean, "{}", OneLine(line));
    }
    clean
}

/// The text in one line without characters that a terminal would obey, because comments of rules may hold any bytes.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    // A rule of several lines is easier to read joined than with escaped line breaks.
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    Cow::Owned(OneLine(&lines.join(" ")).to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_characters_cannot_break_a_line() {
        assert_eq!(OneLine("a\nTCPv4\tb\u{7f}").to_string(), r"a\nTCPv4\tb\u{7f}");
        assert_eq!(OneLine("fw-1 ü").to_string(), "fw-1 ü");
        assert_eq!(OneLine("").to_string(), "");
        assert_eq!(OneLine("\u{9b}31m\u{202e}gpj").to_string(), r"\u{9b}31m\u{202e}gpj");
        assert_eq!(lines("a\u{1b}\nb\u{2028}c"), "a\\u{1b}\nb\\u{2028}c\n");
    }

    #[test]
    fn what_is_seen_is_harmless_in_every_script() {
        let words = "naïve Ελληνικά русский עברית العربية हिन्दी 日本語 한국어 ไทย 👩🏽 €";
        assert_eq!(OneLine(words).to_string(), words);
        for c in ['\u{0}', '\u{1b}', '\u{85}', '\u{9f}', '\u{200b}', '\u{2066}', '\u{e0041}'] {
            assert!(is_harmful(c), "{c:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_question_marks() {
        let mut out = Vec::new();
        bytes(&mut out, b"a\x9b1m\xff\xc3\xbc\x1b\xe2\x80\xaeb");
        assert_eq!(out, "a?1m?ü??b".as_bytes());
    }

    proptest! {
        #[test]
        fn nothing_harmful_leaves_by_any_way_and_json_says_the_same(text in "(\\PC|\\pC){0,40}") {
            let harmless = |text: &str| !text.contains(is_harmful);
            prop_assert!(harmless(&OneLine(&text).to_string()));
            let mut out = Vec::new();
            bytes(&mut out, text.as_bytes());
            prop_assert!(harmless(str::from_utf8(&out).unwrap()));
            let mut out = Vec::new();
            json(&mut out, &text).unwrap();
            prop_assert!(harmless(str::from_utf8(&out).unwrap()));
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn no_bytes_panic(text: Vec<u8>) {
            let mut out = Vec::new();
            bytes(&mut out, &text);
            prop_assert!(str::from_utf8(&out).is_ok());
        }
    }
}
