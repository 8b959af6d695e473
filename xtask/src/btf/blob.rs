//! BTF as it is stored: types are words, and some of the words are names or other types
//! (Documentation/bpf/btf.rst).

use std::collections::HashMap;

use anyhow::{Context, Result, bail};

pub const INT: u32 = 1;
pub const PTR: u32 = 2;
pub const ARRAY: u32 = 3;
pub const STRUCT: u32 = 4;
pub const UNION: u32 = 5;
pub const ENUM: u32 = 6;
pub const TYPEDEF: u32 = 8;
pub const VOLATILE: u32 = 9;
pub const CONST: u32 = 10;
pub const RESTRICT: u32 = 11;
pub const FUNC: u32 = 12;
pub const FUNC_PROTO: u32 = 13;
pub const VAR: u32 = 14;
pub const DATASEC: u32 = 15;
pub const DECL_TAG: u32 = 17;
pub const TYPE_TAG: u32 = 18;
pub const ENUM64: u32 = 19;

const MAGIC: u16 = 0xeb9f;
const HEADER_BYTES: u32 = 24;
/// `info` without kind and number of entries: the flag of structures with bit fields.
const FLAG: u32 = 1 << 31;

/// A type, its names resolved.
#[derive(Clone)]
pub struct Type {
    pub name: String,
    pub kind: u32,
    pub flag: bool,
    /// Size in bytes, or the type referred to.
    pub size_or_ref: u32,
    pub entries: Vec<Entry>,
    /// Words of integers, arrays and variables, which have no entries.
    pub extra: Vec<u32>,
}

/// A member, an enumerator, a parameter.
#[derive(Clone)]
pub struct Entry {
    pub name: String,
    /// Type or, of enumerators, value; then offset in bits, or upper half of the value.
    pub words: Vec<u32>,
}

/// One blob: vmlinux's, or a module's on top of it.
pub struct Blob {
    /// The id of the first type.
    pub first: u32,
    pub types: Vec<Type>,
    strings: Vec<u8>,
}

/// How many words an entry of this kind has, and how many there are beside entries.
fn shape(kind: u32) -> (usize, usize) {
    match kind {
        INT | VAR | DECL_TAG => (0, 1),
        ARRAY => (0, 3),
        STRUCT | UNION | DATASEC | ENUM64 => (3, 0),
        ENUM | FUNC_PROTO => (2, 0),
        _ => (0, 0),
    }
}

impl Blob {
    pub fn parse(bytes: &[u8], base: Option<&Self>) -> Result<Self> {
        let words: Vec<u32> = bytes
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect();
        let [magic, header, types_at, types_len, strings_at, strings_len, ..] = *words else {
            bail!("too short for BTF");
        };
        if magic as u16 != MAGIC {
            bail!("neither an ELF file nor BTF");
        }
        let part = |at: u32, len: u32| {
            let begin = (header + at) as usize;
            bytes.get(begin..begin + len as usize).context("BTF is cut short")
        };
        let types = part(types_at, types_len)?;
        let mut blob = Self {
            first: base.map_or(1, |base| base.first + base.types.len() as u32),
            types: Vec::new(),
            strings: base.map_or_else(Vec::new, |base| base.strings.clone()),
        };
        blob.strings.extend(part(strings_at, strings_len)?);
        let mut words = types
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        while let Some(name) = words.next() {
            let read = blob.read(name, &mut words);
            blob.types.push(read.context("the last type is cut short")?);
        }
        Ok(blob)
    }

    fn read(&self, name: u32, words: &mut impl Iterator<Item = u32>) -> Option<Type> {
        let (info, size_or_ref) = (words.next()?, words.next()?);
        let kind = info >> 24 & 0x7f;
        let (per_entry, extra) = shape(kind);
        let mut entries = Vec::new();
        if per_entry != 0 {
            for _ in 0..info & 0x00ff_ffff {
                // A section of data has no names.
                let name = self.string(words.next()?);
                entries.push(Entry { name, words: words.by_ref().take(per_entry - 1).collect() });
            }
        }
        let extra = words.by_ref().take(extra).collect();
        let flag = info & FLAG != 0;
        Some(Type { name: self.string(name), kind, flag, size_or_ref, entries, extra })
    }

    fn string(&self, at: u32) -> String {
        let rest = self.strings.get(at as usize..).unwrap_or_default();
        let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
        String::from_utf8_lossy(&rest[..end]).into_owned()
    }
}

/// Strings of a blob that is written, on top of those of its base.
#[derive(Clone, Default)]
pub struct Strings {
    known: HashMap<String, u32>,
    /// What the base has.
    first: u32,
    own: Vec<u8>,
}

impl Strings {
    /// A table on top of this one.
    pub fn on_top(&self) -> Self {
        let first = self.first + self.own.len() as u32;
        Self { known: self.known.clone(), first, own: Vec::new() }
    }

    fn offset(&mut self, text: &str) -> u32 {
        if let Some(known) = self.known.get(text) {
            return *known;
        }
        let offset = self.first + self.own.len() as u32;
        self.own.extend(text.bytes().chain([0]));
        self.known.insert(text.to_owned(), offset);
        offset
    }
}

/// Writes types; ids in them are those that the written blobs have.
pub fn write(types: &[Type], strings: &mut Strings) -> Vec<u8> {
    // The base's first string is the empty one.
    strings.offset("");
    let mut words = Vec::new();
    for Type { name, kind, flag, size_or_ref, entries, extra } in types {
        let flag = if *flag { FLAG } else { 0 };
        words.extend([strings.offset(name), flag | kind << 24 | entries.len() as u32]);
        words.push(*size_or_ref);
        for Entry { name, words: rest } in entries {
            words.push(strings.offset(name));
            words.extend(rest);
        }
        words.extend(extra);
    }
    let types_len = words.len() as u32 * 4;
    let strings_len = strings.own.len() as u32;
    let header = [u32::from(MAGIC) | 1 << 16, HEADER_BYTES, 0, types_len, types_len, strings_len];
    let mut blob: Vec<u8> = header.into_iter().chain(words).flat_map(u32::to_le_bytes).collect();
    blob.extend(&strings.own);
    blob
}
