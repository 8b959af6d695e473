//! The virtual machine: what differs between architectures, and QEMU's command line.

use std::env;
use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::protocol;

/// What differs between architectures.
#[derive(Debug)]
pub struct Arch {
    /// Program.
    pub qemu: &'static str,
    /// Its option `-machine`.
    pub machine: &'static str,
    /// CPU for emulation: a plain one, as wide vectors are slow there, but with random numbers: a guest has
    /// hardly any other source, and Linux 5.15.0-25 of Ubuntu lets programs wait for it without end.
    pub emulated_cpu: &'static str,
    /// The terminal for the kernel's messages.
    pub console: &'static str,
    /// The terminal for what the tests say: the second `-serial`.
    pub port: &'static str,
    /// Debian's and Ubuntu's name.
    pub debian: &'static str,
}

/// 64-bit PCs. Another architecture is another one of these (and a second serial port, which arm64's
/// `virt` has only as `-device pci-serial`).
pub const X86_64: Arch = Arch {
    qemu: "qemu-system-x86_64",
    machine: "pc",
    emulated_cpu: "qemu64,+rdrand",
    console: "ttyS0",
    port: "ttyS1",
    debian: "amd64",
};

/// Guests are of the host's architecture: they run its binaries.
pub fn arch() -> Result<&'static Arch> {
    match env::consts::ARCH {
        "x86_64" => Ok(&X86_64),
        other => bail!("no virtual machine is described for {other} (xtask/src/vm/machine.rs)"),
    }
}

/// Who runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// The CPU.
    Kvm,
    /// QEMU: 10 to 50 times slower.
    Tcg,
}

impl Accel {
    /// KVM where /dev/kvm may be opened. Whether it runs this kernel is known once the guest has said
    /// something: under some hypervisors KVM makes machines that do not come far.
    pub fn detect() -> Self {
        match File::options().read(true).write(true).open("/dev/kvm") {
            Ok(_) => Self::Kvm,
            Err(_) => Self::Tcg,
        }
    }

    /// For people and for results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// CPUs of a guest: more than one, so that what is per CPU is so in earnest.
const CPUS: &str = "2";

/// Memory in MiB: the initramfs lies in it twice for a moment.
const MEMORY: &str = "3072";

/// QEMU with this kernel, and `words` at the end of its command line; the guest's port is its standard output.
pub fn qemu(
    arch: &Arch,
    accel: Accel,
    kernel: &Path,
    initramfs: &Path,
    console: &Path,
    words: &str,
) -> Command {
    let mut append = format!(
        "console={} quiet loglevel=5 sysctl.kernel.softlockup_all_cpu_backtrace=1 panic=-1 oops=panic \
         tsc=reliable {}={}",
        arch.console,
        protocol::PORT,
        arch.port
    );
    // It must not outlive us, however we end.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "--", arch.qemu]);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    qemu.args(["-machine", arch.machine, "-smp", CPUS, "-m", MEMORY]);
    match accel {
        Accel::Kvm => qemu.args(["-accel", "kvm", "-cpu", "host"]),
        Accel::Tcg => {
            // Page tables of their own for the kernel cost emulation dearly, and protect nobody.
            append.push_str(" mitigations=off");
            qemu.args(["-accel", "tcg,thread=multi,tb-size=512", "-cpu", arch.emulated_cpu])
        }
    };
    append.push(' ');
    append.push_str(words);
    qemu.arg("-serial").arg(format!("file:{}", console.display()));
    qemu.args(["-serial", "stdio", "-kernel"]).arg(kernel);
    qemu.arg("-initrd").arg(initramfs).arg("-append").arg(append);
    qemu
}
