//! The socket that a packet belongs to, and the process that sends it; none where that is not certain.
//!
//! A packet has the socket that sent it until it leaves the machine, and on its way in the one that
//! will receive it, if that was looked up early. Packets that the kernel wraps for a tunnel still have
//! that of what is inside, so that protocol and port must be those of the flow.

use aya_ebpf::helpers::bpf_get_current_task;
use conntracker_common::{has_ports, owner::Owner};

use crate::base::{
    globals::{offset, owner_number, owner_offset},
    memory::{read, read_into},
};

/// `skc_state` of sockets that are less than a `struct sock`.
const TCP_TIME_WAIT: u8 = 6;
const TCP_NEW_SYN_RECV: u8 = 12;

/// `skc_family`.
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// `task_struct.flags` of threads of the kernel's own.
const PF_KTHREAD: u32 = 0x0020_0000;

/// What the socket must be like.
pub struct Local {
    /// IP protocol.
    pub proto: u8,
    /// Its own port, network byte order.
    pub port: [u8; 2],
}

/// Address of a packet's socket, if it has one of its own.
#[inline(always)]
pub fn socket(skb: u64, local: &Local) -> Option<u64> {
    let mut sk: u64 = read(skb + offset!(skb_sk) as u64)?;
    if sk == 0 {
        return None;
    }
    let state: u8 = read(sk + owner_offset!(sk_state) as u64)?;
    if state == TCP_NEW_SYN_RECV {
        // Nobody has accepted the connection yet: it is the listener's.
        sk = read(sk + owner_offset!(sk_listener) as u64)?;
    }
    if sk == 0 || state == TCP_TIME_WAIT {
        return None;
    }
    let family: u16 = read(sk + owner_offset!(sk_family) as u64)?;
    let proto: u16 = read(sk + owner_offset!(sk_protocol) as u64)?;
    let port: u16 = read(sk + owner_offset!(sk_num) as u64)?;
    if !matches!(family, AF_INET | AF_INET6)
        || proto != u16::from(local.proto)
        || (has_ports(local.proto) && port != u16::from_be_bytes(local.port))
    {
        return None;
    }
    Some(sk)
}

/// The user of a socket.
#[inline(always)]
pub fn user(sk: u64) -> Option<u32> {
    read(sk + owner_offset!(sk_uid) as u64)
}

/// Adds what else is known of a socket's owner. With `context`, the address of what the program was
/// called with, also who sends: the process that runs, if the program runs for it.
#[inline(never)]
pub fn describe(owner: &mut Owner, sk: u64, context: u64) {
    // What cannot be read is not known.
    let _ = group(owner, sk);
    let _ = inode(owner, sk);
    if context != 0 && owner_number!(stack_bytes) != 0 && sender(owner, sk, context).is_none() {
        owner.pid = 0;
    }
}

#[inline(always)]
fn group(owner: &mut Owner, sk: u64) -> Option<()> {
    let cgroup: u64 = read(sk + owner_offset!(sk_cgroup) as u64)?;
    if cgroup != 0 {
        let node: u64 = read(cgroup + owner_offset!(cgroup_kn) as u64)?;
        owner.cgroup = read(node + owner_offset!(kn_id) as u64)?;
    }
    Some(())
}

#[inline(always)]
fn inode(owner: &mut Owner, sk: u64) -> Option<()> {
    let socket: u64 = read(sk + owner_offset!(sk_socket) as u64)?;
    if socket != 0 {
        let alloc = socket - owner_offset!(alloc_socket) as u64;
        let inode = alloc + owner_offset!(alloc_inode) as u64;
        owner.inode = read(inode + owner_offset!(inode_ino) as u64)?;
    }
    Some(())
}

/// The program runs for a process if it runs on that one's stack in the kernel: interrupts have stacks
/// of their own. What the program was called with is on the stack that it was called on; the program
/// itself may have another. A process can also have a packet sent that is not its own, by giving a
/// verdict on one in a queue: so the socket must have been made by this process, with the credentials
/// that it has now. Each process has a copy of its own.
#[inline(always)]
fn sender(owner: &mut Owner, sk: u64, context: u64) -> Option<()> {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let stack: u64 = read(task + owner_offset!(task_stack) as u64)?;
    if context.wrapping_sub(stack) >= u64::from(owner_number!(stack_bytes)) {
        return None;
    }
    let flags: u32 = read(task + owner_offset!(task_flags) as u64)?;
    let socket: u64 = read(sk + owner_offset!(sk_socket) as u64)?;
    let file: u64 = read(socket + owner_offset!(socket_file) as u64)?;
    let made_by: u64 = read(file + u64::from(owner_number!(file_cred)))?;
    let runs_as: u64 = read(task + owner_offset!(task_cred) as u64)?;
    if flags & PF_KTHREAD != 0 || made_by != runs_as {
        return None;
    }
    owner.pid = read(task + owner_offset!(task_tgid) as u64)?;
    let leader: u64 = read(task + owner_offset!(task_leader) as u64)?;
    read_into(leader + owner_offset!(task_comm) as u64, &mut owner.comm).then_some(())
}
