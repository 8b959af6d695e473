//! Runs commands.

mod change;
mod events;
mod failure;
mod help;
mod list;
mod load;
mod printer;
mod programs;

use std::fs;
use std::io;
use std::process::ExitCode;

use self::failure::{Failure, strerror};
use self::printer::Printer;
use super::arguments::Arguments;
use super::{Command, Names, Rejection, VERSION};
use crate::conntrack::Conntrack;
use crate::model::harmless::OneLine;
use crate::report::conntrack::LabelMap;

/// The exit status, or why the command failed.
type Outcome = Result<ExitCode, Failure>;

/// Runs the command of the arguments behind the program's name, in the network namespace of the calling thread.
#[must_use]
pub fn run(arguments: &[String]) -> ExitCode {
    let outcome = match load::file(arguments) {
        Some(file) => load::run(file),
        None => run_line(arguments),
    };
    match outcome {
        Ok(code) => code,
        // A closed pipe is no error.
        Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(failure) => print_rejection(&failure.reason()),
    }
}

fn run_line(arguments: &[String]) -> Outcome {
    let mut names = NameFiles::read();
    let mut arguments = Arguments::read(arguments, &names.names)?;
    warn(&arguments);
    names.name_labels(&mut arguments, Missing::Told)?;
    let command = Command::of(&arguments)?;
    Session::new(names.names).run(&command)
}

/// Warns about options without an effect, as conntrack(8) does.
fn warn(arguments: &Arguments) {
    for _ in 0..arguments.ignored {
        eprintln!("WARNING: ignoring -a, deprecated option.");
    }
    let status = arguments.status.unwrap_or_default();
    for (ignored, name) in status.ignored.iter().zip(["SRC", "DST"]) {
        if *ignored {
            let option = name.to_lowercase();
            eprintln!("WARNING: ignoring {name}_NAT, use --{option}-nat instead");
        }
    }
}

/// Prints why the command failed; returns the exit status.
fn print_rejection(why: &Rejection) -> ExitCode {
    print_line(&why.message);
    if why.is_usage() {
        eprintln!("Try `conntrack -h' or 'conntrack --help' for more information.");
    }
    ExitCode::from(why.status)
}

/// Prints a line on standard error in the name of conntrack(8).
fn print_line(text: &str) {
    eprintln!("{} {}", title(), OneLine(text));
}

fn title() -> String {
    format!("conntrack v{VERSION} (conntrack-tools):")
}

/// The files with names; without them numbers are printed.
struct NameFiles {
    names: Names,
    /// The file that names of labels were read from.
    labels: Option<String>,
    /// Why it could not be.
    missing: Option<io::Error>,
}

/// What to do if names of labels are needed and the file is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// Print a warning, as conntrack(8) does, and go on.
    Told,
    Passed,
}

impl NameFiles {
    /// Reads /etc/protocols. The names of labels are read for the first command line.
    fn read() -> Self {
        let protocols = fs::read_to_string("/etc/protocols").unwrap_or_default();
        Self { names: Names::parse("", &protocols), labels: None, missing: None }
    }

    /// Resolves the labels of a command line by the names in its file.
    fn name_labels(&mut self, arguments: &mut Arguments, told: Missing) -> Result<(), Rejection> {
        let path = arguments.labelmap.as_deref().unwrap_or(LabelMap::PATH);
        if self.labels.as_deref() != Some(path) {
            let (text, missing) = match fs::read(path) {
                Ok(text) => (text, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            self.names.labels = LabelMap::parse(&String::from_utf8_lossy(&text));
            self.missing = missing;
            self.labels = Some(path.to_owned());
        }
        if let Some(error) = self.missing.as_ref().filter(|_| told == Missing::Told)
            && arguments.needs_label_names()
        {
            eprintln!("nfct_labelmap_new: {}", strerror(error));
        }
        arguments.name_labels(&self.names.labels)
    }
}

/// The state that commands share.
struct Session {
    names: Names,
    conntrack: Option<Conntrack>,
    printer: Printer,
    /// Whether to say how many there were.
    summary: bool,
}

impl Session {
    fn new(names: Names) -> Self {
        Self { names, conntrack: None, printer: Printer::default(), summary: true }
    }

    fn run(&mut self, command: &Command) -> Outcome {
        let code = match command {
            Command::Help(proto) => {
                self.help(*proto);
                Ok(ExitCode::SUCCESS)
            }
            Command::Version => {
                self.version();
                Ok(ExitCode::SUCCESS)
            }
            Command::List { list, filter, zero, output } => {
                self.list(*list, filter, *zero, *output)
            }
            Command::Get { key, filter, output } => self.get(key, filter, *output),
            Command::Delete { filter, output } => self.delete(filter, *output),
            Command::Update { filter, edit, output } => self.update(filter, edit, *output),
            Command::Create { entry, lenient } => self.create(entry, *lenient),
            Command::Events { filter, groups, buffer, output } => {
                self.events(filter, *groups, *buffer, *output)
            }
            Command::Flush(family) => self.flush(*family),
            Command::Count => self.count(),
            Command::Stats => self.stats(),
            Command::ListExpectations { family, output } => {
                self.list_expectations(*family, *output)
            }
            Command::GetExpectation(key) => self.get_expectation(key),
            Command::DeleteExpectation(key) => self.delete_expectation(key),
            Command::CreateExpectation(expectation) => self.create_expectation(expectation),
            Command::ExpectationEvents(output) => self.expectation_events(*output),
            Command::FlushExpectations => self.flush_expectations(),
            Command::CountExpectations => self.count_expectations(),
            Command::ExpectationStats => self.expectation_stats(),
        }?;
        self.printer.flush()?;
        Ok(code)
    }

    /// Prints how many entries there were.
    fn summarize(&mut self, number: u64, what: &str) -> Result<(), Failure> {
        self.printer.flush()?;
        if self.summary {
            print_line(&format!("{number} {what}."));
        }
        Ok(())
    }
}

/// The connection, opened on first use, because help needs no privileges.
fn connected(conntrack: &mut Option<Conntrack>) -> Result<&mut Conntrack, Failure> {
    let open = match conntrack.take() {
        Some(open) => open,
        None => Conntrack::connect()?,
    };
    Ok(conntrack.insert(open))
}

/// Success if there was anything.
fn found(number: u64) -> ExitCode {
    if number > 0 { ExitCode::SUCCESS } else { ExitCode::from(super::FAILURE) }
}
