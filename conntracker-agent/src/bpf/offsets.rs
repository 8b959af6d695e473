//! The facts about the running kernel that the programs need, mostly member offsets.

use conntracker_common::{
    offsets::{ASSUMED, Offsets, STAT_MEMBERS},
    probes::ABSENT,
};

use super::{
    btf::{BtfError, KernelBtf},
    end::EndLayout,
    index::layout::IndexLayout,
    owner::OwnerLayout,
};

/// The part of the kernel's layout that the programs depend on.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Member offsets.
    pub offsets: Offsets,
    /// The kernel has the helper `bpf_loop` (Linux 5.17+).
    pub has_loop: bool,
    /// Where hooks, chains and rules are.
    pub index: IndexLayout,
    /// The layout for ends of flows, or what is missing for them.
    pub ends: Result<EndLayout, String>,
    /// `task_struct.nvcsw` and `task_struct.nivcsw`: how often a task was switched out; [`ABSENT`] if BTF lacks them.
    pub switches: [u32; 2],
    /// [`STAT_MEMBERS`]; [`ABSENT`] if BTF does not tell.
    pub stats: [u32; STAT_MEMBERS.len()],
    /// The layout for owners of sockets, or what is missing for them.
    pub owners: Result<OwnerLayout, String>,
}

/// A layout that the programs cannot work with.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// BTF is missing, unreadable, or lacks something.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// A structure that the programs copy whole has changed.
    #[error("the kernel has `{strukt}.{path}` at byte {found}, this build expects {expected}")]
    Changed {
        /// The structure.
        strukt: &'static str,
        /// The member.
        path: &'static str,
        /// Where the kernel has it.
        found: u32,
        /// Where [`ASSUMED`] says it is.
        expected: u32,
    },
}

impl Layout {
    /// Reads the running kernel's BTF.
    pub fn of_running_kernel() -> Result<Self, LayoutError> {
        Self::resolve(&KernelBtf::of_running_kernel()?)
    }

    /// Resolves everything.
    pub fn resolve(btf: &KernelBtf) -> Result<Self, LayoutError> {
        Ok(Self {
            offsets: offsets(btf)?,
            has_loop: btf.enumerator("BPF_FUNC_loop").is_ok(),
            index: IndexLayout::find(btf)?,
            ends: EndLayout::resolve(btf).map_err(|error| error.to_string()),
            switches: ["nvcsw", "nivcsw"]
                .map(|member| btf.member_offset("task_struct", member).unwrap_or(ABSENT)),
            stats: STAT_MEMBERS.map(|(of, member)| btf.member_offset(of, member).unwrap_or(ABSENT)),
            owners: OwnerLayout::resolve(btf).map_err(|error| error.to_string()),
        })
    }
}

/// Resolves what every program needs.
pub(super) fn offsets(btf: &KernelBtf) -> Result<Offsets, LayoutError> {
    check(btf, ASSUMED)?;
    Ok(Offsets::from_array(&btf.member_offsets(Offsets::MEMBERS)?))
}

/// Checks that members have the offsets that the programs assume, as (struct, member path, offset).
pub(super) fn check(
    btf: &KernelBtf,
    assumed: &[(&'static str, &'static str, u32)],
) -> Result<(), LayoutError> {
    for &(strukt, path, expected) in assumed {
        let found = btf.member_offset(strukt, path)?;
        if found != expected {
            return Err(LayoutError::Changed { strukt, path, found, expected });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::btf::fixtures::{KERNELS, kernel};

    #[test]
    fn every_kernel_has_all_members() {
        let found = KERNELS.map(|name| {
            let layout = Layout::resolve(&kernel(name)).unwrap();
            let Offsets { skb_mark, ct_mark, net_cookie, dev_net, .. } = layout.offsets;
            (name, skb_mark, ct_mark, net_cookie, dev_net)
        });
        let expected = [
            ("ubuntu-5.15.0-25", 164, 176, 3904, 1328),
            ("ubuntu-5.15.0-203", 164, 176, 3904, 1328),
            ("debian-6.1", 168, 168, 4032, 1280),
            ("ubuntu-6.8", 168, 168, 4160, 280),
            ("debian-6.12", 168, 168, 4224, 280),
            ("debian-6.18", 168, 168, 4480, 264),
            ("builtin-6.18", 164, 168, 4160, 264),
            ("debian-7.2", 168, 168, 4608, 264),
        ];
        assert_eq!(found, expected);
    }
}
