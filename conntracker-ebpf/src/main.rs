//! conntracker's BPF programs. The entry points stand here; each idea has a module.
//!
//! - [`flow_end`]: netfilter program at the ends of LOCAL_IN and POSTROUTING: new and replied flows.
//! - [`hook_open`], [`hook_gap`], [`hook_close`]: netfilter programs before, between and after the base
//!   chains of a hook: which rules matched. [`early_open`], [`early_gap`], [`early_close`] do the same
//!   before conntrack's own function.
//! - [`peek`]: run by the agent, off the packet path: reads kernel memory for it.
//! - [`netfilter_drop`]: raw tracepoint `kfree_skb`: packets that netfilter dropped.
#![no_std]
#![no_main]
// For the one atomic instruction in `seen`. Both ways to build (nightly, and RUSTC_BOOTSTRAP=1 with
// Debian's compiler) accept it.
#![feature(asm_experimental_arch)]

mod conntrack;
mod counters;
mod cpu;
mod drops;
mod dst;
mod emit;
mod flows;
mod globals;
mod hash;
mod headers;
mod known;
mod memory;
mod netns;
mod peek;
mod plans;
mod seen;
mod snapshot;
mod traverse;
mod trust;

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use conntracker_common::plan::{SEGMENT_EARLY, SEGMENT_MAIN};

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

/// Attached just before conntrack confirms (priority INT_MAX - 2) at LOCAL_IN and POSTROUTING, for
/// IPv4 and IPv6. aya has no netfilter program type: the section name is one that its object parser
/// knows, the agent loads the program with the right type (`kernel/bpf/object.rs`).
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/flow_end")]
pub extern "C" fn flow_end(ctx: &NetfilterContext) -> i32 {
    if globals::trace_rules() {
        traverse::close(ctx.state, ctx.skb, SEGMENT_MAIN);
    }
    flows::observe(ctx.state, ctx.skb);
    NF_ACCEPT
}

/// Attached before the first base chain of a hook, behind conntrack's own function.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/hook_open")]
pub extern "C" fn hook_open(ctx: &NetfilterContext) -> i32 {
    traverse::open(ctx.state, ctx.skb, SEGMENT_MAIN);
    NF_ACCEPT
}

/// Attached between two base chains of a hook.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/hook_gap")]
pub extern "C" fn hook_gap(ctx: &NetfilterContext) -> i32 {
    traverse::gap(ctx.state, ctx.skb, SEGMENT_MAIN);
    NF_ACCEPT
}

/// Attached behind the last base chain of a hook; [`flow_end`] does the same at the ends of LOCAL_IN
/// and POSTROUTING.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/hook_close")]
pub extern "C" fn hook_close(ctx: &NetfilterContext) -> i32 {
    traverse::close(ctx.state, ctx.skb, SEGMENT_MAIN);
    NF_ACCEPT
}

/// As [`hook_open`], for base chains before conntrack's own function.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/early_open")]
pub extern "C" fn early_open(ctx: &NetfilterContext) -> i32 {
    traverse::open(ctx.state, ctx.skb, SEGMENT_EARLY);
    NF_ACCEPT
}

/// As [`hook_gap`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/early_gap")]
pub extern "C" fn early_gap(ctx: &NetfilterContext) -> i32 {
    traverse::gap(ctx.state, ctx.skb, SEGMENT_EARLY);
    NF_ACCEPT
}

/// As [`hook_close`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/early_close")]
pub extern "C" fn early_close(ctx: &NetfilterContext) -> i32 {
    traverse::close(ctx.state, ctx.skb, SEGMENT_EARLY);
    NF_ACCEPT
}

/// Program of type BPF_PROG_TYPE_SYSCALL, run by BPF_PROG_TEST_RUN. Loaded like [`flow_end`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/peek")]
pub extern "C" fn peek(_ctx: *const u8) -> i32 {
    i32::from(peek::run().is_none())
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
