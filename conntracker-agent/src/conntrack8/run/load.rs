//! Commands from a file (-R), one in each line, as `-o save` writes them.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use super::failure::{Failure, strerror};
use super::{Missing, NameFiles, Outcome, Session, warn};
use crate::conntrack8::arguments::Arguments;
use crate::conntrack8::options::{Table, Verb};
use crate::conntrack8::{Command, Names, Rejection};

/// The file of `-R FILE` or `--load-file FILE`, which must be the first argument; what follows is
/// ignored.
pub(super) fn file(arguments: &[String]) -> Option<&str> {
    match arguments {
        [option, file, ..] if option == "-R" || option == "--load-file" => Some(file),
        _ => None,
    }
}

/// Runs the commands of a file, `-` for standard input. The file is read twice, line by line, so that no command runs
/// if one of the lines is invalid and memory does not grow with the file.
pub(super) fn run(file: &str) -> Outcome {
    let mut lines = Lines::open(file)?;
    let mut names = NameFiles::read();
    lines.each(|line| {
        let mut arguments = read(line, &names.names)?;
        command(line, &mut names, &mut arguments, Missing::Passed)?;
        Ok(())
    })?;
    let mut session = Session { summary: false, ..Session::new(Names::default()) };
    lines.each(|line| {
        let mut arguments = read(line, &names.names)?;
        warn(&arguments);
        let command = command(line, &mut names, &mut arguments, Missing::Told)?;
        if session.names.labels != names.names.labels {
            session.names.labels.clone_from(&names.names.labels);
        }
        session.run(&command).map(|_| ())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A line and its number.
struct Line<'t> {
    number: usize,
    text: &'t str,
}

/// Bytes of the longest line: a hundred times what a command can need.
const LONGEST: u64 = 1 << 18;

/// The lines of a file that can be read again.
struct Lines {
    file: File,
    /// Position of the first line, because standard input may have been read in part.
    start: u64,
}

impl Lines {
    /// Opens a file. If it is no regular file, it is copied into an unnamed one.
    fn open(name: &str) -> Result<Self, Rejection> {
        let unreadable = |_| Rejection::usage(format!("Failed to open file {name} for reading"));
        let mut file = if name == "-" {
            File::from(io::stdin().as_fd().try_clone_to_owned().map_err(unreadable)?)
        } else {
            File::open(name).map_err(unreadable)?
        };
        if file.metadata().map_err(unreadable)?.is_file() {
            let start = file.stream_position().map_err(unreadable)?;
            return Ok(Self { file, start });
        }
        let uncopied = |error| {
            Rejection::failure(format!(
                "cannot keep what {name} says in a temporary file (TMPDIR): {error}"
            ))
        };
        let mut copy = tempfile::tempfile().map_err(uncopied)?;
        io::copy(&mut file, &mut copy).map_err(uncopied)?;
        Ok(Self { file: copy, start: 0 })
    }

    /// Hands the lines that are neither empty nor comments to `each`.
    fn each(
        &mut self,
        mut each: impl FnMut(&Line<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let failed =
            |error| Rejection::failure(format!("cannot read the file: {}", strerror(&error)));
        self.file.seek(SeekFrom::Start(self.start)).map_err(failed)?;
        let mut reader = BufReader::new(&self.file);
        let mut bytes = Vec::new();
        for number in 1.. {
            bytes.clear();
            let read = reader.by_ref().take(LONGEST).read_until(b'\n', &mut bytes);
            let read = read.map_err(failed)? as u64;
            if read == 0 {
                break;
            }
            if read == LONGEST && bytes.last() != Some(&b'\n') {
                return Err(Rejection::usage(format!("line {number} has no end")).into());
            }
            let text = String::from_utf8_lossy(&bytes);
            let text = text.trim();
            if !text.is_empty() && !text.starts_with('#') {
                each(&Line { number, text })?;
            }
        }
        Ok(())
    }
}

/// Reads a line.
fn read(line: &Line<'_>, names: &Names) -> Result<Arguments, Rejection> {
    let words = words(line.text);
    let arguments = match words.split_first() {
        Some((program, rest)) if program == "conntrack" => rest,
        _ => &words[..],
    };
    Arguments::read(arguments, names).map_err(|why| at(line, why))
}

/// The command of a line.
fn command(
    line: &Line<'_>,
    names: &mut NameFiles,
    arguments: &mut Arguments,
    missing: Missing,
) -> Result<Command, Rejection> {
    let named = names.name_labels(arguments, missing);
    let command = named.and_then(|()| match (arguments.verb, arguments.table) {
        (
            Some(Verb::Create | Verb::Add | Verb::Update | Verb::Delete | Verb::Flush),
            Table::Conntrack,
        ) => Command::of(arguments),
        (verb, table) => Err(Rejection::usage(format!(
            "Cannot use command `{}' with --load-file",
            name(verb, table)
        ))),
    });
    command.map_err(|why| at(line, why))
}

/// Says in which line something is wrong.
fn at(line: &Line<'_>, Rejection { message, status }: Rejection) -> Rejection {
    Rejection { message: format!("{message} (line {})", line.number), status }
}

fn name(verb: Option<Verb>, table: Table) -> String {
    let Some(verb) = verb else { return "unknown".to_owned() };
    let letter = verb.letter();
    if table == Table::Expect { format!("-{letter} expect") } else { format!("-{letter}") }
}

/// The words of a line; double quotes enclose one word.
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

    /// The lines of a file with this text.
    fn lines(text: &str) -> Lines {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        Lines { file, start: 0 }
    }

    fn parse(line: &Line<'_>) -> Result<Command, Rejection> {
        let mut names = NameFiles { labels: None, ..NameFiles::read() };
        let mut arguments = read(line, &names.names)?;
        command(line, &mut names, &mut arguments, Missing::Passed)
    }

    #[test]
    fn comments_are_passed_over_and_errors_have_a_line() {
        let mut lines = lines("# comment\n\n  conntrack -F\n-L");
        for _ in 0..2 {
            let mut found = Vec::new();
            let read = lines.each(|line| {
                found.push((line.number, parse(line)));
                Ok(())
            });
            assert!(read.is_ok());
            assert_eq!(found[0], (3, Ok(Command::Flush(None))));
            let why = found[1].1.clone().unwrap_err();
            assert_eq!(why.message, "Cannot use command `-L' with --load-file (line 4)");
        }
        let why = |text| parse(&Line { number: 1, text }).unwrap_err().message;
        assert_eq!(why("foo"), "Cannot use command `unknown' with --load-file (line 1)");
        assert_eq!(why("-F expect"), "Cannot use command `-F expect' with --load-file (line 1)");
        assert_eq!(why("-R x"), "unknown option `-R' (line 1)");
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let mut lines = lines(&format!("-F\n{}", "-F ".repeat(1 << 17)));
        let mut seen = 0;
        let read = lines.each(|_| {
            seen += 1;
            Ok(())
        });
        let Err(why) = read else { panic!("it was read") };
        assert_eq!((seen, why.reason().message.as_str()), (1, "line 2 has no end"));
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
