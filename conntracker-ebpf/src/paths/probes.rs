//! Programs in functions of the kernel: every base chain that a packet enters and leaves, and the rules
//! that it matched, for all namespaces at once. What is done with a packet is the same as with links
//! ([`crate::paths::traverse`]); here is what differs.
//!
//! A rule has matched when its last expression was evaluated and did not end it, or when one before gave a
//! verdict (a verdict map): evaluators are called with the address of the expression, which tells the rule. Packets are told apart by their
//! `nft_pktinfo`, for a rule can send packets itself (reject), and a softirq can come in between.

use conntracker_common::{
    counters::Counter,
    hook::HOOKS,
    path::{
        MAX_EVENT_WORDS, PATH_PROBED, PATH_TRUNCATED,
        event::{self, NFT_BREAK, NFT_CONTINUE, NFT_GOTO, NFT_JUMP},
    },
    plan::{self, SEGMENT_MAIN},
    record::{FAMILY_V4, FAMILY_V6},
};

use crate::{
    base::{
        counters::count,
        globals::{argument, is_kprobe, nft_offset},
        memory::{at, fetch_add, read},
        netns,
    },
    packet::{
        emit,
        view::{Probed, View},
    },
    paths::{
        calls, chains,
        cpu::{self, Cpu, NOWHERE},
        finish::finish,
        nested, path_cache, plans,
        traverse::{self, Who},
    },
};

/// `nf_hook_slow` returns this when the packet goes on.
const PASSED: u32 = 1;

/// Runs a program that must not be interrupted by others of ours without being noticed: the kernel does
/// not run a program that it interrupts itself, and a packet whose rules were not all seen must not be
/// reported. So none is traced that comes in between.
#[inline(always)]
fn guarded(run: impl FnOnce(&mut Cpu) -> Option<()>) {
    let Some(cpu) = cpu::this() else { return };
    // Atomically: on preemptible kernels another task's program may run between reading and writing.
    fetch_add(&mut cpu.running, 1);
    // Nothing to do with what could not be read: the packet is not traced.
    let _ = run(cpu);
    if is_kprobe() && calls::have_missed() {
        cpu.missed();
        count(Counter::CallsMissed);
    }
    fetch_add(&mut cpu.running, u64::MAX);
}

/// `nf_hook_slow` begins. Only kprobes need to know.
#[inline(always)]
pub fn hook_begins(context: *const u8) {
    if let Some(skb) = at(context, argument!(hook_skb)) {
        calls::begin(calls::HOOK, [skb, 0, 0]);
    }
}

/// `nf_hook_slow` ends.
#[inline(always)]
pub fn hook_ends(context: *const u8) {
    guarded(|cpu| {
        let skb = if is_kprobe() {
            calls::end(calls::HOOK)?[0]
        } else if cpu.is_quiet() && !cpu.is_occupied() {
            return None;
        } else {
            at(context, argument!(hook_skb))?
        };
        let hook_point = cpu.hook_point_of(skb);
        cpu.leave_if(skb);
        if cpu.is_quiet() {
            return None;
        }
        if hook_point < NOWHERE {
            nested::leaves(skb, traverse::hook_points(hook_point));
        }
        let index = cpu.find_anywhere(skb)?;
        if at(context, argument!(hook_result))? as u32 == PASSED {
            finish(cpu, index, skb, false);
        } else {
            // Taken by a rule, or given to a program: it is no longer ours to read.
            cpu.release(index);
            count(Counter::FramesLost);
        }
        None
    });
}

/// `nft_do_chain` begins.
#[inline(always)]
pub fn nft_begins(context: *const u8) {
    guarded(|cpu| {
        let pkt = at(context, argument!(nft_pkt))?;
        if is_kprobe() {
            calls::begin(calls::NFT, [pkt, 0, 0]);
        }
        let view = Probed {
            skb: read(pkt + nft_offset!(pkt_skb) as u64)?,
            state: read(pkt + nft_offset!(pkt_state) as u64)?,
        };
        let chain = at(context, argument!(nft_chain))?;
        enter(cpu, view, chain, pkt)
    });
}

/// `nft_do_chain` ends.
#[inline(always)]
pub fn nft_ends(context: *const u8) {
    guarded(|cpu| {
        let pkt = if is_kprobe() {
            calls::end(calls::NFT)?[0]
        } else if cpu.is_quiet() {
            return None;
        } else {
            at(context, argument!(nft_pkt))?
        };
        leave(cpu, pkt, at(context, argument!(nft_result))?)
    });
}

/// `ipt_do_table` or `ip6t_do_table` begins.
#[inline(always)]
pub fn table_begins(context: *const u8) {
    guarded(|cpu| {
        let view = Probed {
            skb: at(context, argument!(xt_skb))?,
            state: at(context, argument!(xt_state))?,
        };
        if is_kprobe() {
            calls::begin(calls::TABLE, [view.skb, 0, 0]);
        }
        let table = at(context, argument!(xt_table))?;
        enter(cpu, view, table, view.skb)
    });
}

/// `ipt_do_table` or `ip6t_do_table` ends.
#[inline(always)]
pub fn table_ends(context: *const u8) {
    guarded(|cpu| {
        let skb = if is_kprobe() {
            calls::end(calls::TABLE)?[0]
        } else if cpu.is_quiet() {
            return None;
        } else {
            at(context, argument!(xt_skb))?
        };
        leave(cpu, skb, at(context, argument!(xt_result))?)
    });
}

/// An expression is evaluated that no packet passes without matching.
#[inline(always)]
pub fn rule_matches(context: *const u8) {
    guarded(|cpu| {
        if cpu.is_quiet() {
            return None;
        }
        let index = cpu.inside(at(context, argument!(eval_pkt))?)?;
        let expression = at(context, argument!(eval_expr))?;
        if ends_rule(expression)? {
            put(cpu, index, [expression | event::RULE]);
        }
        None
    });
}

/// An expression begins that may yet end the rule. Only kprobes need to know.
#[inline(always)]
pub fn expression_begins(context: *const u8) {
    let arguments = || {
        Some([
            at(context, argument!(eval_expr))?,
            at(context, argument!(eval_regs))?,
            at(context, argument!(eval_pkt))?,
        ])
    };
    if let Some(arguments) = arguments() {
        calls::begin(calls::EXPRESSION, arguments);
    }
}

/// It ends: the packet matched, unless the verdict is to break off. A verdict of its own ends the rule,
/// whatever expressions follow.
#[inline(always)]
pub fn expression_ends(context: *const u8) {
    guarded(|cpu| {
        let [expression, regs, pkt] = if is_kprobe() {
            calls::end(calls::EXPRESSION)?
        } else if cpu.is_quiet() {
            return None;
        } else {
            [
                at(context, argument!(eval_expr))?,
                at(context, argument!(eval_regs))?,
                at(context, argument!(eval_pkt))?,
            ]
        };
        let index = cpu.inside(pkt)?;
        let code: i32 = read(regs + nft_offset!(regs_code) as u64)?;
        if code == NFT_BREAK || code == NFT_CONTINUE && !ends_rule(expression)? {
            return None;
        }
        let (expression, verdict) = (expression | event::VERDICT, u64::from(code as u32));
        if matches!(code, NFT_JUMP | NFT_GOTO) {
            let chain = read(regs + nft_offset!(regs_chain) as u64)?;
            put(cpu, index, [expression, verdict, chain]);
        } else {
            put(cpu, index, [expression, verdict]);
        }
        None
    });
}

/// A target of xtables begins. Only kprobes need to know.
#[inline(always)]
pub fn target_begins(context: *const u8) {
    let arguments =
        || Some([at(context, argument!(target_skb))?, at(context, argument!(target_par))?, 0]);
    if let Some(arguments) = arguments() {
        calls::begin(calls::TARGET, arguments);
    }
}

/// It ends: the rule whose data it was called with has matched. nf_tables calls targets as well, but not
/// in a table that the packet is in.
#[inline(always)]
pub fn target_ends(context: *const u8) {
    guarded(|cpu| {
        let [skb, par, _] = if is_kprobe() {
            calls::end(calls::TARGET)?
        } else if cpu.is_quiet() {
            return None;
        } else {
            [at(context, argument!(target_skb))?, at(context, argument!(target_par))?, 0]
        };
        let index = cpu.inside(skb)?;
        let data: u64 = read(par + u64::from(argument!(par_targinfo)))?;
        let result = at(context, argument!(target_result))? & 0xffff_ffff;
        put(cpu, index, [data | event::TARGET, result]);
        None
    });
}

/// A packet enters a base chain: the first of a hook, or the next one. Those whose path is known leave
/// soon.
#[inline(always)]
fn enter(cpu: &mut Cpu, view: Probed, chain: u64, inside: u64) -> Option<()> {
    let (hook, family) = view.hook()?;
    if hook >= HOOKS || !matches!(family, FAMILY_V4 | FAMILY_V6) {
        return None;
    }
    if !cpu.is_quiet()
        && let Some(index) = cpu.find_anywhere(view.skb)
        && plan::hook(cpu.frames[index & 3].hook_point) == hook
    {
        let found = chains::get(chain, family, hook)?;
        if cpu.frames[index & 3].hook_point == found.hook_point {
            traverse::border(&mut cpu.frames[index & 3], view);
            entered(cpu, index, found.number, inside);
            return None;
        }
        // From before conntrack's own function to behind it.
        finish(cpu, index, view.skb, false);
    }
    let tracing = path_cache::tracing();
    // Of each hook its first chain alone counts.
    let hook_point = cpu.hook_point_of(view.skb);
    let again = hook_point < NOWHERE && plan::hook(hook_point) == hook;
    if !again {
        let main = plan::hook_point(family == FAMILY_V6, SEGMENT_MAIN, hook);
        traverse::arrive(cpu, view.skb, main);
    }
    let sampled = !again && traverse::is_sample(&tracing);
    // Nearly all packets leave here.
    let nfct = view.nfct()?;
    let (entry, info) = (nfct.address(), nfct.info());
    let bit = path_cache::bit(info, hook);
    if entry != 0
        && !sampled
        && !nfct.may_be_first()
        && path_cache::contains(entry, tracing.generation, bit)
    {
        return None;
    }
    let Some(found) = chains::get(chain, family, hook) else {
        missed(view, hook, family);
        path_cache::insert(entry, tracing.generation, bit, false);
        return None;
    };
    let who = Who::of(view, plan::segment(found.hook_point), hook)?;
    if !sampled && who.is_known(tracing.generation) {
        return None;
    }
    if found.first == 0 {
        return None;
    }
    if cpu.running > 1 {
        count(Counter::FramesFull);
        return None;
    }
    cpu.enter(view.skb, found.hook_point);
    let index = traverse::begin(cpu, view, &who, found.hook_point, &tracing, sampled)?;
    cpu.frames[index & 3].flags = u32::from(PATH_PROBED);
    emit::path_scratch(cpu::index(index))?.clear();
    entered(cpu, index, found.number, inside);
    None
}

/// A packet came to a chain that is not known: one that has nothing to tell, of a namespace that is not
/// observed, or one of a ruleset that the agent has yet to look at. Only the last counts.
#[inline(never)]
fn missed(view: Probed, hook: u8, family: u8) {
    let Some(number) = view.netns_cookie().and_then(netns::number) else { return };
    let hook_point = plan::hook_point(family == FAMILY_V6, SEGMENT_MAIN, hook);
    if let Some(plan) = plans::get(plan::plan_index(number, hook_point))
        && !plans::holds(plan)
    {
        count(Counter::PathRaces);
    }
}

#[inline(always)]
fn entered(cpu: &mut Cpu, index: usize, number: u32, inside: u64) {
    cpu.frames[index & 3].inside = inside;
    put(cpu, index, [u64::from(number) << event::SHIFT | event::ENTER]);
}

/// A packet leaves a base chain.
#[inline(always)]
fn leave(cpu: &mut Cpu, inside: u64, result: u64) -> Option<()> {
    if cpu.is_quiet() {
        return None;
    }
    let index = cpu.inside(inside)?;
    let frame = &mut cpu.frames[index & 3];
    frame.inside = 0;
    frame.result = result as u32;
    put(cpu, index, [(result & 0xffff_ffff) << event::SHIFT | event::LEAVE]);
    None
}

/// Bits of `struct nft_rule_dp` (is_last:1, dlen:12, handle:42) that are zero in the head of a rule, for no
/// handle is so large, and set in an address of the kernel's.
const ADDRESS: u64 = 0x7f << 48;

/// Bits that are zero in the address of an expression's operations; the first is set behind the last rule.
const ALIGNED: u64 = 7;

/// Whether an expression is the last of its rule. Then the word behind it is the head of the next rule
/// (`struct nft_rule_dp`), or the marker behind the last rule; otherwise it is the address of the next expression's
/// operations. The kernel writes the fields of a head into memory that it has not cleared, so that the bits between
/// the fields may be those of an old address: only the bits of fields are compared. Kernels without blobs of rules
/// (before 5.17) have nothing behind a rule: there the agent probes only last expressions.
#[inline(always)]
fn ends_rule(expression: u64) -> Option<bool> {
    if argument!(blobs) == 0 {
        return Some(true);
    }
    let operations: u64 = read(expression + nft_offset!(expr_ops) as u64)?;
    let size: u32 = read(operations + nft_offset!(ops_size) as u64)?;
    let next: u64 = read(expression + u64::from(size))?;
    Some(next & ADDRESS != ADDRESS || next & ALIGNED != 0)
}

/// Adds to what was seen of a packet; all of it, or nothing.
#[inline(always)]
fn put<const N: usize>(cpu: &mut Cpu, index: usize, numbers: [u64; N]) {
    let frame = &mut cpu.frames[index & 3];
    let Some(scratch) = emit::path_scratch(cpu::index(index)) else { return };
    if frame.events + 2 * N as u32 > MAX_EVENT_WORDS as u32 {
        frame.flags |= u32::from(PATH_TRUNCATED);
        return;
    }
    for number in numbers {
        scratch.put(frame.events, number as u32);
        scratch.put(frame.events + 1, (number >> 32) as u32);
        frame.events += 2;
    }
}
