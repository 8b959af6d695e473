//! What is there and what is missing. Looking takes some milliseconds: each command does it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::cmd;
use crate::toolchain::{self, Compiler};

/// A program we call, and the packages that bring it: the first alternative that is offered.
#[derive(Debug)]
pub struct Program {
    /// What is looked for in PATH, or a file by its whole path.
    pub name: &'static str,
    /// Alternatives, each a set of packages.
    pub packages: &'static [&'static [&'static str]],
}

const PROGRAMS: &[Program] = &[
    Program { name: "cc", packages: &[&["build-essential"]] },
    Program { name: "c++", packages: &[&["build-essential"]] },
    Program { name: "nft", packages: &[&["nftables"]] },
    Program { name: "iptables", packages: &[&["iptables"]] },
    Program { name: "ipset", packages: &[&["ipset"]] },
    Program { name: "conntrack", packages: &[&["conntrack"]] },
    Program { name: "ip", packages: &[&["iproute2"]] },
    Program { name: "ping", packages: &[&["iputils-ping"]] },
    Program { name: "nc.openbsd", packages: &[&["netcat-openbsd"]] },
    // Ubuntu up to 24.04 has it among the kernel's tools.
    Program {
        name: "bpftool",
        packages: &[&["bpftool"], &["linux-tools-common", "linux-tools-generic"]],
    },
    // What the suite `firewalls` lets write rulesets; setup sees to it that none is ever started here.
    Program { name: "ufw", packages: &[&["ufw"]] },
    Program { name: "ferm", packages: &[&["ferm"]] },
    Program { name: "fail2ban-server", packages: &[&["fail2ban"]] },
    Program { name: "shorewall", packages: &[&["shorewall"]] },
    Program { name: "firewalld", packages: &[&["firewalld"]] },
    Program { name: "modprobe", packages: &[&["kmod"]] },
    Program { name: "sysctl", packages: &[&["procps"]] },
    // What the suite `html` opens pages with; Ubuntu has it as a snap alone.
    Program { name: "chromium", packages: &[&["chromium"], &["chromium-browser"]] },
    // Other kernels: `cargo xtask test-vm`.
    #[cfg(target_arch = "x86_64")]
    Program { name: "qemu-system-x86_64", packages: &[&["qemu-system-x86"]] },
    Program { name: "strip", packages: &[&["binutils"]] },
    Program { name: "xz", packages: &[&["xz-utils"]] },
    Program { name: "zstd", packages: &[&["zstd"]] },
    // No program, but looked for and installed in the same way: who signs the archive.
    Program {
        name: "/usr/share/keyrings/debian-archive-keyring.gpg",
        packages: &[&["debian-archive-keyring"]],
    },
];

/// Packages whose service, of the same name, must not start at the next boot because we installed them.
pub const SERVICES: [&str; 5] = ["ufw", "ferm", "fail2ban", "shorewall", "firewalld"];

/// Of the toolchain that compiles userspace; rustup's minimal profile lacks them.
const COMPONENTS: [(&str, &str); 2] = [("rustfmt", "rustfmt"), ("clippy", "cargo-clippy")];

/// Everything `setup` cares about.
pub struct State {
    /// Programs that are not there.
    pub missing_programs: Vec<&'static Program>,
    /// Components of the userspace toolchain that are not there.
    pub missing_components: Vec<&'static str>,
    /// The BPF object that the environment names; then no BPF toolchain is needed.
    prebuilt: Option<PathBuf>,
    /// What compiles for BPF.
    pub compiler: Option<Compiler>,
    /// Whether its clippy is there.
    pub bpf_clippy: bool,
    /// bpf-linker.
    pub linker: Option<PathBuf>,
}

impl State {
    pub fn look() -> Result<Self> {
        let compiler = Compiler::find();
        Ok(Self {
            missing_programs: PROGRAMS.iter().filter(|p| cmd::find(p.name).is_none()).collect(),
            missing_components: missing_components(),
            prebuilt: toolchain::prebuilt()?,
            bpf_clippy: compiler.as_ref().is_some_and(Compiler::has_clippy),
            compiler,
            linker: toolchain::linker(),
        })
    }

    /// Whether the BPF half is compiled here.
    pub fn needs_bpf(&self) -> bool {
        self.prebuilt.is_none()
    }

    pub fn complete(&self) -> bool {
        let bpf = self.compiler.is_some() && self.bpf_clippy && self.linker.is_some();
        self.missing_programs.is_empty()
            && self.missing_components.is_empty()
            && (bpf || !self.needs_bpf())
    }

    /// One line per thing.
    pub fn report(&self) -> String {
        let mut text = String::new();
        let mut line = |what: &str, there: bool, detail: &str| {
            let word = if there { "ok     " } else { "missing" };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{word} {what:<22} {detail}");
        };
        for program in PROGRAMS {
            let path = cmd::find(program.name);
            let detail = path.as_ref().map_or_else(
                || format!("package {}", program.packages[0].join(" ")),
                |path| path.display().to_string(),
            );
            line(program.name, path.is_some(), &detail);
        }
        for (component, _) in COMPONENTS {
            line(component, !self.missing_components.contains(&component), "rustup component");
        }
        if let Some(object) = &self.prebuilt {
            line("BPF object", true, &format!("{} ({})", object.display(), toolchain::OVERRIDE));
            return text;
        }
        let compiler = self.compiler.as_ref().map(Compiler::describe);
        let compiler = compiler.as_deref().unwrap_or("Debian's rustc-web, or a nightly");
        line("compiler for BPF", self.compiler.is_some(), compiler);
        line("clippy for BPF", self.bpf_clippy, compiler);
        let linker = self.linker.as_ref().map(|path| path.display().to_string());
        let linker = linker.as_deref().unwrap_or("cargo install bpf-linker, against LLVM");
        line("bpf-linker", self.linker.is_some(), linker);
        text
    }

    /// In a few words, which way BPF is built.
    pub fn summary(&self) -> String {
        match (&self.prebuilt, &self.compiler) {
            (Some(object), _) => format!("BPF object: {}", object.display()),
            (None, Some(compiler)) => format!("BPF is built by {}", compiler.describe()),
            (None, None) => "no compiler for BPF".to_owned(),
        }
    }
}

/// Looks into the toolchain itself: rustup's proxies in PATH exist whether or not the component
/// does.
fn missing_components() -> Vec<&'static str> {
    let Some(sysroot) = cmd::ask(Command::new("rustc").args(["--print", "sysroot"])) else {
        return Vec::new();
    };
    let bin = Path::new(sysroot.trim()).join("bin");
    let missing = COMPONENTS.iter().filter(|(_, program)| !bin.join(program).is_file());
    missing.map(|(component, _)| *component).collect()
}
