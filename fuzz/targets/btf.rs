//! BTF: bytes are those of vmlinux, and those of a module on top of it; everything that is looked for in a kernel
//! is looked for in them.

#![no_main]

use std::sync::Arc;

use conntracker::bpf::{
    btf::{Btf, KernelBtf},
    end::EndLayout,
    index::layout::IndexLayout,
    offsets::Layout,
    owner::OwnerLayout,
};
use libfuzzer_sys::fuzz_target;

const FUNCTIONS: [&str; 3] = ["nft_do_chain", "nf_hook_slow", "f"];

fuzz_target!(|bytes: &[u8]| {
    let Ok(vmlinux) = Btf::parse(bytes.to_vec(), None).map(Arc::new) else { return };
    let module = Btf::parse(bytes.to_vec(), Some(Arc::clone(&vmlinux)));
    let modules = module.map(|btf| ("module".to_owned(), Arc::new(btf)));
    let btf = KernelBtf::new(vmlinux, modules.into_iter().collect());
    let _ = (IndexLayout::find(&btf), Layout::resolve(&btf));
    let _ = (OwnerLayout::resolve(&btf), EndLayout::resolve(&btf));
    let _ = (btf.enumerators("S"), btf.member_offset("outer", "pairs[1].b"));
    for name in FUNCTIONS {
        let _ = btf.function(name);
    }
});
