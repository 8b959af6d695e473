//! Whether conntrack is active in a namespace: the kernel registers its hook functions while a rule needs them.

use super::{
    index::hooks::{AllHooks, HookList},
    symbols::Function,
};

/// Where conntrack is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// For IPv4.
    pub v4: bool,
    /// For IPv6.
    pub v6: bool,
}

impl Activity {
    /// Whether conntrack's function is among those at PREROUTING.
    #[must_use]
    pub fn of(hooks: &AllHooks) -> Self {
        let [v4, v6] = hooks;
        let tracks = |family: &[HookList]| {
            let first = family.first();
            first.is_some_and(|list| {
                list.functions.iter().any(|found| found.function == Function::Conntrack)
            })
        };
        Self { v4: tracks(v4), v6: tracks(v6) }
    }
}
