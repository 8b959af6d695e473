//! A small reader of BTF (Documentation/bpf/btf.rst): struct member offsets, enumerators, functions.
//!
//! One read of the file, one pass over the types; split BTF of modules on top of vmlinux's. Only
//! what offset lookup needs: aya has no public way to ask for a member's offset.

use std::{collections::HashMap, io, path::Path, sync::Arc};

/// Where the kernel shows its own BTF (CONFIG_DEBUG_INFO_BTF) and that of its modules.
pub const SYSFS: &str = "/sys/kernel/btf";

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u8 = 1;
const KIND_PTR: u8 = 2;
const KIND_ARRAY: u8 = 3;
const KIND_STRUCT: u8 = 4;
const KIND_UNION: u8 = 5;
const KIND_ENUM: u8 = 6;
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

/// Anonymous members are searched this deep; C allows more, the kernel does not use it.
const MAX_DEPTH: usize = 16;

/// What went wrong with BTF.
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
    /// The bytes are not BTF as this reader knows it.
    #[error("not valid BTF: {0}")]
    Format(&'static str),
    /// No structure of that name.
    #[error("the kernel's BTF has no `struct {0}`")]
    NoStruct(String),
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
}

/// `struct btf_type`, decoded.
struct Type {
    name: u32,
    kind: u8,
    kind_flag: bool,
    vlen: usize,
    /// Size, or the id of the type referred to.
    size_or_ref: u32,
    /// Position of what follows the fixed part.
    tail: usize,
}

impl Btf {
    /// Reads vmlinux's BTF of the running kernel.
    pub fn vmlinux() -> Result<Arc<Self>, BtfError> {
        Self::read(&Path::new(SYSFS).join("vmlinux"), None).map(Arc::new)
    }

    /// Reads a module's BTF of the running kernel; `None` if the module is not loaded or built in.
    pub fn module(name: &str, base: &Arc<Self>) -> Result<Option<Self>, BtfError> {
        let path = Path::new(SYSFS).join(name);
        if path.exists() { Self::read(&path, Some(Arc::clone(base))).map(Some) } else { Ok(None) }
    }

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
            kind: (info >> 24 & 0x1f) as u8,
            kind_flag: info >> 31 == 1,
            vlen: (info & 0xffff) as usize,
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

    /// Offset in bytes of a member of a structure. The path may go through named members
    /// (`nd_net.net`), array elements (`tuplehash[1].tuple`) and anonymous structures.
    pub fn member_offset(&self, name: &str, path: &str) -> Result<u32, BtfError> {
        let candidates =
            self.structs.get(name).ok_or_else(|| BtfError::NoStruct(name.to_owned()))?;
        for &id in candidates {
            if let Some(bits) = self.resolve(id, path)?
                && bits % 8 == 0
            {
                return Ok(bits / 8);
            }
        }
        Err(BtfError::NoMember { name: name.to_owned(), path: path.to_owned() })
    }

    /// Bit offset of a member path inside a type.
    fn resolve(&self, mut id: u32, path: &str) -> Result<Option<u32>, BtfError> {
        let mut bits = 0;
        for part in path.split('.') {
            let (name, index) = split_index(part);
            let Some((offset, member)) = self.find_member(id, name, 0)? else { return Ok(None) };
            bits += offset;
            id = member;
            if let Some(index) = index {
                let Some((element, size)) = self.array_element(id)? else { return Ok(None) };
                bits += index * size * 8;
                id = element;
            }
        }
        Ok(Some(bits))
    }

    /// (bit offset, type) of a member, searched through anonymous members.
    fn find_member(
        &self,
        id: u32,
        name: &str,
        depth: usize,
    ) -> Result<Option<(u32, u32)>, BtfError> {
        let (blob, t) = self.type_by_id(self.strip(id)?)?;
        if !matches!(t.kind, KIND_STRUCT | KIND_UNION) || depth > MAX_DEPTH {
            return Ok(None);
        }
        for i in 0..t.vlen {
            let at = t.tail + i * 12;
            let member_name = blob.string(read_u32(&blob.data, at)?);
            let member_type = read_u32(&blob.data, at + 4)?;
            let raw = read_u32(&blob.data, at + 8)?;
            let offset = if t.kind_flag { raw & 0x00ff_ffff } else { raw };
            if member_name == name {
                return Ok(Some((offset, member_type)));
            }
            if member_name.is_empty()
                && let Some((inner, found)) = self.find_member(member_type, name, depth + 1)?
            {
                return Ok(Some((offset + inner, found)));
            }
        }
        Ok(None)
    }

    /// Goes through typedefs and qualifiers.
    fn strip(&self, mut id: u32) -> Result<u32, BtfError> {
        for _ in 0..MAX_DEPTH {
            let (_, t) = self.type_by_id(id)?;
            match t.kind {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    id = t.size_or_ref;
                }
                _ => return Ok(id),
            }
        }
        Err(BtfError::Format("typedefs nested too deeply"))
    }

    /// (element type, element size in bytes) of an array type.
    fn array_element(&self, id: u32) -> Result<Option<(u32, u32)>, BtfError> {
        let (blob, t) = self.type_by_id(self.strip(id)?)?;
        if t.kind != KIND_ARRAY {
            return Ok(None);
        }
        let element = read_u32(&blob.data, t.tail)?;
        let (_, stripped) = self.type_by_id(self.strip(element)?)?;
        let size = if stripped.kind == KIND_PTR { 8 } else { stripped.size_or_ref };
        Ok(Some((element, size)))
    }

    /// Value of an enumerator, in whatever `enum` it stands.
    pub fn enumerator(&self, wanted: &str) -> Result<u32, BtfError> {
        for &at in &self.types {
            let t = self.type_at(at as usize)?;
            if t.kind != KIND_ENUM {
                continue;
            }
            for i in 0..t.vlen {
                let at = t.tail + i * 8;
                if self.string(read_u32(&self.data, at)?) == wanted {
                    return read_u32(&self.data, at + 4);
                }
            }
        }
        Err(BtfError::NoEnumerator(wanted.to_owned()))
    }

    /// Type id of a function (`BTF_KIND_FUNC`), the id that fentry attaches to.
    #[must_use]
    pub fn function(&self, wanted: &str) -> Option<u32> {
        self.types.iter().zip(self.first_id..).find_map(|(&at, id)| {
            let t = self.type_at(at as usize).ok()?;
            (t.kind == KIND_FUNC && self.string(t.name) == wanted).then_some(id)
        })
    }
}

/// `name[3]` → (`name`, 3).
fn split_index(part: &str) -> (&str, Option<u32>) {
    match part.strip_suffix(']').and_then(|p| p.split_once('[')) {
        Some((name, index)) => (name, index.parse().ok()),
        None => (part, None),
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes BTF by hand, a type at a time.
    struct Builder {
        types: Vec<u8>,
        strings: Vec<u8>,
        first_string: u32,
    }

    impl Builder {
        fn new(first_string: u32) -> Self {
            // The first string of a base blob is empty; split BTF has no empty string of its own.
            let strings = if first_string == 0 { vec![0] } else { Vec::new() };
            Self { types: Vec::new(), strings, first_string }
        }

        fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let at = self.first_string + self.strings.len() as u32;
            self.strings.extend(name.bytes().chain([0]));
            at
        }

        fn words(&mut self, words: &[u32]) {
            self.types.extend(words.iter().flat_map(|w| w.to_ne_bytes()));
        }

        fn strukt(&mut self, name: &str, kind: u8, size: u32, members: &[(&str, u32, u32)]) {
            let name = self.name(name);
            self.words(&[name, u32::from(kind) << 24 | members.len() as u32, size]);
            for &(member, ty, bits) in members {
                let member = self.name(member);
                self.words(&[member, ty, bits]);
            }
        }

        fn finish(self) -> Vec<u8> {
            let mut out = Vec::new();
            out.extend(MAGIC.to_ne_bytes());
            out.extend([1, 0]);
            let types = self.types.len() as u32;
            for word in [24, 0, types, types, self.strings.len() as u32] {
                out.extend(word.to_ne_bytes());
            }
            out.extend(self.types);
            out.extend(self.strings);
            out
        }
    }

    fn base() -> Vec<u8> {
        let mut b = Builder::new(0);
        let int = b.name("int");
        b.words(&[int, u32::from(KIND_INT) << 24, 4, 32]); // 1
        b.strukt("pair", KIND_STRUCT, 8, &[("a", 1, 0), ("b", 1, 32)]); // 2
        b.words(&[0, u32::from(KIND_ARRAY) << 24, 0, 2, 1, 2]); // 3: pair[2]
        b.strukt("", KIND_UNION, 8, &[("x", 1, 0), ("y", 2, 0)]); // 4
        b.strukt("outer", KIND_STRUCT, 40, &[("n", 1, 0), ("", 4, 64), ("pairs", 3, 128)]); // 5
        let reason = b.name("reason");
        let (first, second) = (b.name("R_FIRST"), b.name("R_SECOND"));
        b.words(&[reason, u32::from(KIND_ENUM) << 24 | 2, 4, first, 7, second, 9]); // 6
        b.finish()
    }

    #[test]
    fn members_are_found_through_anonymous_unions_and_array_elements() {
        let btf = Btf::parse(base(), None).unwrap();
        assert_eq!(btf.member_offset("outer", "n").unwrap(), 0);
        assert_eq!(btf.member_offset("outer", "x").unwrap(), 8);
        assert_eq!(btf.member_offset("outer", "y.b").unwrap(), 12);
        assert_eq!(btf.member_offset("outer", "pairs[1].b").unwrap(), 16 + 8 + 4);
        assert_eq!(btf.enumerator("R_SECOND").unwrap(), 9);
    }

    #[test]
    fn what_is_missing_is_named() {
        let btf = Btf::parse(base(), None).unwrap();
        let text = |e: Result<u32, BtfError>| e.unwrap_err().to_string();
        assert_eq!(
            text(btf.member_offset("outer", "z")),
            "the kernel's `struct outer` has no member `z`"
        );
        assert_eq!(text(btf.member_offset("none", "z")), "the kernel's BTF has no `struct none`");
        assert_eq!(text(btf.enumerator("R_THIRD")), "the kernel's BTF has no enumerator `R_THIRD`");
    }

    #[test]
    fn split_btf_refers_to_types_and_strings_of_its_base() {
        let base = Arc::new(Btf::parse(base(), None).unwrap());
        let mut b = Builder::new(base.strings.1 as u32);
        b.strukt("mine", KIND_STRUCT, 16, &[("before", 1, 0), ("theirs", 5, 64)]);
        let split = Btf::parse(b.finish(), Some(base)).unwrap();
        assert_eq!(split.member_offset("mine", "theirs.y.b").unwrap(), 8 + 12);
    }

    #[test]
    fn the_running_kernel_is_read() {
        // Builds without BTF exist; the offsets test of the lab covers those that matter.
        let Ok(btf) = Btf::vmlinux() else { return };
        assert_eq!(btf.member_offset("list_head", "prev").unwrap(), 8);
        assert!(btf.function("nf_hook_slow").is_some());
    }

    proptest! {
        #[test]
        fn damaged_btf_is_an_error_never_a_panic(
            cut in 0usize..300,
            flips in prop::collection::vec((0usize..300, any::<u8>()), 0..8),
        ) {
            let mut bytes = base();
            for (at, value) in flips {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            if let Ok(btf) = Btf::parse(bytes, None) {
                let _ = btf.member_offset("outer", "pairs[1].b");
                let _ = btf.enumerator("R_SECOND");
                let _ = btf.function("f");
            }
        }
    }
}
