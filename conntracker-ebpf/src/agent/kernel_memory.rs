//! Kernel memory for the agent, off the packet path: how hooks, chains and rules are laid out is
//! read piece by piece and understood in user space (`bpf/index`).

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE, helpers::generated::bpf_get_current_task, macros::map, maps::Array,
};
use conntracker_common::kernel_memory::{BYTES, PIECE_BYTES, PIECES, Reply, Request};

use crate::base::{
    globals::offset,
    memory::{read, read_bytes},
};

/// Both are mapped into the agent's memory (BPF_F_MMAPABLE, Linux 5.5+).
#[map]
static MEMORY_REQUEST: Array<Request> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static MEMORY: Array<Reply> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Copies what the request asks for.
#[inline(always)]
pub fn run() -> Option<()> {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let nsproxy: u64 = read(task + offset!(task_nsproxy) as u64)?;
    let request = MEMORY_REQUEST.get(0)?;
    let reply = MEMORY.get_ptr_mut(0)?;
    // SAFETY: a map value, written by this program alone, which the agent runs once at a time.
    let reply = unsafe { &mut *reply };
    reply.net = read(nsproxy + offset!(nsproxy_net) as u64)?;
    reply.task = task;
    reply.copied = 0;
    for i in 0..PIECES {
        if i as u64 >= request.count {
            break;
        }
        let piece = &request.pieces[i];
        // Masks rather than comparisons: the verifier must see that this stays inside.
        let at = piece.at as usize & (BYTES - 1);
        let len = piece.len as usize & (2 * PIECE_BYTES - 1);
        if len > PIECE_BYTES {
            return None;
        }
        // SAFETY: at + len <= BYTES + PIECE_BYTES, the length of `data`.
        let to = unsafe { reply.data.as_mut_ptr().add(at) };
        if !read_bytes(piece.address, to, len) {
            break;
        }
        reply.copied = i as u64 + 1;
    }
    Some(())
}
