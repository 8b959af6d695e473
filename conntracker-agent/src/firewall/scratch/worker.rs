//! The child process: loads files in a namespace of its own, and says what the kernel has then.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

use super::{
    file::{Kind, RulesFile},
    interfaces::{self, Made},
    kept, name, namespace,
    request::{Answer, Block, Request},
};
use crate::firewall::{
    Ruleset,
    program::{self, Limits},
};

/// Interfaces that a file may miss one after the other.
const MISSING: usize = 256;

/// Reads a request from `input` and writes the answer to `output`. The process must have one thread: it leaves its
/// network namespace for good.
///
/// # Errors
/// No right to make a namespace; a file that is refused.
pub fn work(mut input: impl Read, mut output: impl Write) -> Result<()> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes).context("cannot read what to compile")?;
    let request: Request = postcard::from_bytes(&bytes)
        .context("this command is for the program itself: use `explain --against FILE`")?;
    namespace::leave()?;
    let mut loader = Loader { request: &request, made: Made::default(), invented: BTreeSet::new() };
    loader.make_interfaces()?;
    for block in &request.blocks {
        loader.load_block(block)?;
    }
    for file in &request.files {
        loader.load(file)?;
    }
    let invented = loader.invented.into_iter().collect();
    let Ruleset { printed, objects, unread, .. } =
        Ruleset::load_here(&Limits::new(&Arc::default()).keeping())?;
    let missing = objects.missing.into_iter().chain(unread).collect();
    let (nf_tables, ip_tables, routing) = (objects.nf_tables, objects.ip_tables, objects.routing);
    let answer = Answer { printed, nf_tables, ip_tables, routing, missing, invented };
    let bytes = postcard::to_allocvec(&answer).context("cannot pass the compiled rules on")?;
    output.write_all(&bytes).context("cannot pass the compiled rules on")
}

struct Loader<'a> {
    request: &'a Request,
    made: Made,
    invented: BTreeSet<String>,
}

impl Loader<'_> {
    /// Makes the interfaces of the host that files or tables name, and others that only files name.
    fn make_interfaces(&mut self) -> Result<()> {
        let blocks = self.request.blocks.iter().filter_map(|block| block.text.as_deref());
        let files = self.request.files.iter().map(|file| file.text.as_str());
        let texts: Vec<&str> = blocks.chain(files).collect();
        for (index, name) in self.request.interfaces.iter().flatten() {
            if texts.iter().any(|text| text.contains(name.as_str())) {
                self.made.make(Some(*index), name)?;
            }
        }
        if self.request.interfaces.is_none() {
            for text in texts {
                for name in interfaces::devices(text) {
                    self.invent(&name)?;
                }
            }
        }
        Ok(())
    }

    fn invent(&mut self, name: &str) -> Result<bool> {
        let made = self.made.make(None, name)?;
        if made {
            self.invented.insert(name.to_owned());
        }
        Ok(made)
    }

    /// Loads a table of today, or one that stands for it.
    fn load_block(&mut self, Block { family, name, text }: &Block) -> Result<()> {
        if let Some(text) = text {
            match self.nft_text(text) {
                Ok(()) => return Ok(()),
                Err(error) => log::debug!("table {family} {name} is not loaded again: {error:#}"),
            }
        }
        self.nft_text(&format!("table {family} {name} {{\n\tchain {} {{\n\t}}\n}}\n", kept::CHAIN))
            .with_context(|| format!("cannot make table `{name}`"))
    }

    /// Has nft load a text.
    fn nft_text(&mut self, text: &str) -> Result<()> {
        let mut file = NamedTempFile::new().context("cannot make a temporary file")?;
        file.write_all(text.as_bytes()).context("cannot write a temporary file")?;
        self.nft(file.path())
    }

    fn load(&mut self, file: &RulesFile) -> Result<()> {
        let loaded = match file.kind {
            Kind::Nft => self.nft(&file.path),
            Kind::Iptables => self.restore("iptables", &file.path),
            Kind::Ip6tables => self.restore("ip6tables", &file.path),
        };
        loaded.with_context(|| format!("{} cannot be loaded", name(&file.path)))
    }

    /// Has nft load a file; interfaces that it misses are made, as far as the host has them, or no host is known.
    fn nft(&mut self, file: &Path) -> Result<()> {
        let nft = find("nft")?;
        for _ in 0..MISSING {
            let Err(error) = run(&nft, &["-f"], file) else { return Ok(()) };
            let Some(name) = interfaces::missing(&format!("{error:#}")) else { return Err(error) };
            let made = match &self.request.interfaces {
                None => self.invent(&name)?,
                Some(host) => match host.iter().find(|(_, there)| *there == name) {
                    Some((index, _)) => self.made.make(Some(*index), &name)?,
                    None => bail!("the host has no interface `{name}`: {error:#}"),
                },
            };
            if !made {
                return Err(error);
            }
        }
        bail!("{} names more than {MISSING} interfaces that are not there", name(file))
    }

    /// Has iptables load a file, as the host would.
    fn restore(&self, family: &str, file: &Path) -> Result<()> {
        let variant = if self.request.legacy { "-legacy" } else { "" };
        run(&find(&format!("{family}{variant}-restore"))?, &[], file)
    }
}

fn find(program: &str) -> Result<PathBuf> {
    program::find(program).with_context(|| {
        format!("{program} is not found, and only it can read that file: install it")
    })
}

/// Runs a program on a file.
fn run(program: &Path, args: &[&str], file: &Path) -> Result<()> {
    let file = file.to_str().context("its name is no UTF-8")?;
    let args: Vec<&str> = args.iter().copied().chain([file]).collect();
    program::output(program, &args, &Limits::default()).map(drop)
}
