//! The only unsafe `bpf(2)` calls, and maps in our memory, for what aya does not offer.

mod batch;
mod frozen;
mod mapped;
mod probe;

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use aya_obj::generated::{
    BPF_F_SLEEPABLE,
    bpf_attach_type::BPF_NETFILTER,
    bpf_cmd::{self, BPF_BTF_LOAD, BPF_LINK_CREATE, BPF_PROG_LOAD, BPF_PROG_TEST_RUN},
    bpf_func_info, bpf_insn,
    bpf_prog_type::{
        self, BPF_PROG_TYPE_KPROBE, BPF_PROG_TYPE_NETFILTER, BPF_PROG_TYPE_RAW_TRACEPOINT,
        BPF_PROG_TYPE_SYSCALL, BPF_PROG_TYPE_TRACING,
    },
};

#[cfg(feature = "bpf-log")]
pub use self::probe::program_id;
pub use self::{
    batch::{take_all, wait_for_programs},
    frozen::freeze,
    mapped::MappedArray,
    probe::{attach_kprobe, attach_tracepoint, attach_tracing, missed_runs, module_btf},
};

/// Size of the verifier log asked for when a load fails.
const LOG_BYTES: usize = 1 << 20;

/// `struct { … } /* anonymous struct used by BPF_PROG_LOAD command */` of include/uapi/linux/bpf.h,
/// up to `core_relo_cnt`.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
    attach_btf_obj_fd: u32,
    core_relo_cnt: u32,
}

/// The part of BPF_LINK_CREATE that netfilter links use (Linux 6.4+).
#[repr(C)]
struct LinkCreateNetfilter {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    pf: u32,
    hooknum: u32,
    priority: i32,
    netfilter_flags: u32,
}

/// The part of BPF_PROG_TEST_RUN that programs of type SYSCALL use (Linux 5.14+).
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// The part of BPF_BTF_LOAD that is needed (Linux 4.18+).
#[repr(C)]
struct BtfLoad {
    btf: u64,
    btf_log_buf: u64,
    btf_size: u32,
    btf_log_size: u32,
    btf_log_level: u32,
    btf_log_true_size: u32,
}

/// Instructions of a program.
#[derive(Clone, Copy, Debug)]
pub struct Code<'a> {
    /// The instructions of the program, followed by those of its functions.
    pub instructions: &'a [bpf_insn],
    /// Types of its functions, which callbacks (bpf_loop) need: the BTF object, and the start of each function.
    pub functions: Option<(BorrowedFd<'a>, &'a [bpf_func_info])>,
}

impl<'a> From<&'a [bpf_insn]> for Code<'a> {
    fn from(instructions: &'a [bpf_insn]) -> Self {
        Self { instructions, functions: None }
    }
}

/// A program that the kernel refused, with the end of the verifier's log.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused BPF program `{name}`{}", last_lines(log))]
pub struct LoadError {
    /// Name of the program.
    pub name: String,
    /// The errno.
    pub source: io::Error,
    /// The verifier's log, empty if the verifier was not reached.
    pub log: String,
}

/// The verifier's reason is at the end of its log.
fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().rev().take(4).collect();
    if lines.is_empty() {
        return String::new();
    }
    format!(" ({})", lines.into_iter().rev().collect::<Vec<_>>().join("; "))
}

/// Loads a program of type BPF_PROG_TYPE_NETFILTER (Linux 6.4+).
///
/// # Errors
/// EPERM without CAP_BPF and CAP_NET_ADMIN, EINVAL on kernels without CONFIG_NETFILTER_BPF_LINK.
pub fn load_netfilter(name: &str, code: Code<'_>) -> Result<OwnedFd, LoadError> {
    let attr = ProgLoad { expected_attach_type: BPF_NETFILTER as u32, ..ProgLoad::default() };
    prog_load(name, BPF_PROG_TYPE_NETFILTER, code, attr)
}

/// A function, or with attach type BPF_TRACE_RAW_TP a tracepoint, by its BTF.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its BTF id.
    pub btf_id: u32,
    /// BTF object of the module that it is in ([`module_btf`], Linux 5.11+); `None`: vmlinux.
    pub module: Option<BorrowedFd<'a>>,
}

/// Loads a program of type BPF_PROG_TYPE_TRACING (Linux 5.5+) for one function or tracepoint.
///
/// # Errors
/// EPERM where the kernel is locked down against it, EINVAL for functions that cannot be traced.
pub fn load_tracing(
    name: &str,
    code: Code<'_>,
    attach_type: u32,
    target: Target<'_>,
) -> Result<OwnedFd, LoadError> {
    let attr = ProgLoad {
        expected_attach_type: attach_type,
        attach_btf_id: target.btf_id,
        attach_btf_obj_fd: target.module.map_or(0, |fd| fd.as_raw_fd().cast_unsigned()),
        ..ProgLoad::default()
    };
    prog_load(name, BPF_PROG_TYPE_TRACING, code, attr)
}

/// Loads a program of type BPF_PROG_TYPE_KPROBE.
pub fn load_kprobe(name: &str, code: Code<'_>) -> Result<OwnedFd, LoadError> {
    prog_load(name, BPF_PROG_TYPE_KPROBE, code, ProgLoad::default())
}

/// Loads a program of type BPF_PROG_TYPE_SYSCALL (Linux 5.14+), which only [`run`] runs.
pub fn load_syscall(name: &str, code: Code<'_>) -> Result<OwnedFd, LoadError> {
    let attr = ProgLoad { prog_flags: BPF_F_SLEEPABLE, ..ProgLoad::default() };
    prog_load(name, BPF_PROG_TYPE_SYSCALL, code, attr)
}

/// Loads a program of type BPF_PROG_TYPE_RAW_TRACEPOINT, to be attached ([`attach_tracepoint`]) or [`run`] (Linux
/// 5.10+).
pub fn load_raw_tracepoint(name: &str, code: Code<'_>) -> Result<OwnedFd, LoadError> {
    prog_load(name, BPF_PROG_TYPE_RAW_TRACEPOINT, code, ProgLoad::default())
}

/// Runs a program of type SYSCALL or RAW_TRACEPOINT in the calling thread and returns what it returned.
pub fn run(program: BorrowedFd<'_>) -> io::Result<u32> {
    let mut attr = TestRun { prog_fd: program.as_raw_fd().cast_unsigned(), ..TestRun::default() };
    bpf(BPF_PROG_TEST_RUN, &mut attr)?;
    Ok(attr.retval)
}

/// Loads BTF, which describes a program's functions.
pub fn load_btf(btf: &[u8]) -> io::Result<OwnedFd> {
    bpf_fd(
        BPF_BTF_LOAD,
        &mut BtfLoad {
            btf: btf.as_ptr() as u64,
            btf_log_buf: 0,
            btf_size: btf.len() as u32,
            btf_log_size: 0,
            btf_log_level: 0,
            btf_log_true_size: 0,
        },
    )
}

fn prog_load(
    name: &str,
    prog_type: bpf_prog_type,
    code: Code<'_>,
    mut attr: ProgLoad,
) -> Result<OwnedFd, LoadError> {
    let Code { instructions, functions } = code;
    attr.prog_type = prog_type as u32;
    attr.insn_cnt = instructions.len() as u32;
    attr.insns = instructions.as_ptr() as u64;
    if let Some((btf, functions)) = &functions {
        attr.prog_btf_fd = btf.as_fd().as_raw_fd().cast_unsigned();
        attr.func_info_rec_size = size_of::<bpf_func_info>() as u32;
        attr.func_info = functions.as_ptr() as u64;
        attr.func_info_cnt = functions.len() as u32;
    }
    let license = CString::from(c"GPL");
    attr.license = license.as_ptr() as u64;
    for (to, from) in attr.prog_name[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    let error = match bpf_fd(BPF_PROG_LOAD, &mut attr) {
        Ok(fd) => return Ok(fd),
        Err(error) => error,
    };
    // The second load is for the verifier's log, which a successful load does not need.
    let mut log = vec![0u8; LOG_BYTES];
    attr.log_level = 1;
    attr.log_size = LOG_BYTES as u32;
    attr.log_buf = log.as_mut_ptr() as u64;
    let source = bpf_fd(BPF_PROG_LOAD, &mut attr).err().unwrap_or(error);
    let end = log.iter().position(|&b| b == 0).unwrap_or(log.len());
    let log = String::from_utf8_lossy(&log[..end]).trim_end().to_owned();
    Err(LoadError { name: name.to_owned(), source, log })
}

/// Attaches a netfilter program in the caller's network namespace. The link ends with the last
/// descriptor of it: nothing stays attached after the process.
///
/// # Errors
/// EBUSY if the priority is taken on that hook, ERANGE for INT_MIN and INT_MAX.
pub fn link_netfilter(
    program: BorrowedFd<'_>,
    family: u8,
    hook: u8,
    priority: i32,
) -> io::Result<OwnedFd> {
    bpf_fd(
        BPF_LINK_CREATE,
        &mut LinkCreateNetfilter {
            prog_fd: program.as_raw_fd().cast_unsigned(),
            target_fd: 0,
            attach_type: BPF_NETFILTER as u32,
            flags: 0,
            pf: u32::from(family),
            hooknum: u32::from(hook),
            priority,
            netfilter_flags: 0,
        },
    )
}

/// `bpf(2)` for the commands that return a descriptor.
fn bpf_fd<T>(command: bpf_cmd, attr: &mut T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel has just returned this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// `bpf(2)`.
fn bpf<T>(command: bpf_cmd, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is one of the repr(C) structures above, a prefix of `union bpf_attr` for its
    // command, and its size is passed along; every address in it points to live memory of the
    // length stated beside it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

const _: () = {
    assert!(size_of::<TestRun>() == 80);
    assert!(size_of::<BtfLoad>() == 32);
    assert!(size_of::<bpf_func_info>() == 8);
    assert!(size_of::<ProgLoad>() == 120);
    assert!(size_of::<LinkCreateNetfilter>() == 32);
};
