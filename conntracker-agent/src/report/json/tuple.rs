//! One direction of a flow, as JSON.

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::model::{L4, Tuple};

/// Names and values of the ports or their counterpart.
pub(super) fn l4_fields(l4: L4) -> impl Iterator<Item = (&'static str, u16)> {
    let fields = match l4 {
        L4::Ports { src, dst } => [Some(("sport", src)), Some(("dport", dst)), None],
        L4::Icmp { kind, code, id } => {
            [Some(("type", kind.into())), Some(("code", code.into())), Some(("id", id))]
        }
        L4::Gre { src, dst } => [Some(("srckey", src)), Some(("dstkey", dst)), None],
        L4::None => [None; 3],
    };
    fields.into_iter().flatten()
}

/// A tuple within an object that serde writes.
pub(super) struct TupleObject(Tuple);

impl From<Tuple> for TupleObject {
    fn from(tuple: Tuple) -> Self {
        Self(tuple)
    }
}

impl Serialize for TupleObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Tuple { src, dst, proto: _, l4 } = self.0;
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("src", &src)?;
        object.serialize_entry("dst", &dst)?;
        for (name, value) in l4_fields(l4) {
            object.serialize_entry(name, &value)?;
        }
        object.end()
    }
}
