//! `cargo xtask bench events`: new flows at the highest rate that the machine makes, with `conntracker events`
//! and `conntrack -E` listening at the same time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use conntracker_tests::flood::{self, Flood, Told};

#[derive(clap::Args)]
pub struct Args {
    /// Seconds of it.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// The binary to measure, already built.
    #[arg(long)]
    pub binary: Option<PathBuf>,
}

impl Args {
    /// The arguments, for the same again.
    pub fn to_words(&self) -> Vec<String> {
        vec!["events".to_owned(), "--seconds".to_owned(), self.seconds.to_string()]
    }
}

/// Measures; the caller is root.
pub fn measure(args: &Args, binary: &Path) -> Result<()> {
    let time = Duration::try_from_secs_f64(args.seconds).context("--seconds")?;
    let program = binary.to_str().context("the binary has an unprintable name")?;
    let directory = std::env::temp_dir().join(format!("conntracker-bench-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let result = flood::run(&[program, "events"], time, &directory);
    // Whatever became of the measurement.
    let _ = std::fs::remove_dir_all(&directory);
    let Flood { made, table, ours, theirs } = result?;
    println!("{made} new flows in {} s; {table} are in the table in the end\n", args.seconds);
    println!(
        "| listener | events lost | new flows missed | gaps told | table read anew | entries unknown | flows thought to be there |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for (title, told) in [("`conntracker events`", &ours), ("`conntrack -E`", &theirs)] {
        let Told { flows, dropped, unknown, stale, gaps, resyncs, said: _ } = told;
        let missed = made - *flows as u64;
        println!("| {title} | {dropped} | {missed} | {gaps} | {resyncs} | {unknown} | {stale} |");
    }
    for line in ours.said.lines() {
        println!("\n> {line}");
    }
    Ok(())
}
