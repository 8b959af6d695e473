//! `cargo xtask fuzz`: inputs that nobody thought of, found by coverage (cargo-fuzz, libFuzzer), for whatever
//! decodes bytes from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::{cmd, progress, setup, toolchain, workspace};

/// What the kernel sent.
const CTNETLINK: &str = "conntracker-agent/src/netlink/ctnetlink/fixtures";

/// What programs that list rules printed.
const FIREWALLS: &str = "conntracker-agent/src/firewall/fixtures";

/// BTF of a kernel and its modules.
const BTF: &str = "conntracker-agent/tests/fixtures/btf/debian-6.12";

/// Recordings of each version.
const RECORDINGS: &str = "conntracker-agent/src/recording/golden";

/// Run the fuzz targets for a while
#[derive(clap::Args)]
pub struct Args {
    /// Only this target.
    #[arg(value_enum)]
    target: Option<Target>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 300)]
    seconds: u32,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Target {
    /// Messages of ctnetlink: decoded, and printed in all formats.
    Ctnetlink,
    /// Command lines of conntrack(8).
    Arguments,
    /// Listings of nf_tables: JSON, text, and what iptables-nft-save prints.
    Nft,
    /// What iptables-legacy-save prints.
    IptablesSave,
    /// Tables of iptables-legacy as the kernel keeps them.
    IpTables,
    /// BTF of a kernel, and of a module.
    Btf,
    /// The ruleset in the kernel's memory.
    Index,
    /// Records of the ring.
    Records,
    /// Recordings.
    Recording,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure()?;
    setup::ensure_nightly()?;
    if cmd::find("cargo-fuzz").is_none() {
        let mut cargo = workspace::cargo()?;
        progress::run("cargo-fuzz", cargo.args(["install", "--locked", "cargo-fuzz"]))?;
    }
    let root = workspace::root()?;
    let mut failed = Vec::new();
    for target in Target::value_variants() {
        if args.target.is_none_or(|only| only.name() == target.name()) {
            let run = run(&root, *target, args.seconds);
            failed.extend(
                run.inspect_err(|error| eprintln!("fuzz: {error:#}"))
                    .is_err()
                    .then_some(target.name()),
            );
        }
    }
    ensure!(failed.is_empty(), "inputs were found for {}: see fuzz/artifacts", failed.join(", "));
    Ok(ExitCode::SUCCESS)
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Ctnetlink => "ctnetlink",
            Self::Arguments => "arguments",
            Self::Nft => "nft",
            Self::IptablesSave => "iptables_save",
            Self::IpTables => "ip_tables",
            Self::Btf => "btf",
            Self::Index => "index",
            Self::Records => "records",
            Self::Recording => "recording",
        }
    }

    /// Arguments of libFuzzer.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Ctnetlink | Self::IptablesSave => &["-max_len=4096"],
            Self::Arguments => &["-max_len=512", "-dict=fuzz/arguments.dict"],
            Self::Nft => &["-max_len=16384", "-dict=fuzz/nft.dict"],
            Self::Btf | Self::IpTables => &["-max_len=8192"],
            Self::Index | Self::Records => &["-max_len=512"],
            Self::Recording => &["-max_len=16384"],
        }
    }

    /// Inputs to begin with, from what kernels sent and programs printed.
    fn fill(self, root: &Path, corpus: &Path) -> Result<()> {
        match self {
            Self::Ctnetlink => {
                copy(&root.join(CTNETLINK), corpus, |_| true)?;
            }
            Self::Nft => {
                for json in files(&root.join(FIREWALLS))? {
                    let listings = ["json", "txt", "save"].map(|of| json.with_extension(of));
                    let listings = listings.map(|file| fs::read(file).unwrap_or_default());
                    if !listings[0].is_empty() {
                        write(corpus, &json, &listings.join(&0))?;
                    }
                }
            }
            Self::IptablesSave => {
                copy(&root.join(FIREWALLS), corpus, |file| {
                    file.extension() == Some("save".as_ref())
                })?;
            }
            Self::IpTables => {
                copy(&root.join(FIREWALLS), corpus, |file| {
                    file.extension() == Some("entries".as_ref())
                })?;
            }
            Self::Btf => {
                copy(&root.join(BTF), corpus, |file| !file.ends_with("vmlinux"))?;
            }
            Self::Recording => {
                copy(&root.join(RECORDINGS), corpus, |file| {
                    file.extension() == Some("rec".as_ref())
                })?;
            }
            Self::Arguments | Self::Index | Self::Records => {}
        }
        Ok(())
    }
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let files = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    files.map(|file| Ok(file?.path())).collect()
}

fn copy(from: &Path, corpus: &Path, wanted: impl Fn(&Path) -> bool) -> Result<()> {
    for file in files(from)?.into_iter().filter(|file| wanted(file)) {
        write(corpus, &file, &fs::read(&file)?)?;
    }
    Ok(())
}

fn write(corpus: &Path, named: &Path, bytes: &[u8]) -> Result<()> {
    let file = corpus.join(named.file_name().context("a file without a name")?);
    fs::write(&file, bytes).with_context(|| file.display().to_string())
}

fn run(root: &Path, target: Target, seconds: u32) -> Result<()> {
    let corpus = root.join("fuzz/corpus").join(target.name());
    fs::create_dir_all(&corpus).with_context(|| format!("making {}", corpus.display()))?;
    target.fill(root, &corpus)?;
    let mut cargo = Command::new("cargo");
    toolchain::clean(&mut cargo);
    cargo.current_dir(root).args(["+nightly", "fuzz", "run", target.name(), "--"]);
    cargo.arg(format!("-max_total_time={seconds}")).args(target.arguments());
    cmd::run(&mut cargo)
}
