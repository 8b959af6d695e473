//! BTF of kernels in tests/fixtures/btf, for tests of lookups.

use std::{fs, path::PathBuf, sync::Arc};

use super::{Btf, KernelBtf};

/// Directories of the fixtures, from old to new.
pub(crate) const KERNELS: [&str; 8] = [
    "ubuntu-5.15.0-25",
    "ubuntu-5.15.0-203",
    "debian-6.1",
    "ubuntu-6.8",
    "debian-6.12",
    "debian-6.18",
    "builtin-6.18",
    "debian-7.2",
];

/// A kernel with all its modules.
pub(crate) fn kernel(name: &str) -> KernelBtf {
    kernel_without(name, &[])
}

/// A kernel of which some modules are not loaded.
pub(crate) fn kernel_without(name: &str, absent: &[&str]) -> KernelBtf {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/btf").join(name);
    let read = |file: &str, base| Btf::parse(fs::read(dir.join(file)).unwrap(), base).unwrap();
    let vmlinux = Arc::new(read("vmlinux", None));
    let files = fs::read_dir(&dir).unwrap();
    let mut modules: Vec<String> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    modules.retain(|name| name != "vmlinux" && !absent.contains(&name.as_str()));
    modules.sort();
    let module = |name: String| {
        let btf = read(&name, Some(Arc::clone(&vmlinux)));
        (name, Arc::new(btf))
    };
    let modules = modules.into_iter().map(module).collect();
    KernelBtf::new(vmlinux, modules)
}
