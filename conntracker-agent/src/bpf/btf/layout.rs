//! Structures of offsets.

use super::{BtfError, KernelBtf, MemberAt};

/// A source of member offsets: BTF, or a test.
pub trait Members {
    /// Offset in bytes of a member, by structure and path.
    fn offset(&self, strukt: &str, path: &str) -> Result<u32, BtfError>;

    /// Place of a bit field.
    fn bit_field(&self, strukt: &str, path: &str) -> Result<MemberAt, BtfError>;
}

impl Members for KernelBtf {
    fn offset(&self, strukt: &str, path: &str) -> Result<u32, BtfError> {
        self.member_offset(strukt, path)
    }

    fn bit_field(&self, strukt: &str, path: &str) -> Result<MemberAt, BtfError> {
        KernelBtf::bit_field(self, strukt, path)
    }
}

/// Defines a structure of byte offsets, which are looked up by structure and member path.
macro_rules! layout {
    ($(#[$doc:meta])* $name:ident { $($field:ident = $strukt:literal . $path:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $name {
            $(pub $field: u64,)*
        }

        impl $name {
            fn find(members: &dyn $crate::bpf::btf::Members) -> Result<Self, $crate::bpf::btf::BtfError> {
                Ok(Self { $($field: members.offset($strukt, $path)?.into(),)* })
            }
        }
    };
}
pub(in crate::bpf) use layout;
