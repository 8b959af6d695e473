//! How it is started, and what it says then.

use std::process::{Command, Stdio};

use conntracker_tests::lab::Lab;
use conntracker_tests::tracer;

use crate::entries::{connect, fill, lasting, ports, prepare};
use crate::programs::{Programs, Which, versioned, words};

#[test]
fn as_a_subcommand_it_is_the_same_as_by_its_name() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    prepare(router);
    fill(router, &mut connect(router));
    let binary = tracer::binary().unwrap();
    for line in ["-V", "-h", "-C", "-h -p tcp", "-L -p foo", "-D -s 9.9.9.9", "--version", "-L -x"]
    {
        let by_name = programs.run(router, Which::Ours, &words(line));
        let mut command = router.command(&binary);
        let output =
            command.arg("conntrack").args(words(line)).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), by_name.status, "{line}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), by_name.stdout, "{line}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), by_name.stderr, "{line}");
    }
}

#[test]
fn help_names_every_option_that_theirs_names() {
    let lab = Lab::new().unwrap();
    let programs = Programs::new();
    let [theirs, ours] =
        [Which::Theirs, Which::Ours].map(|which| programs.run(&lab.router, which, &["--help"]));
    assert_eq!((theirs.status, ours.status), (Some(0), Some(0)));
    let options = |text: &str| {
        let separate = |c: char| c.is_whitespace() || matches!(c, ',' | '[');
        let words = text.split(separate).filter(|word| word.starts_with('-'));
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let named = options(&ours.stdout);
    for option in options(&theirs.stdout) {
        // Other names of --proto; -a means nothing any more.
        assert!(named.contains(&option) || option == "--protonum", "{option}: {named:?}");
    }
    let none: [&str; 0] = [];
    assert_eq!(programs.run(&lab.router, Which::Ours, &none), ours);
}

#[test]
fn refusals_of_files_are_the_same() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    let mut conntrack = connect(router);
    for file in [
        "-L",
        "-G -p udp -s 1.1.1.1 -d 1.1.1.2 --sport 3 --dport 2",
        "-E",
        "-C",
        "-S",
        "-V",
        "-L expect",
        "-F expect",
        "foo",
        "-R foo",
        "-A -p udp -s 1.1.1.1 -d 1.1.1.2 --sport 1 --dport 2 -t 100\n-A -p udp -s 1.1.1.1",
        "-A -p udp -s 1.1.1.1 -d 1.1.1.2 --sport 1 --dport 2 -t 100\n-I -p udp -s 1.1.1.1 -d 1.1.1.2 --sport 1 --dport 2 -t 100\n-A -p udp -s 1.1.1.1 -d 1.1.1.2 --sport 9 --dport 2 -t 100",
        "# comment\n\nconntrack -A -p udp -s 1.1.1.1 -d 1.1.1.2 --sport 1 --dport 2 -t 100",
        "-A -p udp -s 1.1.1.1 -d \"1.1.1.2\" --sport 9 --dport 2 -t 100 # comment",
        "-A -p udp -s 1.1.1.1 -d '1.1.1.2' --sport 9 --dport 2 -t 100",
        "-A -p udp -s 1.1.1.1 -d 1.1.1.2 --sport 9 --dport 2 -t 100\n-F\n-A -p udp -s 1.1.1.1 -d 1.1.1.2 --sport 10 --dport 2 -t 100",
        "-D -p udp --dport 77",
        "",
    ] {
        let [theirs, ours] = [Which::Theirs, Which::Ours].map(|which| {
            conntrack.flush(None, None).unwrap();
            let said = programs.run_with_input(router, which, &["-R", "-"], &format!("{file}\n"));
            (said, conntrack.count().unwrap())
        });
        assert_eq!((ours.0.status, ours.1), (theirs.0.status, theirs.1), "{file}: {:?}", ours.0);
        // Ours says which line it is.
        let first = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        let (ours, theirs) = (first(&ours.0.stderr), first(&theirs.0.stderr));
        assert!(ours.starts_with(&theirs), "{file}: {ours} {theirs}");
    }
    for line in ["-R", "-R /nonexistent", "--load-file=x", "-f ipv4 -R x", "--load x"] {
        let [theirs, ours] =
            [Which::Theirs, Which::Ours].map(|which| programs.run(router, which, &words(line)));
        assert_eq!(ours, theirs, "{line}");
    }
}

#[test]
fn without_privileges_it_says_so() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    let said = [Which::Theirs, Which::Ours].map(|which| {
        let program = programs.command(router, which, &["-L"]);
        // Behind what binds /etc.
        let at = program.len() - 2;
        let mut command = Command::new(&program[0]);
        command.args(&program[1..at]);
        command.args(["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"]);
        let output = command.args(&program[at..]).stdin(Stdio::null()).output().unwrap();
        (output.status.code(), versioned(&String::from_utf8(output.stderr).unwrap()))
    });
    let [theirs, ours] = said;
    assert_eq!(ours, theirs);
    assert_eq!(ours.0, Some(1));
}

#[test]
fn a_closed_pipe_is_success() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    let mut conntrack = connect(router);
    for n in 0..3000 {
        conntrack.create(&lasting(ports(17, "192.0.2.1", n, "192.0.2.2", 2))).unwrap();
    }
    for line in ["-L", "-L -o xml", "-D"] {
        let program = programs.command(router, Which::Ours, &words(line));
        let mut child = Command::new(&program[0])
            .args(&program[1..])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.as_str()), (Some(0), ""), "{line}");
    }
}
