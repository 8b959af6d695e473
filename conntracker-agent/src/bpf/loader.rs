//! The loader of the BPF object, which is embedded at build time: it sets constants, creates maps, relocates programs
//! against them, and loads programs one by one. aya's loader has neither netfilter programs nor those of type
//! syscall, and it parses all of the kernel's BTF, which takes as long as reading some hundred thousand entries.

use std::{
    collections::HashMap,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use anyhow::{Context, Result, bail};
use aya::maps::{Map, MapData};
use aya_obj::{EbpfSectionKind, generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF};
use conntracker_common::{ABI_SECTION, ABI_VERSION};
use nix::unistd::{SysconfVar, sysconf};
use object::{Object as _, ObjectSection as _};

use super::sys::{self, Code};

/// The BPF object, or nothing in a build without an eBPF toolchain (see build.rs).
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/conntracker.bpf.o"));

/// The map that has the constants.
pub(super) const CONSTANTS: &str = ".rodata";

/// The descriptor of maps that are not created. The kernel refuses a program that uses one of them.
const NO_MAP: i32 = -1;

/// The parsed object, its constants and the sizes of its maps.
pub(super) struct Loader(aya_obj::Object);

impl Loader {
    /// Parses the object of this build.
    pub fn new() -> Result<Self> {
        check_abi(OBJECT)?;
        Ok(Self(aya_obj::Object::parse(OBJECT)?))
    }

    /// Sets constants, each to numbers in the machine's byte order.
    pub fn constants(mut self, constants: &[(&str, Vec<u8>)]) -> Result<Self> {
        let constants = constants.iter().map(|(name, bytes)| (*name, (bytes.as_slice(), true)));
        self.0.patch_map_data(constants.collect())?;
        Ok(self)
    }

    /// Sets how many entries a map has, or how many bytes a ring.
    pub fn max_entries(mut self, name: &str, entries: u32) -> Result<Self> {
        self.0.maps.get_mut(name).with_context(|| no_map(name))?.set_max_entries(entries);
        Ok(self)
    }

    /// The maps, by name.
    pub fn maps(&self) -> impl Iterator<Item = (&str, &aya_obj::Map)> {
        self.0.maps.iter().map(|(name, map)| (name.as_str(), map))
    }

    /// Creates all maps.
    pub fn load(self) -> Result<(Programs, Maps)> {
        let names: Vec<String> = self.0.maps.keys().cloned().collect();
        self.load_with(names.iter().map(String::as_str))
    }

    /// Creates these maps alone, for the programs that use no others.
    pub fn load_with<'a>(self, names: impl Iterator<Item = &'a str>) -> Result<(Programs, Maps)> {
        let Self(object) = self;
        let mut maps = HashMap::new();
        for name in names {
            let map = object.maps.get(name).cloned().with_context(|| no_map(name))?;
            maps.insert(name.to_owned(), create(name, map)?);
        }
        let maps = Maps(maps);
        Ok((Programs::relocated(object, &maps)?, maps))
    }
}

/// Creates a map. The map of constants is frozen, so that the verifier treats its values as constants.
fn create(name: &str, mut map: aya_obj::Map) -> Result<MapData> {
    if map.map_type() == BPF_MAP_TYPE_RINGBUF as u32 {
        map.set_max_entries(ring_bytes(map.max_entries(), page_bytes()?));
    }
    let constants = (map.section_kind() == EbpfSectionKind::Rodata).then(|| map.data().to_vec());
    let map = MapData::create(map, name, None).context("cannot create the BPF maps")?;
    if let Some(constants) = constants {
        sys::freeze(map.fd().as_fd(), &constants).context("cannot set the BPF constants")?;
    }
    Ok(map)
}

/// Size of a page of memory.
fn page_bytes() -> Result<u32> {
    let bytes = sysconf(SysconfVar::PAGE_SIZE)?.context("pages have no size")?;
    Ok(bytes.try_into()?)
}

/// The size of a ring that the kernel accepts: a power of two of pages.
const fn ring_bytes(wanted: u32, page_bytes: u32) -> u32 {
    wanted.div_ceil(page_bytes).next_power_of_two().saturating_mul(page_bytes)
}

pub(super) fn no_map(name: &str) -> String {
    format!("the BPF object has no map {name}")
}

/// Maps in the kernel, by name.
pub(super) struct Maps(HashMap<String, MapData>);

impl Maps {
    /// Descriptor of a map.
    pub fn fd(&self, name: &str) -> Result<BorrowedFd<'_>> {
        Ok(self.0.get(name).with_context(|| no_map(name))?.fd().as_fd())
    }

    /// The maps by their types.
    pub fn into_typed(self) -> Result<HashMap<String, Map>> {
        self.0.into_iter().map(|(name, map)| Ok((name, Map::from_map_data(map)?))).collect()
    }
}

/// The programs of the object, relocated, and its BTF in the kernel.
pub(super) struct Programs {
    object: aya_obj::Object,
    btf: Option<OwnedFd>,
}

impl Programs {
    fn relocated(mut object: aya_obj::Object, created: &Maps) -> Result<Self> {
        let features = aya::features();
        let btf = match features.btf() {
            Some(features) => object
                .fixup_and_sanitize_btf(features)?
                .map(|btf| sys::load_btf(&btf.to_bytes()))
                .transpose()
                .context("the kernel refused the BTF of the BPF programs")?,
            None => None,
        };
        let maps: Vec<(String, aya_obj::Map)> = object.maps.drain().collect();
        let fd =
            |name: &str| created.0.get(name).map_or(NO_MAP, |map| map.fd().as_fd().as_raw_fd());
        let text = object.functions.keys().map(|(section, _)| *section).collect();
        object
            .relocate_maps(maps.iter().map(|(name, map)| (name.as_str(), fd(name), map)), &text)?;
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

/// Numbers as bytes in the machine's order.
pub(super) fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

/// Numbers of 64 bits as bytes in the machine's order.
pub(super) fn long_words(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

/// Refuses an object of another ABI, and a build without an object.
fn check_abi(bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() {
        bail!("this build has no BPF object: run `cargo xtask build`");
    }
    let file = object::File::parse(bytes).context("the BPF object is not an ELF file")?;
    let section = file
        .section_by_name(ABI_SECTION)
        .context("the BPF object does not state its ABI version")?;
    match section.data()? {
        [ABI_VERSION] => Ok(()),
        found => bail!(
            "the BPF object has ABI version {found:?}, the agent [{ABI_VERSION}]: run `cargo xtask build`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_have_as_many_pages_as_a_power_of_two() {
        assert_eq!(ring_bytes(1, 4096), 4096);
        assert_eq!(ring_bytes(3 * 4096, 4096), 4 * 4096);
        assert_eq!(ring_bytes(32 << 20, 4096), 32 << 20);
        assert_eq!(ring_bytes(4096, 65_536), 65_536, "pages of other machines");
        assert_eq!(
            ring_bytes(u32::MAX, 4096),
            u32::MAX,
            "more than there can be: the kernel says so"
        );
    }

    #[test]
    fn numbers_lie_one_behind_the_other() {
        assert_eq!(words(&[0x0101_0101, 0]), [1, 1, 1, 1, 0, 0, 0, 0]);
        assert_eq!(long_words(&[u64::MAX]), [255; 8]);
    }
}
