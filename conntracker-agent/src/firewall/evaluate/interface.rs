//! Network interfaces, as rules compare them.

use super::unknown::{Attr, Attribute};

/// Bytes of an interface's name (IFNAMSIZ), the NUL behind it included.
pub const IFNAMSIZ: usize = 16;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Interface {
    /// Index.
    pub index: Attr<u32>,
    /// Name, zeros behind it.
    pub name: [u8; IFNAMSIZ],
    /// Type of hardware (ARPHRD_).
    pub hardware: Attr<u16>,
    /// Group.
    pub group: Attr<u32>,
}

impl Interface {
    /// An interface of which only the name is known. Names beyond [`IFNAMSIZ`] - 1 bytes are cut, as none exists.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let mut bytes = [0; IFNAMSIZ];
        for (to, from) in bytes.iter_mut().take(IFNAMSIZ - 1).zip(name.bytes()) {
            *to = from;
        }
        let details = Attribute::InterfaceDetails.into();
        Self { index: Err(details), name: bytes, hardware: Err(details), group: Err(details) }
    }

    /// Its name as text.
    #[must_use]
    pub fn text(&self) -> String {
        let bytes = self.name.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// The same with its index.
    #[must_use]
    pub fn with_index(self, index: u32) -> Self {
        Self { index: Ok(index), ..self }
    }
}
