//! Parses options like getopt_long(3): several short ones in one argument (`-Lz`), values attached or separate,
//! unique abbreviations of long ones, operands anywhere, and only operands behind `--`.

/// The values of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// No value.
    Nothing,
    /// A value.
    Value,
    /// A value, attached or as the next argument unless that begins with `-`.
    Maybe,
    /// As `Maybe`, but attached letters are further options.
    MaybeNext,
}

/// An option.
#[derive(Clone, Copy, Debug)]
pub struct Definition<T: 'static> {
    /// Its letter.
    pub short: Option<char>,
    /// Its names, without `--`.
    pub long: &'static [&'static str],
    /// Its values.
    pub takes: Takes,
    /// What it is.
    pub id: T,
}

/// An option of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    /// Which.
    pub id: T,
    /// Its value, if it has one.
    pub value: Option<String>,
    /// Whether it follows another letter in the same argument.
    pub behind: bool,
}

/// Why an argument is not an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No option has this name, or several begin with it.
    Unknown(String),
    /// It needs a value.
    NoValue(String),
}

/// Reads arguments one option at a time. Each call gets the definitions, because they may depend on earlier options.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    arguments: &'a [String],
    /// Unread letters of the present argument.
    letters: &'a str,
    /// Whether they follow a letter that was read.
    behind: bool,
}

impl<'a> Reader<'a> {
    /// The arguments behind the program's name.
    #[must_use]
    pub fn new(arguments: &'a [String]) -> Self {
        Self { arguments, letters: "", behind: false }
    }

    /// The next option; `None` at the end. Operands are skipped.
    pub fn next<T: Copy + PartialEq>(
        &mut self,
        definitions: &[&[Definition<T>]],
    ) -> Option<Result<Found<T>, Problem>> {
        while self.letters.is_empty() {
            let (argument, rest) = self.arguments.split_first()?;
            self.arguments = rest;
            if let Some(name) = argument.strip_prefix("--") {
                if name.is_empty() {
                    self.arguments = &[];
                    return None;
                }
                return Some(self.long(argument, name, definitions));
            }
            self.letters = argument.strip_prefix('-').unwrap_or_default();
            self.behind = false;
        }
        Some(self.short(definitions))
    }

    fn short<T: Copy>(&mut self, definitions: &[&[Definition<T>]]) -> Result<Found<T>, Problem> {
        let mut letters = self.letters.chars();
        let letter = letters.next().unwrap_or_default();
        let attached = letters.as_str();
        let text = || format!("-{letter}");
        let Some(definition) = all(definitions).find(|d| d.short == Some(letter)) else {
            return Err(Problem::Unknown(text()));
        };
        let value = match definition.takes {
            Takes::Nothing | Takes::MaybeNext => {
                self.letters = attached;
                (definition.takes == Takes::MaybeNext && attached.is_empty())
                    .then(|| self.value())
                    .flatten()
            }
            Takes::Value | Takes::Maybe => {
                self.letters = "";
                let attached = Some(attached).filter(|a| !a.is_empty()).map(str::to_owned);
                match definition.takes {
                    Takes::Maybe => attached.or_else(|| self.value()),
                    _ => Some(attached.or_else(|| self.any()).ok_or(Problem::NoValue(text()))?),
                }
            }
        };
        let behind = std::mem::replace(&mut self.behind, true);
        Ok(Found { id: definition.id, value, behind })
    }

    fn long<T: Copy + PartialEq>(
        &mut self,
        argument: &str,
        name: &str,
        definitions: &[&[Definition<T>]],
    ) -> Result<Found<T>, Problem> {
        let (name, attached) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let unknown = || Problem::Unknown(argument.to_owned());
        let definition = find(name, definitions).ok_or_else(unknown)?;
        let value = match definition.takes {
            Takes::Nothing if attached.is_some() => return Err(unknown()),
            Takes::Nothing => None,
            Takes::Value => {
                let value = attached.or_else(|| self.any());
                Some(value.ok_or_else(|| Problem::NoValue(argument.to_owned()))?)
            }
            Takes::Maybe | Takes::MaybeNext => attached.or_else(|| self.value()),
        };
        Ok(Found { id: definition.id, value, behind: false })
    }

    /// The next argument, whatever it is.
    fn any(&mut self) -> Option<String> {
        let (value, rest) = self.arguments.split_first()?;
        self.arguments = rest;
        Some(value.clone())
    }

    /// The next argument, unless it is an option.
    fn value(&mut self) -> Option<String> {
        if self.arguments.first()?.starts_with('-') { None } else { self.any() }
    }
}

fn all<'d, T>(definitions: &'d [&'d [Definition<T>]]) -> impl Iterator<Item = &'d Definition<T>> {
    definitions.iter().flat_map(|some| some.iter())
}

/// The option with this name, or the only one that begins with it.
fn find<'d, T: Copy + PartialEq>(
    name: &str,
    definitions: &'d [&'d [Definition<T>]],
) -> Option<&'d Definition<T>> {
    if let Some(exact) = all(definitions).find(|d| d.long.contains(&name)) {
        return Some(exact);
    }
    let mut candidates =
        all(definitions).filter(|d| d.long.iter().any(|long| long.starts_with(name)));
    let first = candidates.next()?;
    candidates.all(|other| other.id == first.id).then_some(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFINITIONS: &[Definition<u8>] = &[
        Definition { short: Some('L'), long: &["dump"], takes: Takes::Maybe, id: 0 },
        Definition { short: Some('z'), long: &["zero"], takes: Takes::Nothing, id: 1 },
        Definition { short: Some('s'), long: &["src", "orig-src"], takes: Takes::Value, id: 2 },
        Definition { short: Some('S'), long: &["stats"], takes: Takes::MaybeNext, id: 3 },
        Definition { short: None, long: &["orig-zone"], takes: Takes::Value, id: 4 },
    ];

    fn read(arguments: &str) -> Result<Vec<(u8, Option<String>)>, Problem> {
        let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
        let mut reader = Reader::new(&arguments);
        let mut found = Vec::new();
        while let Some(option) = reader.next(&[DEFINITIONS]) {
            let Found { id, value, behind: _ } = option?;
            found.push((id, value));
        }
        Ok(found)
    }

    #[test]
    fn values_are_attached_or_follow() {
        let some = |text: &str| Some(text.to_owned());
        for (arguments, want) in [
            ("-L -z", vec![(0, None), (1, None)]),
            ("-zL", vec![(1, None), (0, None)]),
            ("-Lexpect -s1", vec![(0, some("expect")), (2, some("1"))]),
            ("-L expect -s -1", vec![(0, some("expect")), (2, some("-1"))]),
            (
                "--dump=expect --src=1 --src 2",
                vec![(0, some("expect")), (2, some("1")), (2, some("2"))],
            ),
            ("operand -zS expect more -z", vec![(1, None), (3, some("expect")), (1, None)]),
            ("-Sz", vec![(3, None), (1, None)]),
            ("-z -- -L", vec![(1, None)]),
            ("--orig-s 1 --sr 2 --z", vec![(2, some("1")), (2, some("2")), (1, None)]),
            ("-", vec![]),
        ] {
            assert_eq!(read(arguments), Ok(want), "{arguments}");
        }
    }

    #[test]
    fn letters_of_one_argument_stand_behind_each_other() {
        let arguments = ["-zS", "-z", "--zero"].map(str::to_owned);
        let mut reader = Reader::new(&arguments);
        let mut behind = Vec::new();
        while let Some(found) = reader.next(&[DEFINITIONS]) {
            behind.push(found.unwrap().behind);
        }
        assert_eq!(behind, [false, true, false, false]);
    }

    #[test]
    fn what_is_no_option_is_named() {
        let unknown = |text: &str| Err(Problem::Unknown(text.to_owned()));
        assert_eq!(read("-zx"), unknown("-x"));
        assert_eq!(read("--orig 1"), unknown("--orig"));
        assert_eq!(read("--nothing=1"), unknown("--nothing=1"));
        assert_eq!(read("--zero=1"), unknown("--zero=1"));
        assert_eq!(read("-z -s"), Err(Problem::NoValue("-s".to_owned())));
        assert_eq!(read("--src"), Err(Problem::NoValue("--src".to_owned())));
    }

    proptest! {
        #[test]
        fn it_ends_and_does_not_panic(arguments in proptest::collection::vec("\\PC{0,6}|-[Lzs-]{0,4}|--[a-z=-]{0,9}", 0..9)) {
            let mut reader = Reader::new(&arguments);
            let mut steps = 0;
            while let Some(Ok(_)) = reader.next(&[DEFINITIONS]) {
                steps += 1;
                prop_assert!(steps < 100);
            }
        }
    }
}
