use std::{
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, fs::symlink, net::UnixDatagram},
    time::{Duration, Instant},
};

use super::{
    client::{Asked, ask},
    *,
};

fn echo(path: &Path) -> Result<AgentSocket> {
    AgentSocket::listen(path, |question| format!("you said {question}"))
}

fn answer(path: &Path) -> String {
    match ask(path, "hello").unwrap() {
        Asked::Answered(answer) => answer,
        Asked::Nobody => panic!("nobody answers at {}", path.display()),
    }
}

#[test]
fn an_agent_answers_until_it_ends_and_leaves_no_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    assert!(matches!(ask(&path, "hello").unwrap(), Asked::Nobody));
    let socket = echo(&path).unwrap();
    let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);
    assert_eq!(answer(&path), "you said hello");
    let error = echo(&path).unwrap_err().to_string();
    assert!(error.contains("another agent answers at"), "{error}");
    assert_eq!(answer(&path), "you said hello");
    drop(socket);
    assert!(!path.exists());
    assert!(matches!(ask(&path, "hello").unwrap(), Asked::Nobody));
}

#[test]
fn a_socket_that_a_dead_agent_left_is_replaced_and_one_that_another_program_has_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let socket = echo(&path).unwrap();
    assert_eq!(answer(&path), "you said hello");
    drop(socket);

    let other = UnixListener::bind(&path).unwrap();
    let error = echo(&path).unwrap_err().to_string();
    assert!(error.contains("another agent answers at"), "{error}");
    drop(other);
    fs::remove_file(&path).unwrap();
    // Something listens there, though not as an agent does.
    let _other = UnixDatagram::bind(&path).unwrap();
    assert!(echo(&path).is_err() && path.exists());
}

#[test]
fn files_and_symbolic_links_are_neither_followed_nor_removed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), "keep").unwrap();
    symlink(at("nothing"), at("dangling")).unwrap();
    drop(UnixListener::bind(at("stale")).unwrap());
    symlink(at("stale"), at("link")).unwrap();
    for name in ["file", "dangling", "link"] {
        let error = format!("{:#}", echo(&at(name)).unwrap_err());
        assert!(error.contains("not by a socket"), "{error}");
    }
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "keep");
    assert!(!at("nothing").exists() && at("stale").exists());
}

#[test]
fn a_socket_of_another_agent_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let first = echo(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let _others = UnixListener::bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
}

#[test]
fn clients_that_hang_or_say_too_much_are_dropped_and_others_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let _socket = echo(&path).unwrap();
    let start = Instant::now();
    let connect = || UnixStream::connect(&path).unwrap();
    // As many as are answered at a time, and some more.
    let silent: Vec<_> = (0..12).map(|_| connect()).collect();
    assert_eq!(answer(&path), "you said hello");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    for mut client in silent {
        // The end: it was not answered.
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    }
    let mut talker = connect();
    let _ = talker.write_all(&vec![b'x'; 100_000]);
    let ended = talker.read(&mut [0; 8]);
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    // One that sends and never reads.
    let mut deaf = connect();
    deaf.set_nonblocking(true).unwrap();
    while deaf.write_all(&[b'\n'; 4096]).is_ok() {}
    assert_eq!(answer(&path), "you said hello");
}

#[test]
fn several_questions_are_answered_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let _socket = echo(&path).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"one\ntwo\nthree").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    // The third is no whole line.
    assert_eq!(said, "you said one\nyou said two\n");
}

#[test]
fn pidfiles_have_sockets_of_their_own() {
    let of = |pidfile| of_pidfile(Path::new(pidfile));
    assert_eq!(of(daemon::PIDFILE), Path::new("/run/conntracker/conntracker.sock"));
    let names = ["/run/a.pid", "/run/b.pid", "/tmp/a.pid", "/run/conntracker/conntracker.pid"];
    let all: std::collections::HashSet<_> =
        names.into_iter().chain([daemon::PIDFILE]).map(of).collect();
    assert_eq!(all.len(), 5);
    // By any version.
    assert_eq!(of("/run/a.pid"), Path::new("/run/conntracker/a-871ba23dbaa9eb28.sock"));
    let long = format!("/{}", "x".repeat(300));
    assert!(of(&long).as_os_str().len() < 107);
}

#[test]
fn a_directory_that_others_can_write_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    make_directory(&at("made")).unwrap();
    assert_eq!(fs::metadata(at("made")).unwrap().permissions().mode() & 0o7777, 0o750);
    make_directory(&at("made")).unwrap();
    fs::create_dir(at("open")).unwrap();
    fs::set_permissions(at("open"), fs::Permissions::from_mode(0o777)).unwrap();
    symlink(at("made"), at("link")).unwrap();
    fs::write(at("file"), "").unwrap();
    for name in ["open", "link", "file"] {
        assert!(make_directory(&at(name)).is_err(), "{name}");
    }
}
