//! Attaching to functions of the kernel.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use aya_obj::generated::{
    PERF_FLAG_FD_CLOEXEC,
    bpf_attach_type::BPF_PERF_EVENT,
    bpf_cmd::{
        BPF_BTF_GET_FD_BY_ID, BPF_BTF_GET_NEXT_ID, BPF_LINK_CREATE, BPF_OBJ_GET_INFO_BY_FD,
        BPF_RAW_TRACEPOINT_OPEN,
    },
    bpf_prog_info, perf_event_attr,
};

use super::{bpf, bpf_fd};

/// File with the number of the kernel's performance monitoring unit for kprobes.
const KPROBE_PMU: &str = "/sys/bus/event_source/devices/kprobe/type";

/// Bit of `perf_event_attr.config` for probes at the return
/// (/sys/bus/event_source/devices/kprobe/format/retprobe).
const RETURN: u64 = 1;

/// The part of BPF_RAW_TRACEPOINT_OPEN that there is.
#[repr(C)]
struct RawTracepoint {
    name: u64,
    prog_fd: u32,
    padding: u32,
}

/// The part of BPF_LINK_CREATE that perf events use (Linux 5.15+).
#[repr(C)]
struct LinkCreatePerf {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    cookie: u64,
}

/// The part of BPF_BTF_GET_NEXT_ID and of BPF_BTF_GET_FD_BY_ID that is needed.
#[repr(C)]
struct GetId {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The part of BPF_OBJ_GET_INFO_BY_FD that there is.
#[repr(C)]
struct GetInfo {
    fd: u32,
    len: u32,
    info: u64,
}

/// `struct bpf_btf_info` (Linux 5.11+).
#[repr(C)]
#[derive(Default)]
struct BtfInfo {
    btf: u64,
    btf_size: u32,
    id: u32,
    name: u64,
    name_len: u32,
    kernel_btf: u32,
}

/// Attaches a program of type TRACING to the function that it was loaded for. It is detached with the last
/// descriptor.
pub fn attach_tracing(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    raw_tracepoint_open(program, 0)
}

/// Attaches a program of type RAW_TRACEPOINT. It is detached with the last descriptor.
///
/// # Errors
/// ENOENT if the kernel has no tracepoint of this name.
pub fn attach_tracepoint(program: BorrowedFd<'_>, tracepoint: &CStr) -> io::Result<OwnedFd> {
    raw_tracepoint_open(program, tracepoint.as_ptr() as u64)
}

/// `name`: address of a string; 0 for a program that was loaded for what it is attached to.
fn raw_tracepoint_open(program: BorrowedFd<'_>, name: u64) -> io::Result<OwnedFd> {
    let prog_fd = program.as_raw_fd().cast_unsigned();
    bpf_fd(BPF_RAW_TRACEPOINT_OPEN, &mut RawTracepoint { name, prog_fd, padding: 0 })
}

/// Attaches a program of type KPROBE to the beginning of a function (`name` or `module:name`), or with
/// `returns` to its return. It is detached with the last descriptor.
///
/// # Errors
/// ENOENT for a function that does not exist, EINVAL or EADDRNOTAVAIL for one that cannot be probed, and
/// if the kernel has no kprobes (CONFIG_KPROBES).
pub fn attach_kprobe(
    program: BorrowedFd<'_>,
    function: &str,
    returns: bool,
) -> io::Result<OwnedFd> {
    let unit = fs::read_to_string(KPROBE_PMU).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::new(error.kind(), "it has no kprobes (CONFIG_KPROBES, CONFIG_KPROBE_EVENTS)")
        }
        _ => error,
    })?;
    let unit = unit.trim().parse().map_err(io::Error::other)?;
    let name = CString::new(function)?;
    // SAFETY: plain numbers, for which zero is a value.
    let mut attr: perf_event_attr = unsafe { std::mem::zeroed() };
    attr.type_ = unit;
    attr.size = size_of::<perf_event_attr>() as u32;
    attr.config = if returns { RETURN } else { 0 };
    attr.__bindgen_anon_3.kprobe_func = name.as_ptr() as u64;
    // SAFETY: `attr` is as long as it says, and the name lives until the call has returned. One event for
    // all processes needs a CPU to belong to; the probe is on all of them.
    let event = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_ref(&attr),
            -1,
            0,
            -1,
            libc::c_ulong::from(PERF_FLAG_FD_CLOEXEC),
        )
    };
    if event < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor, nobody else owns it.
    let event = unsafe { OwnedFd::from_raw_fd(event as i32) };
    // The link holds the event.
    bpf_fd(
        BPF_LINK_CREATE,
        &mut LinkCreatePerf {
            prog_fd: program.as_raw_fd().cast_unsigned(),
            target_fd: event.as_raw_fd().cast_unsigned(),
            attach_type: BPF_PERF_EVENT as u32,
            flags: 0,
            cookie: 0,
        },
    )
}

/// How often the kernel skipped a program because it was running already (`recursion_misses`).
pub fn missed_runs(program: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(program_info(program)?.recursion_misses)
}

/// The kernel's number of a program.
#[cfg(feature = "bpf-log")]
pub fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(program_info(program)?.id)
}

/// What the kernel says of a program.
fn program_info(program: BorrowedFd<'_>) -> io::Result<bpf_prog_info> {
    // SAFETY: plain numbers, for which zero is a value.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let mut get = GetInfo {
        fd: program.as_raw_fd().cast_unsigned(),
        len: size_of::<bpf_prog_info>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut get)?;
    Ok(info)
}

/// The BTF object of a module that is loaded; `None` if there is none of that name.
pub fn module_btf(module: &str) -> io::Result<Option<OwnedFd>> {
    let mut id = 0;
    loop {
        let mut next = GetId { id, next_id: 0, open_flags: 0 };
        match bpf(BPF_BTF_GET_NEXT_ID, &mut next) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            result => result?,
        };
        id = next.next_id;
        let mut get = GetId { id, next_id: 0, open_flags: 0 };
        let btf = match bpf_fd(BPF_BTF_GET_FD_BY_ID, &mut get) {
            // The BTF object has gone meanwhile, with its program or module.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            result => result?,
        };
        if name_of(&btf)?.as_deref() == Some(module) {
            return Ok(Some(btf));
        }
    }
}

/// Name of a BTF object of the kernel's; `None` of those that programs have.
fn name_of(btf: &OwnedFd) -> io::Result<Option<String>> {
    let mut name = [0u8; 64];
    let mut info = BtfInfo {
        name: name.as_mut_ptr() as u64,
        name_len: name.len() as u32,
        ..BtfInfo::default()
    };
    let mut get = GetInfo {
        fd: btf.as_raw_fd().cast_unsigned(),
        len: size_of::<BtfInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    match bpf(BPF_OBJ_GET_INFO_BY_FD, &mut get) {
        // Longer than any name of a module.
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => return Ok(None),
        result => result?,
    };
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    Ok((info.kernel_btf != 0).then(|| String::from_utf8_lossy(&name[..end]).into_owned()))
}

const _: () = {
    assert!(size_of::<RawTracepoint>() == 16);
    assert!(size_of::<LinkCreatePerf>() == 24);
    assert!(size_of::<GetInfo>() == 16);
    assert!(size_of::<BtfInfo>() == 32);
};
