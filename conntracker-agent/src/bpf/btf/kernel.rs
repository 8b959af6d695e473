//! BTF of a whole kernel: vmlinux's and that of its modules.

use std::{fs, path::Path, sync::Arc};

use super::{Btf, BtfError, MemberAt, Parameter, SYSFS};

/// Modules with structures and functions that vmlinux may lack, in the order of the search; [`EXTENSIONS`] follow.
const MODULES: &[&str] =
    &["nf_conntrack", "nf_nat", "nf_tables", "x_tables", "ip_tables", "ip6_tables"];

/// Prefixes of the names of modules with expressions of nf_tables or targets of xtables.
const EXTENSIONS: &[&str] = &["nft_", "xt_", "ipt_", "ip6t_"];

/// Prefixes of names of structures, and the module that defines them.
const OWNERS: &[(&str, &str)] = &[
    ("nf_conn", "nf_conntrack"),
    ("nf_nat", "nf_nat"),
    ("nft_counter", "nft_counter, or nf_tables,"),
    ("nft", "nf_tables"),
    ("xt_", "x_tables"),
    ("ipt_", "ip_tables"),
    ("ip6t_", "ip6_tables"),
];

/// vmlinux's BTF and that of modules on top of it.
pub struct KernelBtf {
    vmlinux: Arc<Btf>,
    modules: Vec<(String, Arc<Btf>)>,
}

/// A function as BTF describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// The module whose BTF has it; `None`: vmlinux's.
    pub module: Option<String>,
    /// Its type id there.
    pub id: u32,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
}

impl KernelBtf {
    /// Reads the BTF of the running kernel and of the modules that are loaded.
    pub fn of_running_kernel() -> Result<Self, BtfError> {
        let modules = Vec::new();
        let alone = Self { vmlinux: Btf::vmlinux()?, modules };
        Ok(alone.with_new_modules()?.unwrap_or(alone))
    }

    /// The same with the modules that were loaded since; `None` if there are none.
    pub fn with_new_modules(&self) -> Result<Option<Self>, BtfError> {
        let known = |name: &String| self.modules.iter().any(|(known, _)| known == name);
        let mut modules = self.modules.clone();
        for name in loaded()?.into_iter().filter(|name| !known(name)) {
            // It may be gone again.
            if let Some(btf) = Btf::module(&name, &self.vmlinux)? {
                modules.push((name, Arc::new(btf)));
            }
        }
        let new = modules.len() > self.modules.len();
        Ok(new.then(|| Self { vmlinux: Arc::clone(&self.vmlinux), modules }))
    }

    /// Joins blobs; `vmlinux` is the base of those of modules.
    #[cfg(any(test, feature = "fuzz"))]
    #[must_use]
    pub fn new(vmlinux: Arc<Btf>, modules: Vec<(String, Arc<Btf>)>) -> Self {
        Self { vmlinux, modules }
    }

    /// Offset in bytes of a member; see [`Btf::member_offset`].
    pub fn member_offset(&self, strukt: &str, path: &str) -> Result<u32, BtfError> {
        self.first(|btf| btf.member_offset(strukt, path))
    }

    /// Offsets in bytes of members, told by structure and path.
    pub fn member_offsets<const N: usize>(
        &self,
        members: &[(&str, &str)],
    ) -> Result<[u32; N], BtfError> {
        let mut offsets = [0; N];
        for (offset, (strukt, path)) in offsets.iter_mut().zip(members) {
            *offset = self.member_offset(strukt, path)?;
        }
        Ok(offsets)
    }

    /// Place of a bit field.
    pub fn bit_field(&self, strukt: &str, path: &str) -> Result<MemberAt, BtfError> {
        self.first(|btf| btf.bit_field(strukt, path))
    }

    /// Value of an enumerator, in whatever `enum` it stands.
    pub fn enumerator(&self, name: &str) -> Result<u32, BtfError> {
        self.first(|btf| btf.enumerator(name))
    }

    /// Enumerators of vmlinux whose names begin with `prefix`, with their values.
    #[must_use]
    pub fn enumerators(&self, prefix: &str) -> Vec<(&str, u32)> {
        self.vmlinux.enumerators(prefix).unwrap_or_default()
    }

    /// A function, with its parameters.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<Function> {
        let (module, btf, id) =
            self.blobs().find_map(|(module, btf)| Some((module, btf, btf.function(name)?)))?;
        let parameters = btf.parameters(id).ok()?;
        Some(Function { module: module.map(str::to_owned), id, parameters })
    }

    fn blobs(&self) -> impl Iterator<Item = (Option<&str>, &Btf)> {
        let modules = self.modules.iter().map(|(name, btf)| (Some(name.as_str()), &**btf));
        std::iter::once((None, &*self.vmlinux)).chain(modules)
    }

    /// The first answer of vmlinux and then of the modules. If all fail, the error of the blob that has the
    /// structure.
    fn first<T>(&self, ask: impl Fn(&Btf) -> Result<T, BtfError>) -> Result<T, BtfError> {
        let mut error = None;
        for (_, btf) in self.blobs() {
            match ask(btf) {
                Ok(answer) => return Ok(answer),
                Err(BtfError::NoStruct(_)) if error.is_some() => {}
                Err(new) => error = Some(new),
            }
        }
        Err(match error.unwrap_or(BtfError::Format("empty")) {
            BtfError::NoStruct(name) => match self.absent_owner(&name) {
                Some(module) => BtfError::NotLoaded { name, module },
                None => BtfError::NoStruct(name),
            },
            error => error,
        })
    }

    /// The module that defines the structure, if its BTF is missing.
    fn absent_owner(&self, strukt: &str) -> Option<&'static str> {
        let (_, owner) = OWNERS.iter().find(|(begin, _)| strukt.starts_with(begin))?;
        let loaded = self.modules.iter().any(|(name, _)| name == owner);
        (!loaded).then_some(*owner)
    }
}

/// Names of modules that are loaded, have BTF, and may matter: those of [`MODULES`] first.
fn loaded() -> Result<Vec<String>, BtfError> {
    let failed = |source| BtfError::Read { path: SYSFS.to_owned(), source };
    let files = fs::read_dir(SYSFS).map_err(failed)?.flatten();
    let rank = |name: &str| match MODULES.iter().position(|module| *module == name) {
        None if EXTENSIONS.iter().any(|begin| name.starts_with(begin)) => Some(MODULES.len()),
        rank => rank,
    };
    let mut names: Vec<(usize, String)> = files
        .filter_map(|file| file.file_name().into_string().ok())
        .filter_map(|name| Some((rank(&name)?, name)))
        .collect();
    names.sort();
    Ok(names.into_iter().map(|(_, name)| name).collect())
}

impl Btf {
    /// Reads vmlinux's BTF of the running kernel.
    pub fn vmlinux() -> Result<Arc<Self>, BtfError> {
        Self::read(&Path::new(SYSFS).join("vmlinux"), None).map(Arc::new)
    }

    /// Reads a module's BTF of the running kernel; `None` if the module is not loaded or built in.
    fn module(name: &str, base: &Arc<Self>) -> Result<Option<Self>, BtfError> {
        let path = Path::new(SYSFS).join(name);
        if path.exists() { Self::read(&path, Some(Arc::clone(base))).map(Some) } else { Ok(None) }
    }
}
