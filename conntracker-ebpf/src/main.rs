//! conntracker's BPF programs. The entry points stand here; each idea has a module.
//!
//! - [`flow_end`]: netfilter program at the ends of LOCAL_IN and POSTROUTING: new and replied flows.
//! - [`hook_open`], [`hook_gap`], [`hook_close`]: netfilter programs before, between and after the base
//!   chains of a hook: which rules matched. [`early_open`], [`early_gap`], [`early_close`] do the same
//!   before conntrack's own function.
//! - [`read_memory`]: run by the agent, off the packet path: reads kernel memory for it.
//! - [`packet_dropped`]: raw tracepoint `kfree_skb`: packets that netfilter or another part of the kernel dropped.
#![no_std]
#![no_main]
// For the atomic instructions of `base::memory` and `paths::cpu`. Both ways to build (nightly, and RUSTC_BOOTSTRAP=1 with
// Debian's compiler) accept it.
#![feature(asm_experimental_arch)]

mod agent;
mod base;
mod flows;
mod packet;
mod paths;

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use conntracker_common::plan::{SEGMENT_EARLY, SEGMENT_MAIN};

use agent::{kernel_memory, table};
use base::globals;
use flows::{confirm, drops, ends};
use packet::view::Typed;
use paths::{probes, traverse};

/// `struct bpf_nf_ctx` (include/linux/netfilter.h): the context of a netfilter program. Both
/// pointers are trusted: the verifier knows their types.
#[repr(C)]
pub struct NetfilterContext {
    /// `const struct nf_hook_state *`.
    state: *const u8,
    /// `struct sk_buff *`.
    skb: *const u8,
}

impl NetfilterContext {
    #[inline(always)]
    fn view(&self) -> Typed {
        Typed { state: self.state, skb: self.skb }
    }
}

/// Netfilter's NF_ACCEPT, the only verdict we ever give.
const NF_ACCEPT: i32 = 1;

/// Attached just before conntrack confirms (priority INT_MAX - 2) at LOCAL_IN and POSTROUTING, for
/// IPv4 and IPv6. aya has no netfilter program type: the section name is one that its object parser
/// knows, the agent loads the program with the right type (`bpf/object.rs`).
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/flow_end")]
pub extern "C" fn flow_end(ctx: &NetfilterContext) -> i32 {
    if globals::trace_rules() {
        traverse::close(ctx.view(), SEGMENT_MAIN);
    }
    confirm::observe(ctx.view(), core::ptr::from_ref(ctx).cast());
    NF_ACCEPT
}

/// Attached before the first base chain of a hook, behind conntrack's own function.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/hook_open")]
pub extern "C" fn hook_open(ctx: &NetfilterContext) -> i32 {
    traverse::open(ctx.view(), SEGMENT_MAIN);
    NF_ACCEPT
}

/// Attached between two base chains of a hook.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/hook_gap")]
pub extern "C" fn hook_gap(ctx: &NetfilterContext) -> i32 {
    traverse::gap(ctx.view(), SEGMENT_MAIN);
    NF_ACCEPT
}

/// Attached behind the last base chain of a hook; [`flow_end`] does the same at the ends of LOCAL_IN
/// and POSTROUTING.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/hook_close")]
pub extern "C" fn hook_close(ctx: &NetfilterContext) -> i32 {
    traverse::close(ctx.view(), SEGMENT_MAIN);
    NF_ACCEPT
}

/// As [`hook_open`], for base chains before conntrack's own function.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/early_open")]
pub extern "C" fn early_open(ctx: &NetfilterContext) -> i32 {
    traverse::open(ctx.view(), SEGMENT_EARLY);
    NF_ACCEPT
}

/// As [`hook_gap`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/early_gap")]
pub extern "C" fn early_gap(ctx: &NetfilterContext) -> i32 {
    traverse::gap(ctx.view(), SEGMENT_EARLY);
    NF_ACCEPT
}

/// As [`hook_close`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/early_close")]
pub extern "C" fn early_close(ctx: &NetfilterContext) -> i32 {
    traverse::close(ctx.view(), SEGMENT_EARLY);
    NF_ACCEPT
}

/// `nf_hook_slow` begins. A kprobe; fentry programs do without.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/hook_begins")]
pub extern "C" fn hook_begins(context: *const u8) -> i32 {
    probes::hook_begins(context);
    0
}

/// `nf_hook_slow` ends: fexit, or the kprobe of its return.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/hook_ends")]
pub extern "C" fn hook_ends(context: *const u8) -> i32 {
    probes::hook_ends(context);
    0
}

/// `nft_do_chain` begins: fentry, or a kprobe.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/nft_begins")]
pub extern "C" fn nft_begins(context: *const u8) -> i32 {
    probes::nft_begins(context);
    0
}

/// `nft_do_chain` ends.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/nft_ends")]
pub extern "C" fn nft_ends(context: *const u8) -> i32 {
    probes::nft_ends(context);
    0
}

/// `ipt_do_table` or `ip6t_do_table` begins.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/table_begins")]
pub extern "C" fn table_begins(context: *const u8) -> i32 {
    probes::table_begins(context);
    0
}

/// `ipt_do_table` or `ip6t_do_table` ends.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/table_ends")]
pub extern "C" fn table_ends(context: *const u8) -> i32 {
    probes::table_ends(context);
    0
}

/// An evaluator of expressions that end no rule begins.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/rule_matches")]
pub extern "C" fn rule_matches(context: *const u8) -> i32 {
    probes::rule_matches(context);
    0
}

/// An evaluator of other expressions begins. A kprobe; fentry programs do without.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/expression_begins")]
pub extern "C" fn expression_begins(context: *const u8) -> i32 {
    probes::expression_begins(context);
    0
}

/// An evaluator of other expressions ends.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/expression_ends")]
pub extern "C" fn expression_ends(context: *const u8) -> i32 {
    probes::expression_ends(context);
    0
}

/// A target of xtables begins. A kprobe; fentry programs do without.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/target_begins")]
pub extern "C" fn target_begins(context: *const u8) -> i32 {
    probes::target_begins(context);
    0
}

/// A target of xtables ends.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/target_ends")]
pub extern "C" fn target_ends(context: *const u8) -> i32 {
    probes::target_ends(context);
    0
}

/// A function through which packets go that are about to confirm a flow.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/confirms")]
pub extern "C" fn confirms(context: *const u8) -> i32 {
    confirm::confirms(context);
    0
}

/// `nf_ct_delete` begins: a flow ends.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/flow_deleted")]
pub extern "C" fn flow_deleted(context: *const u8) -> i32 {
    ends::deleted(context);
    0
}

/// `nf_ct_destroy` begins: a flow ends that was perhaps never confirmed.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/flow_destroyed")]
pub extern "C" fn flow_destroyed(context: *const u8) -> i32 {
    ends::destroyed(context);
    0
}

/// Program of type BPF_PROG_TYPE_SYSCALL, run by BPF_PROG_TEST_RUN. Loaded like [`flow_end`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/read_memory")]
pub extern "C" fn read_memory(_ctx: *const u8) -> i32 {
    i32::from(kernel_memory::run().is_none())
}

/// Program of type BPF_PROG_TYPE_RAW_TRACEPOINT that is attached nowhere: BPF_PROG_TEST_RUN runs it, and
/// unlike programs of type SYSCALL it runs within an RCU read section.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/table")]
pub extern "C" fn table(_ctx: *const u8) -> i32 {
    i32::from(table::run().is_none())
}

/// `kfree_skb(struct sk_buff *skb, void *location)`, and since Linux 5.17
/// `(…, enum skb_drop_reason reason, …)`.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn packet_dropped(ctx: RawTracePointContext) -> i32 {
    let reason = match globals::drop_reason() {
        0 => 0,
        _ => ctx.arg::<u64>(2) as u32,
    };
    let is_netfilters = match globals::drop_reason() {
        0 => globals::is_drop_site(ctx.arg(1)),
        netfilters => reason == netfilters,
    };
    drops::observe(ctx.arg(0), reason, ctx.arg(1), is_netfilters);
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
