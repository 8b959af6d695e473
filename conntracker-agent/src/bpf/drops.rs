//! How the tracepoint `kfree_skb` shows that netfilter dropped a packet.

use std::fmt;

use super::{
    btf::KernelBtf,
    symbols::{Kallsyms, Span},
};

/// The enumerator whose value the programs compare the tracepoint's reason with.
const REASON: &str = "SKB_DROP_REASON_NETFILTER_DROP";

/// The only function that drops packets for netfilter (net/netfilter/core.c; `nf_hook_slow_list` calls it for each
/// packet). The compiler may have moved a part of it elsewhere.
const FUNCTION: &str = "nf_hook_slow";
const UNLIKELY: &str = "nf_hook_slow.cold";

/// What tells that it was netfilter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropSign {
    /// The drop reason, whose number differs between kernels (Linux 5.18+, and older kernels of distributions that
    /// added it).
    Reason(u32),
    /// The address that `kfree_skb` returns to, which lies in `nf_hook_slow`.
    Function {
        /// All of the function, or nearly all.
        function: Span,
        /// Its other part, if it has one.
        unlikely: Option<Span>,
    },
}

impl DropSign {
    /// The drop reason, or the function where the kernel has no such reason.
    ///
    /// # Errors The kernel has no such reason, and /proc/kallsyms does not have the address of the function.
    pub fn find<E: fmt::Display>(
        btf: &KernelBtf,
        kallsyms: Result<&Kallsyms, E>,
    ) -> Result<Self, String> {
        if let Ok(reason) = btf.enumerator(REASON) {
            return Ok(Self::Reason(reason));
        }
        let none = |why| {
            format!(
                "drops by netfilter cannot be recognised: there is no {REASON} (Linux 5.18+), and {why}"
            )
        };
        let kallsyms = kallsyms.map_err(|error| none(format!("{error:#}")))?;
        let function = kallsyms.span(FUNCTION).ok_or_else(|| {
            none(format!("/proc/kallsyms does not have the address of {FUNCTION}"))
        })?;
        Ok(Self::Function { function, unlikely: kallsyms.span(UNLIKELY) })
    }

    /// The number of the reason; 0 if the address is compared instead.
    #[must_use]
    pub fn reason(self) -> u32 {
        match self {
            Self::Reason(reason) => reason,
            Self::Function { .. } => 0,
        }
    }

    /// Address and length of each part of the function; zeros for none.
    #[must_use]
    pub fn spans(self) -> [u64; 4] {
        match self {
            Self::Reason(_) => [0; 4],
            Self::Function { function, unlikely } => {
                let unlikely = unlikely.unwrap_or(Span { start: 0, len: 0 });
                [function.start, function.len, unlikely.start, unlikely.len]
            }
        }
    }
}

impl fmt::Display for DropSign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reason(_) => write!(f, "by their reason, {REASON}"),
            Self::Function { .. } => {
                write!(f, "by the place, {FUNCTION}: there is no {REASON} (Linux 5.18+)")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::btf::fixtures::{KERNELS, kernel};

    const WITH_UNLIKELY: &str = "ffffffff81000000 T nf_hook_slow\nffffffff81000100 T next\n\
                                 ffffffff81e00000 t nf_hook_slow.cold\nffffffff81e00010 t other\n";

    fn symbols(text: &str) -> Kallsyms {
        Kallsyms::parse(text.to_owned()).unwrap()
    }

    #[test]
    fn the_place_is_looked_at_only_where_there_is_no_reason() {
        let symbols = symbols(WITH_UNLIKELY);
        let found = KERNELS.map(|name| {
            let sign = DropSign::find::<String>(&kernel(name), Ok(&symbols)).unwrap();
            (name, sign.reason(), sign.spans())
        });
        let spans = [0xffff_ffff_8100_0000, 0x100, 0xffff_ffff_81e0_0000, 0x10];
        let expected = [
            ("ubuntu-5.15.0-25", 0, spans),
            ("ubuntu-5.15.0-203", 6, [0; 4]),
            ("debian-6.1", 7, [0; 4]),
            ("ubuntu-6.8", 11, [0; 4]),
            ("debian-6.12", 11, [0; 4]),
            ("debian-6.18", 12, [0; 4]),
            ("builtin-6.18", 12, [0; 4]),
            ("debian-7.2", 12, [0; 4]),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_function_in_one_piece_has_one_place() {
        let symbols = symbols("ffffffff81000000 T nf_hook_slow\nffffffff81000100 T next\n");
        let sign = DropSign::find::<String>(&kernel("ubuntu-5.15.0-25"), Ok(&symbols)).unwrap();
        assert_eq!(sign.spans(), [0xffff_ffff_8100_0000, 0x100, 0, 0]);
    }

    #[test]
    fn where_nothing_tells_it_is_said_why() {
        let btf = kernel("ubuntu-5.15.0-25");
        let hidden = symbols("0000000000000000 T nf_hook_slow\n0000000000000000 T next\n");
        let begin = "drops by netfilter cannot be recognised: there is no \
                     SKB_DROP_REASON_NETFILTER_DROP (Linux 5.18+), and ";
        assert_eq!(
            DropSign::find::<String>(&btf, Ok(&hidden)).unwrap_err(),
            format!("{begin}/proc/kallsyms does not have the address of nf_hook_slow")
        );
        assert_eq!(
            DropSign::find(&btf, Err("it is gone")).unwrap_err(),
            format!("{begin}it is gone")
        );
        assert!(DropSign::find(&kernel("debian-6.1"), Err("it is gone")).is_ok());
    }
}
