//! Runs both programs, and takes out of what they say what passes with time.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use conntracker_tests::lab::{Guarded, Host};
use conntracker_tests::tracer::{self, PATIENCE};

/// The version that the program under test stands for.
pub const VERSION: &str = "v1.4.9";

/// Names of labels, as /etc/xtables/connlabel.conf has them in the tests.
const LABELS: &str = "# a comment\n0 zero\n1 foo\n5 bar baz\n64 mid\n127 last\n";

/// Binds the first argument over /etc and runs the rest.
const WITH_ETC: &str = "mount --bind \"$1\" /etc && shift && exec \"$@\"";

/// Both programs, and an /etc with names of labels.
pub struct Programs {
    directory: tempfile::TempDir,
}

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// conntrack(8).
    Theirs,
    /// A symbolic link of that name to the program under test.
    Ours,
}

/// What a program said, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Programs {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let etc = directory.path().join("etc");
        // The namespace's other files must be there, too: it is an /etc.
        let copied = Command::new("cp").args(["-a", "/etc"]).arg(&etc).status().unwrap();
        assert!(copied.success());
        fs::create_dir_all(etc.join("xtables")).unwrap();
        fs::write(etc.join("xtables/connlabel.conf"), LABELS).unwrap();
        symlink(tracer::binary().unwrap(), directory.path().join("conntrack")).unwrap();
        Self { directory }
    }

    /// As [`Self::new`], without names of labels.
    pub fn without_labels() -> Self {
        let programs = Self::new();
        fs::remove_file(programs.directory.path().join("etc/xtables/connlabel.conf")).unwrap();
        programs
    }

    /// Their command line, without arguments.
    fn program(&self, which: Which) -> PathBuf {
        match which {
            Which::Theirs => "conntrack".into(),
            Which::Ours => self.directory.path().join("conntrack"),
        }
    }

    /// A command line that will run in the host's namespace and see the names of labels.
    pub fn command(
        &self,
        host: &Host,
        which: Which,
        arguments: &[impl AsRef<OsStr>],
    ) -> Vec<std::ffi::OsString> {
        // `ip netns exec` has made a mount namespace of its own already.
        let mut command: Vec<std::ffi::OsString> =
            ["ip", "netns", "exec", &host.name, "sh", "-c", WITH_ETC, "sh"].map(Into::into).into();
        command.push(self.directory.path().join("etc").into());
        command.push(self.program(which).into());
        command.extend(arguments.iter().map(|argument| argument.as_ref().to_owned()));
        command
    }

    /// Starts a program.
    pub fn spawn(&self, host: &Host, which: Which, arguments: &[impl AsRef<OsStr>]) -> Guarded {
        let command = self.command(host, which, arguments);
        let mut command = Command::from_iter(command);
        Guarded::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))
            .unwrap()
    }

    /// Runs a program to its end.
    pub fn run(&self, host: &Host, which: Which, arguments: &[impl AsRef<OsStr>]) -> Said {
        self.run_with_input(host, which, arguments, "")
    }

    /// As [`Self::run`], with this standard input.
    pub fn run_with_input(
        &self,
        host: &Host,
        which: Which,
        arguments: &[impl AsRef<OsStr>],
        input: &str,
    ) -> Said {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(input.as_bytes()).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let mut command = Command::from_iter(self.command(host, which, arguments));
        command.stdin(file).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Guarded::spawn(&mut command).unwrap();
        let status = process.wait(PATIENCE).unwrap();
        let text = |text: String| if which == Which::Theirs { versioned(&text) } else { text };
        Said {
            status: status.code(),
            stdout: text(process.stdout()),
            stderr: text(process.stderr()),
        }
    }

    /// Where files of a test may stand.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// What conntrack(8) of this machine says, with the version that the program under test stands for in the
/// place of its own.
pub fn versioned(text: &str) -> String {
    let mut lines = String::new();
    for line in text.split_inclusive('\n') {
        let version = line.split(' ').find(|word| word.starts_with("v1."));
        match version.filter(|_| line.contains("(conntrack-tools)")) {
            Some(version) => lines += &line.replacen(version, VERSION, 1),
            None => lines += line,
        }
    }
    lines
}

/// A command from its words.
trait FromWords {
    fn from_iter(words: Vec<std::ffi::OsString>) -> Self;
}

impl FromWords for Command {
    fn from_iter(words: Vec<std::ffi::OsString>) -> Self {
        let mut command = Self::new(&words[0]);
        command.args(&words[1..]);
        command
    }
}

/// Words of a command line of a test; quotes keep one together.
pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (n, piece) in line.split('"').enumerate() {
        if n % 2 == 1 {
            words.push(piece.to_owned());
        } else {
            words.extend(piece.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// Text without what passes with time: seconds that are left, and ages.
pub fn timeless(text: &str) -> String {
    text.lines().map(|line| timeless_line(line) + "\n").collect()
}

fn timeless_line(line: &str) -> String {
    let mut line = line.to_owned();
    for (before, after) in
        [("<timeout>", "<"), ("<deltatime>", "<"), ("delta-time=", " "), ("-t ", " ")]
    {
        line = masked(&line, before, after);
    }
    // The seconds stand behind the number of the protocol.
    let mut words: Vec<&str> = line.split(' ').collect();
    let number = |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    let before_src = words.iter().position(|word| word.starts_with("src=")).unwrap_or(0);
    let last = words.iter().take(before_src).rposition(number);
    if let Some(last) =
        last.filter(|_| words.iter().take(before_src).filter(|w| number(w)).count() > 1)
    {
        words[last] = "T";
    }
    if words.get(1).is_some_and(|word| word.starts_with("proto=")) {
        words[0] = "T";
    }
    words.join(" ")
}

/// Replaces what stands between two texts by `T`.
pub fn masked(line: &str, before: &str, after: &str) -> String {
    match line.split_once(before) {
        Some((start, rest)) => {
            let end = rest.find(after).unwrap_or(rest.len());
            format!("{start}{before}T{}", &rest[end..])
        }
        None => line.to_owned(),
    }
}

/// Lines in an order that does not depend on where the kernel put the entries.
pub fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn what_passes_is_masked() {
    for (line, want) in [
        (
            "ipv6     10 icmpv6   58 98 src=::1 dst=::1 type=128 delta-time=5 use=1",
            "ipv6     10 icmpv6   58 T src=::1 dst=::1 type=128 delta-time=T use=1",
        ),
        ("tcp      6 99 CLOSE src=1.1.1.1", "tcp      6 T CLOSE src=1.1.1.1"),
        ("udp      17 src=1.1.1.1 (offloaded)", "udp      17 src=1.1.1.1 (offloaded)"),
        ("299 proto=0 src=1.1.1.1", "T proto=0 src=1.1.1.1"),
        ("-A -t 99 -u UNSET", "-A -t T -u UNSET"),
        (
            "<timeout>5</timeout><deltatime>1</deltatime>",
            "<timeout>T</timeout><deltatime>T</deltatime>",
        ),
    ] {
        assert_eq!(timeless_line(line), want);
    }
    assert_eq!(
        words("-U --label-add \"bar baz\" -m \"\""),
        ["-U", "--label-add", "bar baz", "-m", ""]
    );
}
