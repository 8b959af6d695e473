//! Packages of kernels, by apt-get in a directory of its own: authenticated by the distribution's
//! signatures, without root, and without a trace in the machine's own apt.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::kernels::{Archive, Kernel, Pinned};
use super::machine::Arch;
use crate::{cmd, progress};

/// apt-get and apt-cache for one kernel.
pub struct Packages {
    conf: PathBuf,
}

impl Packages {
    /// Prepares the directory and updates its lists.
    pub fn update(kernel: &Kernel, arch: &Arch, dir: &Path) -> Result<Self> {
        for sub in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(dir.join(sub)).with_context(|| dir.display().to_string())?;
        }
        let keyring = keyring(kernel.archive, dir)?;
        fs::write(dir.join("sources.list"), sources(kernel, arch, &keyring))?;
        let conf = dir.join("apt.conf");
        fs::write(&conf, configuration(dir, arch))?;
        let packages = Self { conf };
        progress::run(
            &format!("package lists of {}", kernel.distribution),
            packages.apt("apt-get").arg("update"),
        )?;
        Ok(packages)
    }

    /// The packages of which a kernel consists: what its package depends on, and so on, as far as
    /// these are kernels and modules.
    pub fn of_kernel(&self, package: &str) -> Result<Vec<String>> {
        let mut found: Vec<String> = Vec::new();
        let mut open = vec![package.to_owned()];
        while let Some(name) = open.pop() {
            let text = cmd::ask(self.apt("apt-cache").args(["show", "--no-all-versions", &name]))
                .with_context(|| format!("the archive has no package {name}"))?;
            for needed in kernel_dependencies(&text) {
                if !found.contains(&needed) {
                    found.push(needed.clone());
                    open.push(needed);
                }
            }
        }
        if found.is_empty() {
            bail!("{package} depends on no kernel");
        }
        Ok(found)
    }

    /// Downloads packages into a directory.
    pub fn download(&self, names: &[String], dir: &Path) -> Result<Vec<PathBuf>> {
        let mut apt = self.apt("apt-get");
        apt.arg("download").args(names).current_dir(dir);
        progress::run(&format!("download {}", names.join(" ")), &mut apt)?;
        let mut files = Vec::new();
        for entry in fs::read_dir(dir)? {
            files.push(entry?.path());
        }
        files.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
        Ok(files)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(&self.conf).arg("--quiet");
        command
    }
}

/// The file with the keys of who signs an archive: the host's, or out of a package that is known by
/// its hash.
fn keyring(archive: &Archive, dir: &Path) -> Result<PathBuf> {
    let installed = PathBuf::from(archive.keyring);
    if installed.is_file() {
        return Ok(installed);
    }
    let Some(Pinned { url, sha256 }) = &archive.keyring_package else {
        bail!("{} is missing: run `cargo xtask setup`", archive.keyring);
    };
    let (deb, unpacked) = (dir.join("keyring.deb"), dir.join("keyring"));
    let mut download = Command::new("/usr/lib/apt/apt-helper");
    download.args(["-o", "APT::Sandbox::User=", "download-file", url]).arg(&deb);
    progress::run("keys of the archive", download.arg(format!("SHA256:{sha256}")))?;
    cmd::run(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(&unpacked))?;
    Ok(unpacked.join(archive.keyring.trim_start_matches('/')))
}

/// Lines of sources.list.
fn sources(kernel: &Kernel, arch: &Arch, keyring: &Path) -> String {
    let archive = kernel.archive;
    let line = |suite: &&str| {
        let url = if suite.ends_with("-security") { archive.security } else { archive.url };
        format!(
            "deb [arch={} signed-by={}] {url} {suite} {}\n",
            arch.debian,
            keyring.display(),
            archive.components
        )
    };
    kernel.suites.iter().map(line).collect()
}

/// Everything in our directory; of the machine's configuration the rest counts, proxies for example,
/// but not what it does behind an update.
fn configuration(dir: &Path, arch: &Arch) -> String {
    let dir = dir.display();
    let debian = arch.debian;
    format!(
        "#clear APT::Update;\n\
         #clear APT::Architectures;\n\
         #clear DPkg::Post-Invoke;\n\
         APT::Architecture \"{debian}\";\n\
         APT::Architectures {{ \"{debian}\"; }};\n\
         APT::Sandbox::User \"\";\n\
         APT::Get::List-Cleanup \"true\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::Retries \"3\";\n\
         Dir::Etc::SourceList \"{dir}/sources.list\";\n\
         Dir::Etc::SourceParts \"/dev/null\";\n\
         Dir::Etc::Preferences \"/dev/null\";\n\
         Dir::Etc::PreferencesParts \"/dev/null\";\n\
         Dir::State \"{dir}\";\n\
         Dir::State::Lists \"{dir}/lists\";\n\
         Dir::State::status \"/dev/null\";\n\
         Dir::Cache \"{dir}\";\n\
         Dir::Cache::Archives \"{dir}/archives\";\n\
         Dir::Log \"{dir}\";\n"
    )
}

/// Kernels and modules of a version among the dependencies of a package, from `apt-cache show`.
fn kernel_dependencies(show: &str) -> Vec<String> {
    let depends = show.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
    let names = depends.split(", ").filter_map(|one| one.split([' ', '|', ':']).next());
    names
        .filter(|name| {
            ["linux-image-", "linux-modules-", "linux-binary-"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        })
        .filter(|name| name.contains(|c: char| c.is_ascii_digit()) && name.contains('.'))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::kernels::KERNELS;
    use super::super::machine::X86_64;
    use super::*;

    #[test]
    fn suites_for_security_have_their_own_place() {
        let text = sources(&KERNELS[0], &X86_64, Path::new(KERNELS[0].archive.keyring));
        let signed = "[arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
        let plain = format!("deb {signed} http://deb.debian.org/debian bookworm main\n");
        let security =
            format!("deb {signed} http://deb.debian.org/debian-security bookworm-security main\n");
        assert!(text.contains(&plain) && text.contains(&security), "{text}");
    }

    #[test]
    fn only_kernels_and_modules_are_followed() {
        let show = "Package: linux-image-generic\nDepends: linux-image-5.15.0-163-generic, \
                    linux-modules-extra-5.15.0-163-generic (>= 1) | x, linux-firmware, \
                    linux-image-generic, intel-microcode\n";
        assert_eq!(
            kernel_dependencies(show),
            ["linux-image-5.15.0-163-generic", "linux-modules-extra-5.15.0-163-generic"]
        );
        assert_eq!(kernel_dependencies("Package: x\n"), [""; 0]);
    }
}
