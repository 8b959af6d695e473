//! Rules of files, compiled by the kernel itself in a network namespace of their own: a child process makes the
//! namespace, the interfaces that the files name and the tables that are loaded today, has nft or iptables-restore
//! load the files, and reads back what the kernel has. Nobody's rules are written; a user without rights gets a user
//! namespace, where the kernel allows it (user_namespaces(7)).

mod file;
mod interfaces;
mod kept;
mod namespace;
mod request;
mod worker;

use std::{
    env,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

pub use self::worker::work;
use self::{
    file::Kind,
    request::{Answer, Request},
};
use super::{Ruleset, rules::Rules};
use crate::{model::harmless::OneLine, os::scratch};

/// The hidden command of the child process.
pub const COMMAND: &str = "scratch-rules";

/// Rules that files would leave if they were loaded.
#[derive(Debug)]
pub struct Compiled {
    /// The rules.
    pub rules: Rules,
    /// The interfaces of the namespace in which they were compiled, as rtnetlink's messages: those that the files
    /// name, where no host is known.
    pub routing: Vec<u8>,
    /// What was taken for granted.
    pub notes: Vec<String>,
}

/// The rules that a host would have after these files were loaded one after the other, as `nft -f` and
/// `iptables-restore` load them: what they do not name stays as it is. `None`: no host is known, and the files are
/// all there is.
///
/// # Errors
/// A file cannot be read, or the kernel or its program refuses it; there is no right to make a namespace.
pub fn compile(files: &[PathBuf], host: Option<&Ruleset>) -> Result<Compiled> {
    let none = Ruleset::default();
    let today = host.unwrap_or(&none);
    let files: Vec<_> = files.iter().map(|path| file::read(path)).collect::<Result<_>>()?;
    let kinds: Vec<Kind> = files.iter().map(|file| file.kind).collect();
    let blocks = if kinds.contains(&Kind::Nft) { kept::blocks(today) } else { Vec::new() };
    let request = Request {
        interfaces: host.map(|host| interfaces::of(&host.objects)).transpose()?,
        blocks,
        legacy: kept::uses_legacy(today),
        files,
    };
    let Answer { printed, nf_tables, ip_tables, routing, missing, invented } = ask(&request)?;
    if let Some(missing) = missing.first() {
        bail!("{missing}: the rules of files are not known without that");
    }
    let mut ruleset = Ruleset::of_printed(&printed).context("nft's JSON makes no sense")?;
    ruleset.objects.nf_tables = nf_tables;
    ruleset.objects.ip_tables = ip_tables;
    let rules = kept::join(&Rules::of(today)?, &Rules::of(&ruleset)?, &request)?;
    let notes = invented
        .iter()
        .map(|name| format!("interface `{name}` is taken to be there, because a file names it"))
        .collect();
    Ok(Compiled { rules, routing, notes })
}

/// Has the child process do it.
fn ask(request: &Request) -> Result<Answer> {
    let aside = scratch::directory()?;
    let program = env::current_exe().context("the program does not find itself")?;
    let mut child = Command::new(&program)
        .arg0("conntracker")
        .arg(COMMAND)
        // The lock of iptables-legacy belongs to root and to rules that are used.
        .env("XTABLES_LOCKFILE", aside.path().join("xtables.lock"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let bytes = postcard::to_allocvec(request).context("cannot pass the files on")?;
    if let Some(mut stdin) = child.stdin.take() {
        // It says why if it has ended.
        let _ = stdin.write_all(&bytes);
    }
    let output = child.wait_with_output().context("cannot read the compiled rules")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}", OneLine(said.trim().trim_start_matches("conntracker: error: ")));
    }
    postcard::from_bytes(&output.stdout).context("the compiled rules make no sense")
}

/// What messages call a file.
fn name(path: &Path) -> String {
    OneLine(&path.display().to_string()).to_string()
}
