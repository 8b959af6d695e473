//! Where members of structures are.

use super::{
    Btf, BtfError, KIND_ARRAY, KIND_CONST, KIND_PTR, KIND_RESTRICT, KIND_STRUCT, KIND_TYPE_TAG,
    KIND_TYPEDEF, KIND_UNION, KIND_VOLATILE, MAX_DEPTH, read_u32,
};

/// Where a member is in its structure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberAt {
    /// First bit, counted from the lowest bit of the first byte (little-endian machines).
    pub bit: u32,
    /// Bits of a bit field; 0 for other members.
    pub bits: u32,
}

impl MemberAt {
    /// Offset in bytes; of a bit field, the byte that its first bit is in.
    #[must_use]
    pub fn byte(self) -> u32 {
        self.bit / 8
    }
}

impl Btf {
    /// Offset in bytes of a member of a structure, which may not be a bit field. The path may go
    /// through named members (`nd_net.net`), array elements (`tuplehash[1].tuple`) and anonymous
    /// structures.
    pub fn member_offset(&self, name: &str, path: &str) -> Result<u32, BtfError> {
        self.member(name, path, |place| place.bits == 0 && place.bit % 8 == 0).map(MemberAt::byte)
    }

    /// Position of a bit field in a structure.
    pub fn bit_field(&self, name: &str, path: &str) -> Result<MemberAt, BtfError> {
        self.member(name, path, |place| place.bits != 0)
    }

    fn member(
        &self,
        name: &str,
        path: &str,
        wanted: impl Fn(MemberAt) -> bool,
    ) -> Result<MemberAt, BtfError> {
        let candidates =
            self.structs.get(name).ok_or_else(|| BtfError::NoStruct(name.to_owned()))?;
        for &id in candidates {
            if let Some(place) = self.resolve(id, path)?
                && wanted(place)
            {
                return Ok(place);
            }
        }
        Err(BtfError::NoMember { name: name.to_owned(), path: path.to_owned() })
    }

    /// Position of a member path in a type.
    fn resolve(&self, mut id: u32, path: &str) -> Result<Option<MemberAt>, BtfError> {
        let mut place = MemberAt::default();
        for part in path.split('.') {
            let (name, index) = split_index(part);
            let Some((found, member)) = self.find_member(id, name, 0)? else { return Ok(None) };
            place = MemberAt { bit: place.bit.wrapping_add(found.bit), bits: found.bits };
            id = member;
            if let Some(index) = index {
                let Some((element, size)) = self.array_element(id)? else { return Ok(None) };
                place.bit = place.bit.wrapping_add(index.wrapping_mul(size).wrapping_mul(8));
                id = element;
            }
        }
        Ok(Some(place))
    }

    /// (position, type) of a member, searched through anonymous members too.
    fn find_member(
        &self,
        id: u32,
        name: &str,
        depth: usize,
    ) -> Result<Option<(MemberAt, u32)>, BtfError> {
        let (blob, t) = self.type_by_id(self.strip(id)?)?;
        if !matches!(t.kind, KIND_STRUCT | KIND_UNION) || depth > MAX_DEPTH {
            return Ok(None);
        }
        for i in 0..t.vlen {
            let at = t.tail + i * 12;
            let member_name = blob.string(read_u32(&blob.data, at)?);
            let member_type = read_u32(&blob.data, at + 4)?;
            let raw = read_u32(&blob.data, at + 8)?;
            let (bit, bits) = if t.kind_flag { (raw & 0x00ff_ffff, raw >> 24) } else { (raw, 0) };
            if member_name == name {
                return Ok(Some((MemberAt { bit, bits }, member_type)));
            }
            if member_name.is_empty()
                && let Some((inner, found)) = self.find_member(member_type, name, depth + 1)?
            {
                let bit = bit.wrapping_add(inner.bit);
                return Ok(Some((MemberAt { bit, bits: inner.bits }, found)));
            }
        }
        Ok(None)
    }

    /// Goes through typedefs and qualifiers.
    pub(super) fn strip(&self, mut id: u32) -> Result<u32, BtfError> {
        for _ in 0..MAX_DEPTH {
            if id == 0 {
                return Ok(0);
            }
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
}

/// `name[3]` → (`name`, 3).
fn split_index(part: &str) -> (&str, Option<u32>) {
    match part.strip_suffix(']').and_then(|p| p.split_once('[')) {
        Some((name, index)) => (name, index.parse().ok()),
        None => (part, None),
    }
}
