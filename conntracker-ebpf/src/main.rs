//! conntracker's BPF programs. The entry points stand here; each idea has a module.
//!
//! - [`flow_end`]: netfilter program at the ends of LOCAL_IN and POSTROUTING: new and replied flows.
//! - [`list_hooks`]: run by the agent, off the packet path: what hangs on PREROUTING.
//! - [`netfilter_drop`]: raw tracepoint `kfree_skb`: packets that netfilter dropped.
#![no_std]
#![no_main]
// For the one atomic instruction in `seen`. Both ways to build (nightly, and RUSTC_BOOTSTRAP=1 with
// Debian's compiler) accept it.
#![feature(asm_experimental_arch)]

mod conntrack;
mod counters;
mod drops;
mod dst;
mod emit;
mod flows;
mod globals;
mod headers;
mod hooks;
mod memory;
mod seen;

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

/// `struct bpf_nf_ctx` (include/linux/netfilter.h): the context of a netfilter program. Both
/// pointers are trusted: the verifier knows their types.
#[repr(C)]
pub struct NetfilterContext {
    /// `const struct nf_hook_state *`.
    state: *const u8,
    /// `struct sk_buff *`.
    skb: *const u8,
}

/// Netfilter's NF_ACCEPT, the only verdict we ever give.
const NF_ACCEPT: i32 = 1;

/// Attached just before conntrack confirms (priority INT_MAX - 1) at LOCAL_IN and POSTROUTING, for
/// IPv4 and IPv6. aya has no netfilter program type: the section name is one that its object parser
/// knows, the agent loads the program with the right type (`kernel/bpf/object.rs`).
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/flow_end")]
pub extern "C" fn flow_end(ctx: &NetfilterContext) -> i32 {
    flows::observe(ctx.state, ctx.skb);
    NF_ACCEPT
}

/// Program of type BPF_PROG_TYPE_SYSCALL, run by BPF_PROG_TEST_RUN. Loaded like [`flow_end`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/list_hooks")]
pub extern "C" fn list_hooks(_ctx: *const u8) -> i32 {
    i32::from(hooks::list().is_none())
}

/// `kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason, …)`, Linux 5.17+.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn netfilter_drop(ctx: RawTracePointContext) -> i32 {
    let reason: u64 = ctx.arg(2);
    if reason as u32 == globals::drop_reason() {
        drops::observe(ctx.arg(0));
    }
    0
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program in which this could be reached.
    loop {}
}

/// What license the kernel sees: GPL-only helpers (probe_read_kernel, ring buffers) are used.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
pub static LICENSE: [u8; 4] = *b"GPL\0";
