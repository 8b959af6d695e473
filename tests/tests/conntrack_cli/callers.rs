//! What programs that call conntrack(8) rely on.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

use conntracker_tests::lab::{Lab, TRACKING};
use conntracker_tests::tracer::{self, PATIENCE};
use conntracker_tests::traffic::{tcp_connect, tcp_echo_server};
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};

use crate::entries::{connect, fill, lasting, ports, prepare};
use crate::programs::{Programs, Which, words};

/// VyOS takes an empty answer for an empty table.
#[test]
fn where_there_is_nothing_xml_is_nothing() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    for line in [
        "--dump --family ipv6 --output xml",
        "-L -o xml",
        "-L -o xml,id,labels",
        "-L dying -o xml",
        "-L expect -o xml",
        "-D -o xml",
        "-D -o xml -s 9.9.9.9",
        "-U -o xml -s 9.9.9.9 -m 1",
        "-G -o xml -p udp -s 9.9.9.9 -d 9.9.9.8 --sport 1 --dport 2",
    ] {
        let [theirs, ours] =
            [Which::Theirs, Which::Ours].map(|which| programs.run(router, which, &words(line)));
        assert_eq!(ours, theirs, "{line}");
        assert_eq!(ours.stdout, "", "{line}");
    }
    // Events that nobody saw.
    for line in ["-E -o xml", "-E expect -o xml"] {
        let mut program = programs.spawn(router, Which::Ours, &words(line));
        while program.running().unwrap() {
            std::thread::sleep(Duration::from_millis(300));
            program.signal(Signal::SIGINT).unwrap();
        }
        assert_eq!(program.stdout(), "", "{line}");
    }
    // A document of our own command is a document all the same.
    let dump = tracer::stdout(["dump", "--netns", &router.name, "--format", "xml"]).unwrap();
    assert!(dump.ends_with("<conntrack>\n</conntrack>\n"), "{dump}");
}

/// calicoctl calls `conntrack -LSC`, which lists; and 1.4.9 takes letters behind a command for options.
#[test]
fn letters_behind_a_command_are_options_and_no_commands() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    prepare(router);
    fill(router, &mut connect(router));
    let run = |which, line: &str| {
        let said = programs.run(router, which, &words(line));
        (said.status, said.stdout.lines().count(), said.stderr)
    };
    let all = run(Which::Theirs, "-L");
    assert!(all.1 > 30, "{all:?}");
    for line in ["-LSC", "-LS", "-LC", "-LD", "-LL"] {
        assert_eq!(run(Which::Theirs, line), all, "{line}");
        assert_eq!(run(Which::Ours, line), all, "{line}");
    }
    // In 1.4.7 what stands behind the letter is lost.
    for (together, apart) in [
        ("-Lp udp", "-L -p udp"),
        ("-Lo id -p tcp", "-L -o id -p tcp"),
        ("-Lf ipv6", "-L -f ipv6"),
        ("-Ds 192.0.2.9", "-D -s 192.0.2.9"),
        ("-Ls", "-L -s"),
        ("-Lq", "-L -q"),
        ("-Lx", "-L -x"),
    ] {
        assert_eq!(run(Which::Ours, together), run(Which::Theirs, apart), "{together}");
    }
    for line in ["-SL", "-L -S", "-S -C", "-zL -D"] {
        assert_eq!(run(Which::Ours, line), run(Which::Theirs, line), "{line}");
    }
    assert_eq!(run(Which::Ours, "-SL").0, Some(2));
}

#[test]
fn without_names_of_labels_it_says_so_and_goes_on() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::without_labels());
    for line in ["-L -o labels", "-L -o id,labels", "-L -o xml,labels", "-L", "-L -o save"] {
        let [theirs, ours] =
            [Which::Theirs, Which::Ours].map(|which| programs.run(router, which, &words(line)));
        assert_eq!(ours, theirs, "{line}");
    }
    let add = "-I -p udp -s 1.1.1.1 -d 1.1.1.2 --sport 1 --dport 2 -t 9 --label-add foo";
    for line in ["-L -l foo", "-D -l foo", "-U -m 1 --label-del foo", add] {
        let [theirs, ours] =
            [Which::Theirs, Which::Ours].map(|which| programs.run(router, which, &words(line)));
        assert_eq!(ours, theirs, "{line}");
        assert!(ours.stderr.starts_with("nfct_labelmap_new: No such file or directory\n"));
    }
    // Numbers need no names.
    let ours = programs.run(router, Which::Ours, &words("-L -l 3"));
    assert_eq!((ours.status, ours.stdout.as_str()), (Some(0), ""));
    assert!(ours.stderr.starts_with("nfct_labelmap_new: No such file or directory\n"));
}

#[test]
fn names_of_labels_come_from_the_file_that_is_named() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    prepare(router);
    fill(router, &mut connect(router));
    let file = programs.directory().join("other labels");
    fs::write(&file, "1 one\n127 the-last\n").unwrap();
    let file = file.to_str().unwrap();
    let run = |line: &str| {
        let mut words = words(line);
        words.extend(["--labelmap".to_owned(), file.to_owned()]);
        programs.run(router, Which::Ours, &words)
    };
    let said = run("-L -l the-last -o labels");
    assert!(said.stdout.ends_with(" labels=one,the-last\n"), "{said:?}");
    // Names of the usual file are none then, whichever option comes first.
    assert_eq!(run("-L -l foo").status, Some(2));
    assert_eq!(run("-L -l one").stdout.lines().count(), 2);
    assert_eq!(run("-U -l one -m 5 --label-add 7").stdout.lines().count(), 2);
    assert_eq!(run("-D -l one").stdout.lines().count(), 2);
    for line in ["-G -p udp -s 1.1.1.1 -d 1.1.1.2 --sport 1 --dport 2", "-F", "-C", "-L expect"] {
        let why = "Illegal option `--labelmap' with this command";
        assert!(run(line).stderr.contains(why), "{line}: {:?}", run(line));
    }
    let twice = run("-L -M x");
    assert!(twice.stderr.contains("option `--labelmap' can only be specified once"), "{twice:?}");
    assert_eq!(twice.status, Some(2));
}

/// A stopped reader cannot tell when events came about; the kernel can.
#[test]
fn times_of_events_are_those_of_the_kernel_where_it_tells_them() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    prepare(router);
    let mut conntrack = connect(router);
    let now = || clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
    let native = ["events", "--netns", &router.name, "--format", "plain,timestamp"];
    let mut native = tracer::command(native).unwrap();
    native.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    let native =
        conntracker_tests::lab::Guarded::spawn(native.stderr(std::process::Stdio::piped()));
    let both = [programs.spawn(router, Which::Ours, &words("-E -o timestamp")), native.unwrap()];
    // Each listens all the time: what is looked for is of an address of its own.
    for (mut program, src) in both.into_iter().zip(["192.0.2.97", "192.0.2.98"]) {
        let src_is = format!("src={src} ");
        let start = std::time::Instant::now();
        while program.wait_for("src=192.0.2.99", Duration::from_millis(50)).is_err() {
            assert!(start.elapsed() < PATIENCE, "{}", program.stderr());
            let entry = lasting(ports(17, "192.0.2.99", 1, "192.0.2.2", 2));
            conntrack.create(&entry).unwrap();
            conntrack.flush(None, None).unwrap();
        }
        program.signal(Signal::SIGSTOP).unwrap();
        let entry = lasting(ports(17, src, 1, "192.0.2.2", 2));
        let before = now();
        conntrack.create(&entry).unwrap();
        let known =
            conntrack.dump().unwrap().into_iter().all(|entry| entry.unwrap().start.is_some());
        let after = now();
        assert!(known, "nf_conntrack_timestamp is off");
        std::thread::sleep(Duration::from_millis(20));
        program.signal(Signal::SIGCONT).unwrap();
        program.wait_for(&src_is, PATIENCE).unwrap();
        program.stop(Signal::SIGINT, PATIENCE).unwrap();
        conntrack.flush(None, None).unwrap();
        let out = program.stdout();
        let line = out.lines().find(|line| line.contains(&src_is)).unwrap();
        let (time, _) = line.strip_prefix('[').unwrap().split_once("]\t").unwrap();
        let (seconds, micros) = time.split_once('.').unwrap();
        let time = (seconds.parse::<i64>().unwrap(), micros.parse::<i64>().unwrap());
        let limits = [before, after].map(|at| (at.tv_sec(), at.tv_nsec() / 1000));
        if time > limits[1] {
            tracer::skip("the kernel does not tell when events came about (Linux 6.14+)");
            return;
        }
        assert!(time >= limits[0], "{time:?} {limits:?}");
    }
}

#[test]
fn who_did_it_stands_in_no_xml() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    let mut conntrack = connect(router);
    for (format, tagged) in [("plain", true), ("save", true), ("xml", false)] {
        let line = if format == "plain" { "-E".to_owned() } else { format!("-E -o {format}") };
        let mut program = programs.spawn(router, Which::Ours, &words(&line));
        let start = std::time::Instant::now();
        while program.wait_for("192.0.2.99", Duration::from_millis(50)).is_err() {
            assert!(start.elapsed() < PATIENCE, "{}", program.stderr());
            let entry = lasting(ports(17, "192.0.2.99", 1, "192.0.2.2", 2));
            conntrack.create(&entry).unwrap();
            conntrack.flush(None, None).unwrap();
        }
        program.stop(Signal::SIGINT, PATIENCE).unwrap();
        assert_eq!(program.stdout().contains("[USERSPACE]"), tagged, "{}", program.stdout());
    }
}

/// Entries that were made before there was a rule about labels have no room for any.
#[test]
fn entries_without_room_for_labels_are_passed_over() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    let mut conntrack = connect(router);
    conntrack.create(&lasting(ports(17, "192.0.2.1", 1, "192.0.2.2", 2))).unwrap();
    router.nft(TRACKING).unwrap();
    let said = programs.run(router, Which::Ours, &words("-U -s 192.0.2.1 --label-add foo"));
    assert!(said.stderr.ends_with(" 0 flow entries have been updated.\n"), "{said:?}");
    assert_eq!((said.status, said.stderr.lines().count()), (Some(1), 1), "{said:?}");
}

/// A gateway with many entries loads them without growing.
#[test]
fn a_large_file_is_loaded_in_little_memory() {
    const LIMIT: &str = "--data=50331648";
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    let mut conntrack = connect(router);
    // Twice as many bytes as the program may have, and commands at both ends.
    let mut text = String::new();
    let add = |n| format!("-A -t 900 -p udp -s 192.0.2.{n} -d 192.0.2.200 --sport 1 --dport 2\n");
    text += &add(1);
    let comment = format!("# {}\n", "nothing ".repeat(1000));
    while text.len() < 100 << 20 {
        text += &comment;
    }
    text += &add(2);
    let file = programs.directory().join("large");
    fs::write(&file, &text).unwrap();
    let load = |file: &str| {
        conntrack.flush(None, None).unwrap();
        let command = programs.command(router, Which::Ours, &words(&format!("-R {file}")));
        // Behind what binds /etc.
        let at = command.len() - 3;
        let mut limited = Command::new(&command[0]);
        limited.args(&command[1..at]).args(["prlimit", LIMIT]).args(&command[at..]);
        limited
    };
    let mut load = load;
    let large = file.to_str().unwrap();
    let output = load(large).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
    assert_eq!(connect(router).count().unwrap(), 2);

    // From a pipe, too.
    let mut cat =
        Command::new("cat").arg(large).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let output = load("-").stdin(cat.stdout.take().unwrap()).output().unwrap();
    assert!(cat.wait().unwrap().success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
    assert_eq!(connect(router).count().unwrap(), 2);

    // None is run if the last one makes no sense.
    let mut bad = text;
    writeln!(bad, "-L").unwrap();
    fs::write(&file, &bad).unwrap();
    let output = load(large).output().unwrap();
    let lines = bad.lines().count();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("(line {lines})")), "{said}");
    assert_eq!((output.status.code(), connect(router).count().unwrap()), (Some(2), 0));
}

/// `ct helper` gives entries a helper; a saved table has it, and so has the table that is made of that.
#[test]
fn helpers_are_saved_and_made_again() {
    const RULES: &str = "
        table ip helpers {
            ct helper files { type \"ftp\" protocol tcp; }
            chain forward {
                type filter hook forward priority 0;
                tcp dport 21 ct helper set \"files\"
            }
        }";
    let lab = Lab::new().unwrap();
    let programs = Programs::new();
    lab.router.nft(RULES).unwrap();
    let _server = tcp_echo_server(&lab.server, lab.server.at(21)).unwrap();
    let _open =
        tcp_connect(&lab.client, lab.client.at(40_021), lab.server.at(21), PATIENCE).unwrap();
    let listed = |host, which| programs.run(host, which, &["-L"]).stdout;
    let theirs = listed(&lab.router, Which::Theirs);
    assert!(theirs.contains(" helper=ftp "), "{theirs}");

    let saved = programs.run(&lab.router, Which::Ours, &["-L", "-o", "save"]).stdout;
    assert!(saved.contains(" --helper ftp\n"), "{saved}");
    let to = &lab.client;
    connect(to).flush(None, None).unwrap();
    let said = programs.run_with_input(to, Which::Ours, &["-R", "-"], &saved);
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""));
    let again = listed(to, Which::Theirs);
    assert!(again.contains(" dport=21 ") && again.contains(" helper=ftp "), "{again}");
    assert_eq!(programs.run(to, Which::Ours, &["-L", "-o", "save"]).stdout.lines().count(), 1);

    // The library reads what it has written of a name that needs quotes, too.
    let entry = lasting(ports(6, "192.0.2.1", 1, "192.0.2.2", 21));
    let with = entry.with.clone().helper("ftp".to_owned());
    connect(to).create(&entry.with(with)).unwrap();
    let line = programs.run(to, Which::Ours, &words("-L -o save -s 192.0.2.1")).stdout;
    let quoted = line.replace("--helper ftp", "--helper \"ftp\"");
    assert_ne!(quoted, line);
    connect(to).flush(None, None).unwrap();
    let said = programs.run_with_input(to, Which::Ours, &["-R", "-"], &quoted);
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""));
    assert!(listed(to, Which::Theirs).contains(" helper=ftp "));
}
