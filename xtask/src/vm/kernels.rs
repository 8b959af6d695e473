//! The kernels that are booted: one line each.

use anyhow::{Result, bail};

/// A kernel of a distribution, and where its packages are.
#[derive(Debug)]
pub struct Kernel {
    /// Name for `--kernel`.
    pub name: &'static str,
    /// For people.
    pub distribution: &'static str,
    /// Whose archive.
    pub archive: &'static Archive,
    /// The suites of it that are asked.
    pub suites: &'static [&'static str],
    /// The package that depends on the kernel; `{arch}` stands for the architecture.
    pub package: &'static str,
    /// How the suites are run in it.
    pub runs: &'static [Run],
    /// Whether it is booted if none is named.
    pub default: bool,
}

/// Packages of a distribution.
#[derive(Debug)]
pub struct Archive {
    /// Where its suites are.
    pub url: &'static str,
    /// Where the updates for security are, suites whose name says so.
    pub security: &'static str,
    /// Components.
    pub components: &'static str,
    /// Who signs it: a file of the host.
    pub keyring: &'static str,
    /// The package that has this file, where the host's distribution does not.
    pub keyring_package: Option<Pinned>,
}

/// A file that is known before it is downloaded.
#[derive(Debug)]
pub struct Pinned {
    pub url: &'static str,
    pub sha256: &'static str,
}

const DEBIAN: Archive = Archive {
    url: "http://deb.debian.org/debian",
    security: "http://deb.debian.org/debian-security",
    components: "main",
    keyring: "/usr/share/keyrings/debian-archive-keyring.gpg",
    keyring_package: None,
};

const UBUNTU: Archive = Archive {
    url: "http://archive.ubuntu.com/ubuntu",
    security: "http://security.ubuntu.com/ubuntu",
    components: "main",
    keyring: "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
    // Debian 12 has no package of it. Of 22.04 as it was released: it stays where it is.
    keyring_package: Some(Pinned {
        url: "http://archive.ubuntu.com/ubuntu/pool/main/u/ubuntu-keyring/ubuntu-keyring_2021.03.26_all.deb",
        sha256: "0d0e7ed6b112f5d03eabf3c7eb01ebdacf9c57714b279e90495cfc58c8c4520f",
    }),
};

const BOOKWORM: [&str; 3] = ["bookworm", "bookworm-updates", "bookworm-security"];
const JAMMY: [&str; 3] = ["jammy", "jammy-updates", "jammy-security"];
const NOBLE: [&str; 3] = ["noble", "noble-updates", "noble-security"];

/// One run of the suites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// For `--backend`.
    pub backend: &'static str,
    /// For `--attach`, if the backend has a choice.
    pub attach: Option<&'static str>,
}

const LINKS: Run = Run { backend: "links", attach: None };
const FENTRY: Run = Run { backend: "probes", attach: Some("fentry") };
const KPROBE: Run = Run { backend: "probes", attach: Some("kprobe") };

/// All kernels.
#[rustfmt::skip]
pub const KERNELS: [Kernel; 6] = [
    Kernel { name: "debian-6.1", distribution: "Debian 12", archive: &DEBIAN, suites: &BOOKWORM, package: "linux-image-cloud-{arch}", runs: &[FENTRY, KPROBE], default: true },
    Kernel { name: "debian-6.12", distribution: "Debian 12", archive: &DEBIAN, suites: &BOOKWORM, package: "linux-image-6.12-cloud-{arch}", runs: &[LINKS, FENTRY], default: true },
    Kernel { name: "ubuntu-5.15-ga", distribution: "Ubuntu 22.04, as released", archive: &UBUNTU, suites: &["jammy"], package: "linux-image-generic", runs: &[FENTRY, KPROBE], default: false },
    Kernel { name: "ubuntu-5.15", distribution: "Ubuntu 22.04", archive: &UBUNTU, suites: &JAMMY, package: "linux-image-generic", runs: &[FENTRY, KPROBE], default: false },
    Kernel { name: "ubuntu-6.8", distribution: "Ubuntu 24.04", archive: &UBUNTU, suites: &NOBLE, package: "linux-image-generic", runs: &[LINKS, FENTRY, KPROBE], default: false },
    Kernel { name: "debian-newest", distribution: "Debian 13 backports", archive: &DEBIAN, suites: &["trixie-backports"], package: "linux-image-cloud-{arch}", runs: &[LINKS, FENTRY, KPROBE], default: false },
];

/// The kernels of these names; none is the default set, `all` is all of them.
pub fn select(names: &[String]) -> Result<Vec<&'static Kernel>> {
    if names.is_empty() {
        return Ok(KERNELS.iter().filter(|kernel| kernel.default).collect());
    }
    let mut chosen: Vec<&Kernel> = Vec::new();
    for name in names {
        // A version alone is enough where only one kernel has it.
        let matches = |kernel: &&Kernel| {
            name == "all"
                || kernel.name == name
                || kernel.name.split_once('-').is_some_and(|(_, v)| v == name)
        };
        let mut found = KERNELS.iter().filter(matches).peekable();
        if found.peek().is_none() {
            let known: Vec<_> = KERNELS.iter().map(|kernel| kernel.name).collect();
            bail!("no kernel `{name}`; there are: all, {}", known.join(", "));
        }
        for kernel in found {
            if !chosen.iter().any(|other| other.name == kernel.name) {
                chosen.push(kernel);
            }
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(wanted: &[&str]) -> Vec<&'static str> {
        let wanted: Vec<_> = wanted.iter().map(|&name| name.to_owned()).collect();
        select(&wanted).unwrap().into_iter().map(|kernel| kernel.name).collect()
    }

    #[test]
    fn kernels_are_named_in_full_or_by_version() {
        assert_eq!(names(&["6.12"]), ["debian-6.12"]);
        assert_eq!(names(&["ubuntu-6.8", "6.8"]), ["ubuntu-6.8"]);
        assert_eq!(names(&["all"]).len(), KERNELS.len());
        let error = select(&["2.4".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("no kernel `2.4`") && error.contains("debian-6.1,"), "{error}");
    }
}
