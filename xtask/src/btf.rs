//! `cargo xtask btf-reduce`: the part of a kernel's BTF that conntracker looks at, as BTF that is small
//! enough to be checked in. The agent's tests look offsets and functions up in it without the kernel.

mod blob;
mod reduce;
mod wanted;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use object::{Object as _, ObjectSection as _};

use self::blob::Blob;
use self::reduce::Reduced;

/// Reduce a kernel's BTF to a test fixture.
#[derive(clap::Args)]
pub struct Args {
    /// The kernel: an ELF file with a section .BTF, or that section alone
    #[arg(long, value_name = "FILE")]
    vmlinux: PathBuf,
    /// A module of it, in the same way; unpacked
    #[arg(long = "module", value_name = "NAME=FILE", value_parser = named)]
    modules: Vec<(String, PathBuf)>,
    /// Directory for `vmlinux` and one file for each module
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn named(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("not NAME=FILE")?;
    Ok((name.to_owned(), file.into()))
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let base = Blob::parse(&section(&args.vmlinux)?, None)?;
    let mut modules = Vec::new();
    for (name, file) in &args.modules {
        let module = Blob::parse(&section(file)?, Some(&base));
        modules.push((name, module.with_context(|| file.display().to_string())?));
    }
    let blobs = Reduced::of(&base, modules.iter().map(|(_, module)| module).collect())?.write();
    fs::create_dir_all(&args.out)?;
    let vmlinux = "vmlinux".to_owned();
    let names = std::iter::once(&vmlinux).chain(modules.iter().map(|(name, _)| *name));
    for (name, blob) in names.zip(blobs) {
        // A module of which nothing is wanted needs no file.
        if let Some(blob) = blob {
            fs::write(args.out.join(name), blob)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The BTF in a file.
fn section(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    if !bytes.starts_with(b"\x7fELF") {
        return Ok(bytes);
    }
    let elf = object::File::parse(&*bytes).with_context(|| path.display().to_string())?;
    if elf.section_by_name(".BTF.base").is_some() {
        bail!("{} was built outside of the kernel's tree", path.display());
    }
    let section = elf.section_by_name(".BTF");
    let section = section.with_context(|| format!("{} has no section .BTF", path.display()))?;
    Ok(section.data()?.to_vec())
}
