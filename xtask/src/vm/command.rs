//! `--run`: one command in each kernel, and what it says.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Args;
use super::initramfs::Payload;
use super::kernels;
use super::protocol::{Ended, Job, Line, Step};
use super::session::Session;

pub fn main(args: &Args, command: &str) -> Result<ExitCode> {
    let payload = Payload {
        program: super::program()?,
        tests: Vec::new(),
        files: args.files.iter().map(|arg| file(arg)).collect::<Result<_>>()?,
    };
    let job = Job {
        directory: "/root".into(),
        environment: args.environment.iter().map(|arg| variable(arg)).collect::<Result<_>>()?,
        steps: vec![Step {
            name: "command".into(),
            command: vec!["sh".into(), "-c".into(), command.to_owned()],
            limit: Duration::from_secs(args.limit),
        }],
    };
    let mut session = Session::new(&payload, args.no_kvm, args.refresh, &args.append)?;
    let mut code = ExitCode::SUCCESS;
    for kernel in kernels::select(&args.kernels)? {
        eprintln!("vm: {}", kernel.name);
        let mut ended = None;
        session.boot(kernel, &job, |line| match line {
            Line::Text(text) => println!("{text}"),
            Line::End(how, _) => ended = Some(how),
            _ => {}
        })?;
        match ended {
            Some(Ended::Exit(0)) => {}
            Some(Ended::Exit(status)) => {
                eprintln!("vm: {}: exit status {status}", kernel.name);
                code = ExitCode::FAILURE;
            }
            Some(Ended::Otherwise(how)) => {
                eprintln!("vm: {}: {how}", kernel.name);
                code = ExitCode::FAILURE;
            }
            None => code = ExitCode::FAILURE,
        }
    }
    Ok(code)
}

/// `FILE[:PLACE]`; without a place in the directory in which the command runs.
fn file(arg: &str) -> Result<(PathBuf, PathBuf)> {
    let (from, to) = arg.split_once(':').unwrap_or((arg, ""));
    let from = std::path::absolute(from)?;
    let name = from.file_name().with_context(|| format!("no file name in {arg}"))?;
    let to = if to.is_empty() { PathBuf::from("/root").join(name) } else { to.into() };
    Ok((from, to))
}

fn variable(arg: &str) -> Result<(String, String)> {
    let (key, value) = arg.split_once('=').with_context(|| format!("no value in {arg}"))?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_where_the_command_runs_unless_told_otherwise() {
        let there = |to: &str| (PathBuf::from("/a/b.sh"), PathBuf::from(to));
        assert_eq!(file("/a/b.sh").unwrap(), there("/root/b.sh"));
        assert_eq!(file("/a/b.sh:/etc/c").unwrap(), there("/etc/c"));
        assert!(variable("KEY").is_err());
        assert_eq!(variable("KEY=a=b").unwrap(), ("KEY".into(), "a=b".into()));
    }
}
