//! The object parsed a second time, for the program types that aya does not have (netfilter, syscall):
//! relocated against aya's maps, and loaded by [`super::sys`].

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result};
use aya::{Ebpf, maps::Map};

use super::sys::{self, Code};

/// The parsed object, and its BTF in the kernel.
pub(super) struct RawObject {
    object: aya_obj::Object,
    btf: Option<OwnedFd>,
}

impl RawObject {
    /// Parses `bytes` and relocates against the maps that aya has made of them.
    pub fn relocated(bytes: &[u8], ebpf: &Ebpf) -> Result<Self> {
        let object = aya_obj::Object::parse(bytes)?;
        Self::with_maps(object, |name| ebpf.map(name).and_then(map_fd))
    }

    /// Relocates against these maps, told by name.
    pub fn with_maps(
        mut object: aya_obj::Object,
        fd: impl Fn(&str) -> Option<RawFd>,
    ) -> Result<Self> {
        let features = aya::features();
        let btf = match features.btf() {
            Some(features) => object
                .fixup_and_sanitize_btf(features)?
                .map(|btf| sys::load_btf(&btf.to_bytes()))
                .transpose()
                .context("the kernel refused the BTF of the BPF programs")?,
            None => None,
        };
        let maps: Vec<(String, RawFd, aya_obj::Map)> = object
            .maps
            .drain()
            .map(|(name, map)| {
                let fd = fd(&name).with_context(|| format!("there is no map {name}"))?;
                Ok((name, fd, map))
            })
            .collect::<Result<_>>()?;
        let text = object.functions.keys().map(|(section, _)| *section).collect();
        object
            .relocate_maps(maps.iter().map(|(name, fd, map)| (name.as_str(), *fd, map)), &text)?;
        object.relocate_calls(&text)?;
        object.sanitize_functions(features);
        Ok(Self { object, btf })
    }

    /// Loads one program by way of `load`.
    pub fn load(
        &self,
        name: &str,
        load: impl FnOnce(&str, Code<'_>) -> Result<OwnedFd, sys::LoadError>,
    ) -> Result<OwnedFd> {
        let Self { object, btf } = self;
        let function = object
            .programs
            .get(name)
            .and_then(|program| object.functions.get(&program.function_key()))
            .with_context(|| format!("the BPF object has no program {name}"))?;
        let functions = btf.as_ref().map(|btf| (btf.as_fd(), &*function.func_info.func_info));
        Ok(load(name, Code { instructions: &function.instructions, functions })?)
    }
}

/// Descriptor of one of our maps.
fn map_fd(map: &Map) -> Option<RawFd> {
    match map {
        Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::RingBuf(data) => Some(data.fd().as_fd().as_raw_fd()),
        _ => None,
    }
}
