//! Netfilter links: their hooks, their priorities, and the search for a free priority.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use anyhow::{Context, Result, bail};
use aya_obj::generated::bpf_insn;
use conntracker_common::{
    hook::{LOCAL_IN, POST_ROUTING},
    record::{FAMILY_V4, FAMILY_V6},
};
use nix::sched::{CloneFlags, unshare};

use super::sys;
use crate::os::{netns::Netns, threads};

/// Every packet that confirms a flow passes the end of exactly one of these hooks.
pub const CONFIRMING_HOOKS: [u8; 2] = [LOCAL_IN, POST_ROUTING];

/// The last priority before conntrack confirms, which it does at INT_MAX (NF_IP_PRI_CONNTRACK_CONFIRM), and for
/// locally delivered IPv6 at INT_MAX - 1 (`ipv6_conntrack_ops` of net/netfilter/nf_conntrack_proto.c).
const LAST: i32 = i32::MAX - 2;

/// Priorities of one link that are tried before it is given up: no hook has as many second instances of us, or
/// base chains of neighbouring priorities.
const TRIED_PRIORITIES: usize = 64;

/// Links of one namespace. Dropping them detaches the programs.
#[derive(Debug)]
pub struct Links {
    /// Held only to keep the programs attached.
    _links: Vec<OwnedFd>,
}

impl Links {
    /// Attaches `flow_end` in `netns`: LOCAL_IN and POSTROUTING, IPv4 and IPv6.
    pub fn attach(program: BorrowedFd<'_>, netns: &Netns) -> Result<Self> {
        let mut links = Vec::new();
        let mut lowest = LAST;
        for family in [FAMILY_V4, FAMILY_V6] {
            for hook in CONFIRMING_HOOKS {
                let (link, priority) =
                    netns.enter(|| attach_last(program, family, hook)).with_context(|| {
                        format!(
                            "cannot attach a netfilter link in namespace `{}` (family {family}, hook {hook})",
                            netns.name
                        )
                    })?;
                lowest = lowest.min(priority);
                links.push(link);
            }
        }
        if lowest != LAST {
            log::info!(
                "other programs are attached at the ends of the hooks too (namespace {}): attached at priority {lowest} and above",
                netns.name
            );
        }
        Ok(Self { _links: links })
    }
}

/// Attaches at the highest free priority.
fn attach_last(program: BorrowedFd<'_>, family: u8, hook: u8) -> io::Result<(OwnedFd, i32)> {
    attach(program, family, hook, (i32::MIN + 1..=LAST).rev())?.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("all {TRIED_PRIORITIES} priorities below INT_MAX are taken"),
        )
    })
}

/// Attaches at the first of these priorities that is free; `None`: all that were tried are taken. The calling thread
/// is in the namespace.
pub fn attach(
    program: BorrowedFd<'_>,
    family: u8,
    hook: u8,
    priorities: impl Iterator<Item = i32>,
) -> io::Result<Option<(OwnedFd, i32)>> {
    for priority in priorities.take(TRIED_PRIORITIES) {
        match sys::link_netfilter(program, family, hook, priority) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(error),
            Ok(link) => return Ok(Some((link, priority))),
        }
    }
    Ok(None)
}

/// Whether the kernel accepts netfilter programs and links: loads the smallest program and attaches it in a new
/// namespace, where no packet meets it.
pub fn probe() -> Result<()> {
    let program = sys::load_netfilter("ct_probe", returning(NF_ACCEPT)[..].into())?;
    let attached = threads::spawn("probe", move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        attach_last(program.as_fd(), FAMILY_V4, LOCAL_IN)
    })?
    .join();
    match attached {
        Ok(result) => result.map(|_| ()).context("the kernel refused a netfilter link"),
        Err(_) => bail!("the probing thread panicked"),
    }
}

/// Netfilter's NF_ACCEPT.
const NF_ACCEPT: i32 = 1;

/// The program `return VALUE`.
#[must_use]
pub fn returning(value: i32) -> [bpf_insn; 2] {
    /// BPF_ALU64 | BPF_MOV | BPF_K, BPF_JMP | BPF_EXIT.
    const MOV: u8 = 0xb7;
    const EXIT: u8 = 0x95;
    [MOV, EXIT].map(|code| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm: if code == MOV { value } else { 0 },
    })
}
