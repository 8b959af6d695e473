//! A small reader of BTF (Documentation/bpf/btf.rst): struct member offsets, enumerators, functions.
//!
//! One read of the file, one pass over the types; split BTF of modules on top of vmlinux's. It reads only what
//! lookups of offsets and functions need; aya has no public function for the offset of a member.
//!
//! A module's BTF in sysfs always has vmlinux's as its base. If a module was built with a base of its own (section
//! .BTF.base, Linux 6.11+, modules outside of the kernel's tree), the kernel has relocated it (kernel/bpf/btf.c,
//! `btf_relocate`).

#[cfg(test)]
pub(crate) mod fixtures;
mod functions;
mod kernel;
mod layout;
mod members;

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, OnceLock},
};

pub use self::{
    functions::{Parameter, ParameterKind},
    kernel::{Function, KernelBtf},
    layout::Members,
    members::MemberAt,
};

pub(super) use self::layout::layout;

/// Directory with the BTF of the kernel (CONFIG_DEBUG_INFO_BTF) and of its modules.
pub const SYSFS: &str = "/sys/kernel/btf";

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u8 = 1;
const KIND_PTR: u8 = 2;
const KIND_ARRAY: u8 = 3;
const KIND_STRUCT: u8 = 4;
const KIND_UNION: u8 = 5;
const KIND_ENUM: u8 = 6;
const KIND_FWD: u8 = 7;
const KIND_TYPEDEF: u8 = 8;
const KIND_VOLATILE: u8 = 9;
const KIND_CONST: u8 = 10;
const KIND_RESTRICT: u8 = 11;
const KIND_FUNC: u8 = 12;
const KIND_FUNC_PROTO: u8 = 13;
const KIND_VAR: u8 = 14;
const KIND_DATASEC: u8 = 15;
const KIND_DECL_TAG: u8 = 17;
const KIND_TYPE_TAG: u8 = 18;
const KIND_ENUM64: u8 = 19;

/// Depth of the search through anonymous members. C allows more, but the kernel does not use it.
const MAX_DEPTH: usize = 16;

/// Why BTF cannot be read, or lacks something.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The bytes are not BTF, or have parts that this reader does not know.
    #[error("not valid BTF: {0}")]
    Format(&'static str),
    /// No structure of that name.
    #[error("the kernel's BTF has no `struct {0}`")]
    NoStruct(String),
    /// There is no structure of that name, and no BTF of the module that defines it.
    #[error(
        "the kernel's BTF has no `struct {name}`: module {module} is not loaded, or has no BTF"
    )]
    NotLoaded {
        /// The structure.
        name: String,
        /// The module that has it.
        module: &'static str,
    },
    /// The structure has no such member.
    #[error("the kernel's `struct {name}` has no member `{path}`")]
    NoMember {
        /// The structure.
        name: String,
        /// The member path asked for.
        path: String,
    },
    /// No such enumerator.
    #[error("the kernel's BTF has no enumerator `{0}`")]
    NoEnumerator(String),
}

/// One BTF blob, vmlinux's or a module's on top of vmlinux's.
pub struct Btf {
    data: Vec<u8>,
    base: Option<Arc<Btf>>,
    /// Position of each type in `data`.
    types: Vec<u32>,
    /// Start of the string section in `data`, and its length.
    strings: (usize, usize),
    /// First type id and first string offset of this blob (after the base's).
    first_id: u32,
    first_string: u32,
    /// Structures and unions with members, by name.
    structs: HashMap<String, Vec<u32>>,
    /// Functions by name, indexed on first use.
    functions: OnceLock<HashMap<Box<str>, u32>>,
}

/// `struct btf_type`, decoded.
struct Type {
    name: u32,
    kind: u8,
    kind_flag: bool,
    vlen: usize,
    /// Size, or the id of the type referred to.
    size_or_ref: u32,
    /// Position behind the fixed part.
    tail: usize,
}

impl Btf {
    fn read(path: &Path, base: Option<Arc<Self>>) -> Result<Self, BtfError> {
        let data = std::fs::read(path)
            .map_err(|source| BtfError::Read { path: path.display().to_string(), source })?;
        Self::parse(data, base)
    }

    /// Parses a blob; `base` is vmlinux's BTF for the split BTF of a module.
    pub fn parse(data: Vec<u8>, base: Option<Arc<Self>>) -> Result<Self, BtfError> {
        let word = |at: usize| read_u32(&data, at).map(|w| w as usize);
        if read_u16(&data, 0)? != MAGIC {
            return Err(BtfError::Format("wrong magic number (or the other byte order)"));
        }
        let header = word(4)?;
        let (types_at, types_len) = (header + word(8)?, word(12)?);
        let (strings_at, strings_len) = (header + word(16)?, word(20)?);
        if strings_at.checked_add(strings_len).is_none_or(|end| end > data.len())
            || types_at.checked_add(types_len).is_none_or(|end| end > data.len())
        {
            return Err(BtfError::Format("a section ends after the end of the data"));
        }
        let (first_id, first_string) = match &base {
            Some(base) => {
                (base.first_id + base.types.len() as u32, base.first_string + base.strings.1 as u32)
            }
            None => (1, 0),
        };
        let mut btf = Self {
            data,
            base,
            types: Vec::new(),
            strings: (strings_at, strings_len),
            first_id,
            first_string,
            structs: HashMap::new(),
            functions: OnceLock::new(),
        };
        btf.index(types_at, types_at + types_len)?;
        Ok(btf)
    }

    /// Walks the type section once: positions of all types, names of structures.
    fn index(&mut self, start: usize, end: usize) -> Result<(), BtfError> {
        let mut at = start;
        while at < end {
            let t = self.type_at(at)?;
            let id = self.first_id + self.types.len() as u32;
            self.types.push(at as u32);
            if matches!(t.kind, KIND_STRUCT | KIND_UNION) && t.vlen > 0 {
                let name = self.string(t.name);
                if !name.is_empty() {
                    let name = name.to_owned();
                    self.structs.entry(name).or_default().push(id);
                }
            }
            let extra = match t.kind {
                KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => t.vlen * 12,
                KIND_ENUM | KIND_FUNC_PROTO => t.vlen * 8,
                _ => 0,
            };
            at = t.tail + extra;
        }
        if at == end { Ok(()) } else { Err(BtfError::Format("the last type is cut short")) }
    }

    fn type_at(&self, at: usize) -> Result<Type, BtfError> {
        let info = read_u32(&self.data, at + 4)?;
        Ok(Type {
            name: read_u32(&self.data, at)?,
            // Linux 7.x widened both fields; older kernels have zeros in the new bits.
            kind: (info >> 24 & 0x7f) as u8,
            kind_flag: info >> 31 == 1,
            vlen: (info & 0x00ff_ffff) as usize,
            size_or_ref: read_u32(&self.data, at + 8)?,
            tail: at + 12,
        })
    }

    /// The blob that holds a type id, and the type.
    fn type_by_id(&self, id: u32) -> Result<(&Self, Type), BtfError> {
        if id < self.first_id {
            return match &self.base {
                Some(base) => base.type_by_id(id),
                None => Err(BtfError::Format("type id 0 (void) where a type is needed")),
            };
        }
        let at = self
            .types
            .get((id - self.first_id) as usize)
            .ok_or(BtfError::Format("a type id past the last type"))?;
        Ok((self, self.type_at(*at as usize)?))
    }

    fn string(&self, offset: u32) -> &str {
        if offset < self.first_string {
            return self.base.as_ref().map_or("", |base| base.string(offset));
        }
        let (start, len) = self.strings;
        let tail = self
            .data
            .get(start..start + len)
            .and_then(|strings| strings.get((offset - self.first_string) as usize..))
            .unwrap_or_default();
        let end = tail.iter().position(|&b| b == 0).unwrap_or(tail.len());
        std::str::from_utf8(&tail[..end]).unwrap_or("")
    }

    /// Value of an enumerator, in whatever `enum` of this blob it stands; of those with 64 bits, the
    /// lower half.
    pub fn enumerator(&self, wanted: &str) -> Result<u32, BtfError> {
        let found = self.enumerators(wanted)?.into_iter().find(|(name, _)| *name == wanted);
        found.map(|(_, value)| value).ok_or_else(|| BtfError::NoEnumerator(wanted.to_owned()))
    }

    /// Enumerators whose names begin with `prefix`, with their values as [`Self::enumerator`] has them.
    pub fn enumerators(&self, prefix: &str) -> Result<Vec<(&str, u32)>, BtfError> {
        let mut found = Vec::new();
        for &at in &self.types {
            let t = self.type_at(at as usize)?;
            let stride = match t.kind {
                KIND_ENUM => 8,
                KIND_ENUM64 => 12,
                _ => continue,
            };
            for i in 0..t.vlen {
                let at = t.tail + i * stride;
                let name = self.string(read_u32(&self.data, at)?);
                if name.starts_with(prefix) {
                    found.push((name, read_u32(&self.data, at + 4)?));
                }
            }
        }
        Ok(found)
    }
}

fn read_u32(data: &[u8], at: usize) -> Result<u32, BtfError> {
    data.get(at..)
        .and_then(<[u8]>::first_chunk)
        .map(|bytes| u32::from_ne_bytes(*bytes))
        .ok_or(BtfError::Format("cut short"))
}

fn read_u16(data: &[u8], at: usize) -> Result<u16, BtfError> {
    data.get(at..)
        .and_then(<[u8]>::first_chunk)
        .map(|bytes| u16::from_ne_bytes(*bytes))
        .ok_or(BtfError::Format("cut short"))
}

#[cfg(test)]
mod tests;
