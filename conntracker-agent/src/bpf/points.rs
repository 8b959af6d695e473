//! The kernel functions to attach to, and the positions of their arguments.
//!
//! BTF and /proc/kallsyms decide, never the kernel's version. Each purpose has alternatives for kernels that lack a
//! function; the result says which one was taken, and why not those before it.

use self::Wanted::{Pointer, PointerOrVoid};
use super::btf::{Function, KernelBtf, Parameter, ParameterKind};

/// A function to attach to: with fentry or fexit by type id, or with a kprobe by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its name.
    pub function: String,
    /// The module that has it; `None`: vmlinux.
    pub module: Option<String>,
    /// Its type id in the BTF of that module, or in vmlinux's.
    pub btf_id: u32,
    /// Positions of the arguments that the purpose needs, in its order; the first is 0.
    pub args: Vec<u8>,
}

/// What was found for a purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The functions: all of them are needed.
    pub points: Vec<Point>,
    /// Why no earlier alternative was taken, one sentence each; empty if it is the first.
    pub passed_over: Vec<String>,
}

/// No function serves a purpose.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no function of this kernel {purpose}: {}", tried.join("; "))]
pub struct NoPoint {
    /// The purpose that it was needed for.
    pub purpose: &'static str,
    /// Why each alternative was not taken.
    pub tried: Vec<String>,
}

/// The functions for each purpose.
#[derive(Clone, Debug)]
pub struct Points {
    /// The function that runs all functions at a hook for a packet. Arguments: sk_buff, nf_hook_state.
    pub hook: Result<Choice, NoPoint>,
    /// The function that evaluates a base chain of nf_tables for a packet. Arguments: nft_pktinfo, nft_chain.
    pub nft_chain: Result<Choice, NoPoint>,
    /// The function that evaluates a table of ip_tables for a packet. Arguments: sk_buff, nf_hook_state, xt_table.
    pub ip_table: Result<Choice, NoPoint>,
    /// The same of ip6_tables.
    pub ip6_table: Result<Choice, NoPoint>,
    /// The function that a packet meets just before it confirms a flow. Arguments: sk_buff and, for a hook function,
    /// nf_hook_state: without it hook and interfaces are unknown, and replies are not seen.
    pub confirm: Result<Choice, NoPoint>,
    /// The function that removes a confirmed flow from the table. Argument: nf_conn.
    pub delete: Result<Choice, NoPoint>,
    /// The function that ends a flow, confirmed or not. Argument: nf_conn, or the nf_conntrack that it begins with.
    pub destroy: Result<Choice, NoPoint>,
}

/// An argument that is wanted.
#[derive(Clone, Copy)]
enum Wanted {
    /// A pointer to this structure.
    Pointer(&'static str),
    /// A pointer to this structure or, where the kernel passes it so, a `void *` of this name.
    PointerOrVoid(&'static str, &'static str),
}

/// Functions that serve a purpose together.
struct Alternative {
    functions: &'static [&'static str],
    args: &'static [Wanted],
}

const PACKET: &[Wanted] = &[Pointer("sk_buff"), Pointer("nf_hook_state")];

/// net/netfilter/core.c.
const HOOK: &[Alternative] = &[Alternative { functions: &["nf_hook_slow"], args: PACKET }];

/// net/netfilter/nf_tables_core.c.
const NFT_CHAIN: &[Alternative] = &[Alternative {
    functions: &["nft_do_chain"],
    args: &[Pointer("nft_pktinfo"), PointerOrVoid("nft_chain", "priv")],
}];

/// The table is the last argument before Linux 5.16, then `priv`, the first.
const TABLE: &[Wanted] =
    &[Pointer("sk_buff"), Pointer("nf_hook_state"), PointerOrVoid("xt_table", "priv")];

/// net/ipv4/netfilter/ip_tables.c.
const IP_TABLE: &[Alternative] = &[Alternative { functions: &["ipt_do_table"], args: TABLE }];

/// net/ipv6/netfilter/ip6_tables.c.
const IP6_TABLE: &[Alternative] = &[Alternative { functions: &["ip6t_do_table"], args: TABLE }];

/// net/netfilter/nf_conntrack_proto.c has one hook function since Linux 6.3. An older `nf_confirm` has other
/// arguments and does not see every packet. nf_conntrack_core.c has the function that all of them call.
const CONFIRM: &[Alternative] = &[
    Alternative { functions: &["nf_confirm"], args: PACKET },
    Alternative { functions: &["ipv4_confirm", "ipv6_confirm"], args: PACKET },
    Alternative { functions: &["__nf_conntrack_confirm"], args: &[Pointer("sk_buff")] },
];

/// net/netfilter/nf_conntrack_core.c.
const DELETE: &[Alternative] =
    &[Alternative { functions: &["nf_ct_delete"], args: &[Pointer("nf_conn")] }];

/// net/netfilter/nf_conntrack_core.c; the older name before Linux 5.16.
const DESTROY: &[Alternative] = &[
    Alternative { functions: &["nf_ct_destroy"], args: &[Pointer("nf_conntrack")] },
    Alternative { functions: &["destroy_conntrack"], args: &[Pointer("nf_conntrack")] },
];

/// include/net/netfilter/nf_tables.h, `nft_expr_ops.eval`.
const EVALUATOR: &[Wanted] = &[Pointer("nft_expr"), Pointer("nft_regs"), Pointer("nft_pktinfo")];

/// include/linux/netfilter/x_tables.h, `xt_target.target`.
const TARGET: &[Wanted] = &[Pointer("sk_buff"), Pointer("xt_action_param")];

/// The sources of functions, and the user's exclusions.
#[derive(Clone, Copy)]
pub struct Search<'a> {
    /// The kernel's BTF.
    pub btf: &'a KernelBtf,
    /// Whether /proc/kallsyms has a function of this name.
    pub exists: &'a dyn Fn(&str) -> bool,
    /// Functions that the user excluded.
    pub avoid: &'a [String],
}

impl Points {
    /// Finds all of them.
    #[must_use]
    pub fn resolve(search: Search<'_>) -> Self {
        Self {
            hook: search.choose("evaluates hooks", HOOK),
            nft_chain: search.choose("evaluates chains of nf_tables", NFT_CHAIN),
            ip_table: search.choose("evaluates tables of ip_tables", IP_TABLE),
            ip6_table: search.choose("evaluates tables of ip6_tables", IP6_TABLE),
            confirm: search.choose("confirms new flows", CONFIRM),
            delete: search.choose("removes flows", DELETE),
            destroy: search.choose("destroys flows", DESTROY),
        }
    }
}

impl Search<'_> {
    /// The function of this name, which evaluates expressions of nf_tables. Arguments: nft_expr,
    /// nft_regs, nft_pktinfo.
    ///
    /// # Errors
    /// It cannot be attached to.
    pub fn evaluator(&self, function: &str) -> Result<Point, NoPoint> {
        self.point(function, EVALUATOR)
            .map_err(|why| NoPoint { purpose: "evaluates the expression", tried: vec![why] })
    }

    /// The function of this name, which is a target of xtables. Arguments: sk_buff, xt_action_param.
    ///
    /// # Errors
    /// It cannot be attached to.
    pub fn target(&self, function: &str) -> Result<Point, NoPoint> {
        self.point(function, TARGET)
            .map_err(|why| NoPoint { purpose: "is the target", tried: vec![why] })
    }

    /// The first alternative whose functions all exist.
    fn choose(
        &self,
        purpose: &'static str,
        alternatives: &[Alternative],
    ) -> Result<Choice, NoPoint> {
        let mut passed_over = Vec::new();
        for Alternative { functions, args } in alternatives {
            let points: Result<Vec<Point>, String> =
                functions.iter().map(|function| self.point(function, args)).collect();
            match points {
                Ok(points) => return Ok(Choice { points, passed_over }),
                Err(why) => passed_over.push(why),
            }
        }
        Err(NoPoint { purpose, tried: passed_over })
    }

    /// The function with these arguments, or why it cannot be used.
    fn point(&self, function: &str, wanted: &[Wanted]) -> Result<Point, String> {
        let Self { btf, exists, avoid } = self;
        if avoid.iter().any(|avoided| avoided == function) {
            return Err(format!("`{function}` is to be avoided"));
        }
        let Some(Function { module, id, parameters }) = btf.function(function) else {
            return Err(if exists(function) {
                format!("`{function}` is not in the kernel's BTF")
            } else {
                format!("`{function}` is neither in the kernel's BTF nor in /proc/kallsyms")
            });
        };
        // A function that the compiler has changed has another name there, such as `nf_confirm.isra.0`.
        if !exists(function) {
            return Err(format!("`{function}` is not in /proc/kallsyms"));
        }
        let args: Result<Vec<u8>, String> =
            wanted.iter().map(|wanted| position(function, &parameters, *wanted)).collect();
        Ok(Point { function: function.to_owned(), module, btf_id: id, args: args? })
    }
}

/// Where an argument is.
fn position(function: &str, parameters: &[Parameter], wanted: Wanted) -> Result<u8, String> {
    let (Pointer(strukt) | PointerOrVoid(strukt, _)) = wanted;
    let typed = |parameter: &Parameter| match &parameter.kind {
        ParameterKind::Pointer(pointee) => pointee == strukt,
        _ => false,
    };
    let untyped = |parameter: &Parameter| match wanted {
        PointerOrVoid(_, name) => parameter.kind == ParameterKind::Void && parameter.name == name,
        Pointer(_) => false,
    };
    let found = parameters.iter().position(typed).or_else(|| parameters.iter().position(untyped));
    found.map(|at| at as u8).ok_or_else(|| match wanted {
        Pointer(_) => format!("`{function}` has no argument of type {strukt}"),
        PointerOrVoid(_, name) => {
            format!("`{function}` has no argument of type {strukt}, or void of name {name}")
        }
    })
}

#[cfg(test)]
mod tests;
