//! conntracker: which flows exist, and what became of them.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            conntracker::messages::clear_status();
            eprintln!("conntracker: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
