//! `cargo xtask`: everything a developer runs, one module per command.

mod api;
mod bench;
mod btf;
mod build;
mod cmd;
mod counts;
mod demo;
mod fuzz;
mod lint;
mod progress;
mod run;
mod setup;
mod test;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Development tasks of conntracker.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Setup(setup::Args),
    Build(build::Args),
    Run(run::Args),
    Demo(demo::Args),
    Test(test::Args),
    TestVm(vm::Args),
    /// Check formatting, run clippy and rustdoc on everything, warnings being errors
    Lint,
    Bench(bench::Args),
    Fuzz(fuzz::Args),
    Api(api::Args),
    BtfReduce(btf::Args),
}

fn main() -> ExitCode {
    if let Some(code) = vm::guest::main() {
        return code;
    }
    match dispatch(Args::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(task: Task) -> Result<ExitCode> {
    match task {
        Task::Setup(args) => setup::main(&args),
        Task::Build(args) => build::main(&args),
        Task::Run(args) => run::main(&args),
        Task::Demo(args) => demo::main(&args),
        Task::Test(args) => test::main(&args),
        Task::TestVm(args) => vm::main(&args),
        Task::Lint => lint::main(),
        Task::Bench(args) => bench::main(&args),
        Task::Fuzz(args) => fuzz::main(&args),
        Task::Api(args) => api::main(&args),
        Task::BtfReduce(args) => btf::main(&args),
    }
}
