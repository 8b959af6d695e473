//! Boots kernels one after the other, by KVM as long as that works.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::boot::{self, End};
use super::cache::Cached;
use super::initramfs::{self, Payload};
use super::kernels::Kernel;
use super::machine::{self, Accel, Arch};
use super::protocol::{Job, Line};

/// What all boots of an invocation share.
pub struct Session {
    arch: &'static Arch,
    /// Who runs the guests.
    pub accel: Accel,
    refresh: bool,
    /// What else stands on the kernel's command line.
    append: String,
    system: PathBuf,
    /// No other invocation uses the directory meanwhile.
    _lock: std::fs::File,
}

impl Session {
    /// Packs what all guests get.
    pub fn new(payload: &Payload, no_kvm: bool, refresh: bool, append: &str) -> Result<Self> {
        let arch = machine::arch()?;
        let lock = initramfs::lock()?;
        let system = initramfs::pack(payload)?;
        let accel = if no_kvm { Accel::Tcg } else { Accel::detect() };
        Ok(Self { arch, accel, refresh, append: append.to_owned(), system, _lock: lock })
    }

    /// The kernel, from the cache or the archive.
    pub fn kernel(&self, kernel: &Kernel) -> Result<Cached> {
        Cached::get(kernel, self.arch, self.refresh)
    }

    /// Finds out whether KVM can do more than be opened, by a guest that does nothing.
    pub fn try_kvm(&mut self, kernel: &Kernel) -> Result<()> {
        let job = Job { directory: "/".into(), ..Job::default() };
        if self.accel == Accel::Kvm { self.boot(kernel, &job, |_| {}) } else { Ok(()) }
    }

    /// Boots a kernel and hands each line of its guest on. A guest that does not come to the end of
    /// its job is an error, with the last words of its kernel.
    pub fn boot(&mut self, kernel: &Kernel, job: &Job, mut hear: impl FnMut(Line)) -> Result<()> {
        let cached = self.kernel(kernel)?;
        let initramfs = initramfs::assemble(&cached, &self.system, job)?;
        let console = initramfs::directory()?.join(format!("{}.console", kernel.name));
        let mut again = false;
        loop {
            let accel = self.accel;
            let (kernel, words) = (&cached.vmlinuz, &self.append);
            let qemu = machine::qemu(self.arch, accel, kernel, &initramfs, &console, words);
            match boot::boot(qemu, accel, &console, job, &mut hear)? {
                End::Done => break,
                End::NeverUp(why) if accel == Accel::Kvm => {
                    let why = why.lines().next().unwrap_or_default();
                    eprintln!("vm: {why}: /dev/kvm is of no use here, the CPU is emulated");
                    self.accel = Accel::Tcg;
                }
                // Emulated CPUs stumble over code that the kernel patches at boot; nothing of ours ran yet.
                End::NeverUp(why) if !again => {
                    let why = why.lines().next().unwrap_or_default();
                    eprintln!("vm: {why}: it did not come up, and is booted once more");
                    again = true;
                }
                End::NeverUp(why) => bail!("the guest is lost: {why}"),
                End::Died(lost) => return Err(lost.into()),
            }
        }
        for warning in boot::warnings(&console) {
            eprintln!("vm: {}: the kernel says: {warning}", kernel.name);
        }
        Ok(())
    }
}
