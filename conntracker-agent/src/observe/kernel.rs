//! What the running kernel is like, found out once for all backends.

use std::sync::Arc;

use anyhow::{Result, anyhow};

use crate::kernel::{
    bpf::{
        btf::KernelBtf,
        drops::DropSign,
        offsets::Layout,
        points::{Points, Search},
        symbols::{Kallsyms, Symbols},
    },
    netlink,
};

/// BTF, and what follows from it and from /proc/kallsyms.
pub(crate) struct Kernel {
    pub btf: Arc<KernelBtf>,
    pub layout: Layout,
    pub points: Points,
    /// Functions that are left alone.
    pub avoid: Vec<String>,
    drops: Result<DropSign, String>,
    symbols: Result<Symbols, String>,
}

impl Kernel {
    /// Looks at it. Distributions have conntrack and nf_tables in modules, which the kernel loads when
    /// somebody asks for them: so does this. Functions of the names in `avoid` are left alone.
    pub fn running(avoid: &[String]) -> Result<Self> {
        netlink::load_modules();
        let btf = Arc::new(KernelBtf::of_running_kernel()?);
        let layout = Layout::resolve(&btf)?;
        let kallsyms = Kallsyms::read();
        let drops = DropSign::find(&btf, kallsyms.as_ref());
        let points = {
            let names = kallsyms.as_ref().map(Kallsyms::names).unwrap_or_default();
            let exists = |name: &str| names.contains(name);
            Points::resolve(Search { btf: &btf, exists: &exists, avoid })
        };
        let symbols = match &kallsyms {
            Ok(kallsyms) => Ok(Symbols::of(kallsyms)),
            Err(error) => Err(format!("{error:#}")),
        };
        Ok(Self { btf, layout, points, avoid: avoid.to_vec(), drops, symbols })
    }

    /// What tells drops by netfilter from others.
    ///
    /// # Errors
    /// There is nothing.
    pub fn drops(&self) -> Result<DropSign> {
        self.drops.clone().map_err(|error| anyhow!(error))
    }

    /// What tells functions at hooks by their addresses.
    ///
    /// # Errors
    /// /proc/kallsyms tells nothing.
    pub fn symbols(&self) -> Result<Symbols> {
        self.symbols.clone().map_err(|error| anyhow!(error))
    }
}
