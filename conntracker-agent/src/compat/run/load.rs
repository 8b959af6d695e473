//! Commands from a file, one a line (-R): as `-o save` writes them.

use std::fs;
use std::io::{self, Read};
use std::process::ExitCode;

use super::{Outcome, Session, warn};
use crate::compat::arguments::Arguments;
use crate::compat::options::{Table, Verb};
use crate::compat::{Command, Names, Rejection};

/// The file of `-R FILE` or `--load-file FILE`, which must be the first argument; what follows is
/// ignored.
pub(super) fn file(arguments: &[String]) -> Option<&str> {
    match arguments {
        [option, file, ..] if option == "-R" || option == "--load-file" => Some(file),
        _ => None,
    }
}

/// Runs the commands of a file, `-` for standard input. If one of them makes no sense, none is run.
pub(super) fn run(file: &str, names: &Names) -> Outcome {
    let text = read(file)?;
    for line in commands(&text) {
        parse(&line, names)?;
    }
    let mut session = Session { summary: false, ..Session::new(names) };
    for line in commands(&text) {
        session.run(&parse(&line, names)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &str) -> Result<String, Rejection> {
    let read = if file == "-" {
        let mut text = Vec::new();
        io::stdin().lock().read_to_end(&mut text).map(|_| text)
    } else {
        fs::read(file)
    };
    let unreadable = |_| Rejection::usage(format!("Failed to open file {file} for reading"));
    Ok(String::from_utf8_lossy(&read.map_err(unreadable)?).into_owned())
}

/// A line and its number.
struct Line<'t> {
    number: usize,
    text: &'t str,
}

/// The lines that are neither empty nor comments.
fn commands(text: &str) -> impl Iterator<Item = Line<'_>> {
    let lines = (1..).zip(text.lines()).map(|(number, text)| Line { number, text: text.trim() });
    lines.filter(|line| !line.text.is_empty() && !line.text.starts_with('#'))
}

fn parse(line: &Line<'_>, names: &Names) -> Result<Command, Rejection> {
    let words = words(line.text);
    let arguments = match words.split_first() {
        Some((program, rest)) if program == "conntrack" => rest,
        _ => &words[..],
    };
    let parsed = Arguments::read(arguments, names).and_then(|arguments| {
        warn(&arguments);
        match (arguments.verb, arguments.table) {
            (
                Some(Verb::Create | Verb::Add | Verb::Update | Verb::Delete | Verb::Flush),
                Table::Conntrack,
            ) => Command::of(&arguments),
            (verb, table) => Err(Rejection::usage(format!(
                "Cannot use command `{}' with --load-file",
                name(verb, table)
            ))),
        }
    });
    parsed.map_err(|Rejection { message, status }| Rejection {
        message: format!("{message} (line {})", line.number),
        status,
    })
}

fn name(verb: Option<Verb>, table: Table) -> String {
    let Some(verb) = verb else { return "unknown".to_owned() };
    let letter = verb.letter();
    if table == Table::Expect { format!("-{letter} expect") } else { format!("-{letter}") }
}

/// The words of a line; double quotes keep one together.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_may_be_quoted() {
        assert_eq!(
            words("-I  -p udp\t--label-add \"bar baz\"x \"\""),
            ["-I", "-p", "udp", "--label-add", "bar bazx", ""]
        );
        assert_eq!(words("open \"end"), ["open", "end"]);
    }

    #[test]
    fn comments_are_passed_over_and_errors_have_a_line() {
        let text = "# comment\n\n  conntrack -F\n-L\n";
        let lines: Vec<usize> = commands(text).map(|line| line.number).collect();
        assert_eq!(lines, [3, 4]);
        let names = Names::default();
        let results: Vec<_> = commands(text).map(|line| parse(&line, &names)).collect();
        assert_eq!(results[0], Ok(Command::Flush(None)));
        let why = results[1].clone().unwrap_err();
        assert_eq!(why.message, "Cannot use command `-L' with --load-file (line 4)");
        let why = |text| parse(&Line { number: 1, text }, &names).unwrap_err().message;
        assert_eq!(why("foo"), "Cannot use command `unknown' with --load-file (line 1)");
        assert_eq!(why("-F expect"), "Cannot use command `-F expect' with --load-file (line 1)");
        assert_eq!(why("-R x"), "unknown option `-R' (line 1)");
    }

    #[test]
    fn the_file_is_the_first_argument() {
        let arguments = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(file(&arguments("-R - -o xml")), Some("-"));
        assert_eq!(file(&arguments("--load-file x")), Some("x"));
        for other in ["-R", "-f ipv4 -R x", "--load-file=x", "-Rx"] {
            assert_eq!(file(&arguments(other)), None);
        }
    }
}
