//! The properties of the running kernel, read once for all backends.

use std::sync::Arc;

use anyhow::{Result, anyhow};

use crate::{
    bpf::{
        btf::KernelBtf,
        drops::DropSign,
        offsets::Layout,
        points::{Points, Search},
        reasons::Reasons,
        symbols::{Functions, Kallsyms, Symbols},
    },
    netlink,
};

/// BTF, and the layout that follows from it and from /proc/kallsyms.
pub(crate) struct Kernel {
    pub btf: Arc<KernelBtf>,
    pub layout: Layout,
    pub points: Points,
    /// Functions that are left alone.
    pub avoid: Vec<String>,
    drops: Result<DropSign, String>,
    symbols: Result<Symbols, String>,
    functions: Arc<Functions>,
}

impl Kernel {
    /// Reads them. It makes the kernel load the modules of conntrack and nf_tables first, because their BTF is
    /// needed. Functions named in `avoid` are not used.
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
        let functions = kallsyms.as_ref().map(Kallsyms::functions).unwrap_or_default();
        let (avoid, functions) = (avoid.to_vec(), Arc::new(functions));
        Ok(Self { btf, layout, points, avoid, drops, symbols, functions })
    }

    /// How drops by netfilter are recognised.
    ///
    /// # Errors The kernel offers neither the reason nor the function.
    pub fn drops(&self) -> Result<DropSign> {
        self.drops.clone().map_err(|error| anyhow!(error))
    }

    /// Names of what drops packets elsewhere than in netfilter.
    pub fn reasons(&self) -> Reasons {
        Reasons::of(&self.btf, Arc::clone(&self.functions))
    }

    /// The symbols of functions at hooks.
    ///
    /// # Errors /proc/kallsyms hides addresses.
    pub fn symbols(&self) -> Result<Symbols> {
        self.symbols.clone().map_err(|error| anyhow!(error))
    }
}
