//! What the programs need to know of the running kernel: member offsets and the drop reason.

use std::sync::Arc;

use conntracker_common::offsets::{ASSUMED, Offsets};

use super::{
    btf::{Btf, BtfError},
    index::layout::IndexLayout,
};

/// Modules that may hold structures which vmlinux only declares.
const MODULES: &[&str] =
    &["nf_conntrack", "nf_nat", "nf_tables", "x_tables", "ip_tables", "ip6_tables"];

/// The enumerator whose value the programs compare `kfree_skb`'s reason with.
const DROP_REASON: &str = "SKB_DROP_REASON_NETFILTER_DROP";

/// The kernel's layout, as far as the programs depend on it.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Member offsets.
    pub offsets: Offsets,
    /// Value of `SKB_DROP_REASON_NETFILTER_DROP` (Linux 5.17+; the number varies).
    pub drop_reason: u32,
    /// Where hooks, chains and rules are.
    pub index: IndexLayout,
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
        let vmlinux = Btf::vmlinux()?;
        let mut modules = Vec::new();
        for name in MODULES {
            modules.extend(Btf::module(name, &vmlinux)?);
        }
        Self::resolve(&vmlinux, &modules)
    }

    /// Resolves everything from vmlinux's BTF and, for structures it lacks, from the modules'.
    pub fn resolve(vmlinux: &Arc<Btf>, modules: &[Btf]) -> Result<Self, LayoutError> {
        let member = |strukt: &str, path: &str| -> Result<u32, LayoutError> {
            let first = vmlinux.member_offset(strukt, path);
            // What vmlinux has is never wrong, what it lacks a module may have; its error says most.
            Ok(modules.iter().fold(first, |found, module| {
                found.or_else(|error| module.member_offset(strukt, path).map_err(|_| error))
            })?)
        };
        let mut values = [0; Offsets::MEMBERS.len()];
        for (value, (strukt, path)) in values.iter_mut().zip(Offsets::MEMBERS) {
            *value = member(strukt, path)?;
        }
        for &(strukt, path, expected) in ASSUMED {
            let found = member(strukt, path)?;
            if found != expected {
                return Err(LayoutError::Changed { strukt, path, found, expected });
            }
        }
        Ok(Self {
            offsets: Offsets::from_array(&values),
            drop_reason: vmlinux.enumerator(DROP_REASON)?,
            index: IndexLayout::find(&member)?,
        })
    }
}
