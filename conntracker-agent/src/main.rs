//! conntracker: which flows exist, and what became of them.

mod cli;

use std::env;
use std::path::Path;
use std::process::ExitCode;

use conntracker::model::harmless::OneLine;

fn main() -> ExitCode {
    // A symbolic link of this name stands in for conntrack(8).
    if env::args_os().next().is_some_and(|name| Path::new(&name).ends_with("conntrack")) {
        return cli::conntrack::run(env::args_os().skip(1));
    }
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            conntracker::os::messages::clear_status();
            let why = format!("{error:#}");
            conntracker::os::messages::say(&format!("conntracker: error: {}\n", OneLine(&why)));
            ExitCode::FAILURE
        }
    }
}
