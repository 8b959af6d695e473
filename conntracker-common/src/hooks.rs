//! What program `list_hooks` writes into map `HOOK_FUNCTIONS`.

/// Functions listed per family; a hook with more is cut short.
pub const FUNCTIONS: usize = 32;

/// Functions on one hook, in the order in which packets meet them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookFunctions {
    /// How many there are, also beyond [`FUNCTIONS`].
    pub count: u64,
    /// Addresses.
    pub functions: [u64; FUNCTIONS],
}

const _: () = assert!(size_of::<HookFunctions>() == 8 * (FUNCTIONS + 1));
