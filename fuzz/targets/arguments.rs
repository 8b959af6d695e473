//! Command lines of conntrack(8), each word behind a NUL byte: what comes of them is a command, or one line
//! that says why not.

#![no_main]

use conntracker::conntrack8::{Command, Names};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<String> = text.split('\0').map(str::to_owned).collect();
    let names = Names::parse("1 foo\n5 bar baz\n127 last\n", "ip 0 IP\nesp 50 IPSEC-ESP\n");
    match Command::parse(&words, &names) {
        // Twice the same.
        Ok(command) => assert_eq!(Command::parse(&words, &names), Ok(command)),
        Err(rejection) => assert!(!rejection.message.is_empty()),
    }
});
