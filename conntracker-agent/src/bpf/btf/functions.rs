//! Functions and their parameters.

use std::collections::HashMap;

use super::{
    Btf, BtfError, KIND_FUNC, KIND_FUNC_PROTO, KIND_FWD, KIND_PTR, KIND_STRUCT, KIND_UNION,
    read_u32,
};

/// A parameter of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ParameterKind,
}

/// The type of a parameter, without typedefs and qualifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// A pointer to a structure or union of this name.
    Pointer(String),
    /// `void *`.
    Void,
    /// Something else.
    Other,
}

impl Btf {
    /// Type id of a function (`BTF_KIND_FUNC`) of this blob, the id that fentry attaches to.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<u32> {
        // Nobody asks for one function only.
        let functions = self.functions.get_or_init(|| {
            let mut functions = HashMap::new();
            for (&at, id) in self.types.iter().zip(self.first_id..) {
                if let Ok(t) = self.type_at(at as usize)
                    && t.kind == KIND_FUNC
                {
                    functions.entry(self.string(t.name).into()).or_insert(id);
                }
            }
            functions
        });
        functions.get(name).copied()
    }

    /// Parameters of the function with this type id, in order.
    pub fn parameters(&self, function: u32) -> Result<Vec<Parameter>, BtfError> {
        let (_, t) = self.type_by_id(function)?;
        let (blob, proto) = self.type_by_id(t.size_or_ref)?;
        if t.kind != KIND_FUNC || proto.kind != KIND_FUNC_PROTO {
            return Err(BtfError::Format("a function without parameters or return type"));
        }
        let parameter = |i: usize| {
            let at = proto.tail + i * 8;
            let name = blob.string(read_u32(&blob.data, at)?).to_owned();
            let kind = self.parameter_kind(read_u32(&blob.data, at + 4)?)?;
            Ok(Parameter { name, kind })
        };
        (0..proto.vlen).map(parameter).collect()
    }

    fn parameter_kind(&self, id: u32) -> Result<ParameterKind, BtfError> {
        let id = self.strip(id)?;
        // The last parameter of a variadic function has no type.
        if id == 0 {
            return Ok(ParameterKind::Other);
        }
        let (_, pointer) = self.type_by_id(id)?;
        if pointer.kind != KIND_PTR {
            return Ok(ParameterKind::Other);
        }
        let pointee = self.strip(pointer.size_or_ref)?;
        if pointee == 0 {
            return Ok(ParameterKind::Void);
        }
        let (blob, t) = self.type_by_id(pointee)?;
        Ok(match t.kind {
            KIND_STRUCT | KIND_UNION | KIND_FWD => {
                ParameterKind::Pointer(blob.string(t.name).to_owned())
            }
            _ => ParameterKind::Other,
        })
    }
}
