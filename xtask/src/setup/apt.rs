//! Debian's and Ubuntu's packages.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{cmd, progress};

/// apt-get and apt-cache. The lists are updated at most once, before the first question: on a bare
/// machine there are none.
pub struct Apt {
    updated: bool,
}

impl Apt {
    pub fn new() -> Self {
        Self { updated: false }
    }

    /// Whether this is such a system at all.
    pub fn available(&self) -> bool {
        self.updated || cmd::find("apt-get").is_some()
    }

    /// The version that would be installed, if the package exists and is not a mere name.
    pub fn candidate(&mut self, package: &str) -> Result<Option<String>> {
        self.update()?;
        let text = cmd::ask(Command::new("apt-cache").args(["policy", package]));
        Ok(candidate_of(&text.unwrap_or_default()))
    }

    /// The first of these sets of packages of which each exists.
    pub fn first_offered<'a>(&mut self, sets: &'a [&'a [&'a str]]) -> Result<&'a [&'a str]> {
        for set in sets {
            let mut offered = true;
            for package in *set {
                offered &= self.candidate(package)?.is_some();
            }
            if offered {
                return Ok(set);
            }
        }
        let names: Vec<_> = sets.iter().map(|set| set.join(" ")).collect();
        bail!("apt offers none of: {}", names.join(", "))
    }

    /// Installs packages, none of whose services are started; the progress line names them.
    pub fn install(&mut self, packages: &[&str]) -> Result<()> {
        self.update()?;
        let _policy = NoServices::new()?;
        let mut apt = apt_get();
        apt.args(["install", "--yes", "--no-install-recommends"]).args(packages);
        progress::run(&format!("apt-get install {}", packages.join(" ")), &mut apt)
    }

    fn update(&mut self) -> Result<()> {
        if self.updated {
            return Ok(());
        }
        if !self.available() {
            bail!("there is no apt-get here: install what is missing by hand");
        }
        if !cmd::is_root() {
            // Asks for the password now, not in the middle of a progress line.
            cmd::run(Command::new("sudo").arg("--validate")).context("sudo")?;
        }
        progress::run("apt-get update", apt_get().arg("update"))?;
        self.updated = true;
        Ok(())
    }
}

/// apt-get as root, which asks nothing. The variable is set by `env` because sudo drops it.
fn apt_get() -> Command {
    let mut command = cmd::as_root("env");
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet"]);
    command
}

/// What Debian's install scripts ask before they start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// While it lives, install scripts start no service. A policy that the machine has is left as it is:
/// whoever wrote it has decided.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn new() -> Result<Self> {
        let ours = !Path::new(POLICY).exists();
        if ours {
            let mut write = cmd::as_root("sh");
            write.args(["-c", "printf '#!/bin/sh\\nexit 101\\n' >$0 && chmod 755 $0", POLICY]);
            cmd::run(&mut write).context("forbidding that services are started")?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours && cmd::run(cmd::as_root("rm").args(["-f", POLICY])).is_err() {
            eprintln!("setup: remove {POLICY} by hand: it keeps services from being started");
        }
    }
}

/// Takes services from the next boot too: their programs are wanted, not what they would do. Without systemd
/// there are none.
pub fn disable(services: &[&str]) {
    if cmd::find("systemctl").is_none() {
        return;
    }
    for service in services {
        // A distribution may call it otherwise.
        if cmd::run(cmd::as_root("systemctl").args(["--quiet", "disable", service])).is_err() {
            eprintln!("setup: {service} could not be disabled: see to it that it does not start");
        }
    }
}

/// Reads the answer of `apt-cache policy PACKAGE`.
fn candidate_of(policy: &str) -> Option<String> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// The first two numbers of a Debian version such as `1.96.0+dfsg1-1~deb12u2` or `1:22.1.8-1`.
pub fn major_minor(version: &str) -> Option<(u32, u32)> {
    let upstream = version.split_once(':').map_or(version, |(_, upstream)| upstream);
    let mut numbers = upstream.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_is_a_version_that_can_be_installed() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n";
        assert_eq!(candidate_of(policy).as_deref(), Some("1.96.0+dfsg1-1~deb12u2"));
        assert_eq!(candidate_of("bpftool:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate_of(""), None);
    }

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(major_minor("1.96.0+dfsg1-1~deb12u2"), Some((1, 96)));
        assert_eq!(major_minor("1:22.1.8-1~deb12u1"), Some((22, 1)));
        assert!(major_minor("1.100.0") > major_minor("1.95.0"));
        assert_eq!(major_minor("unknown"), None);
    }
}
