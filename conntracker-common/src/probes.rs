//! What the agent tells the programs that are attached to functions of the kernel.

/// No such thing on this kernel.
pub const ABSENT: u32 = u32::MAX;

macro_rules! arguments {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// Where arguments and results stand in a program's context, in bytes: that of fentry and fexit
        /// programs is an array of them (then the result), that of kprobes the registers.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Arguments {
            $($(#[$doc])* pub $field: u32,)*
        }

        impl Arguments {
            /// What the object carries until the agent fills it in.
            pub const ZERO: Self = Self { $($field: 0,)* };

            /// The words in order, which is their layout in memory.
            #[must_use]
            pub fn to_array(self) -> [u32; size_of::<Self>() / 4] {
                let Self { $($field,)* } = self;
                [$($field,)*]
            }
        }
    };
}

arguments! {
    /// 1: kprobes. Their return probes have no arguments.
    kprobes,
    /// 1: rules of nf_tables lie one behind the other (Linux 5.17+).
    blobs,
    /// `nf_hook_slow`: the `sk_buff`.
    hook_skb,
    /// Its result.
    hook_result,
    /// `nft_do_chain`: the `nft_pktinfo`.
    nft_pkt,
    /// The chain.
    nft_chain,
    /// Its result.
    nft_result,
    /// `ipt_do_table` and `ip6t_do_table`: the `sk_buff`.
    xt_skb,
    /// The `nf_hook_state`.
    xt_state,
    /// The table.
    xt_table,
    /// Their result.
    xt_result,
    /// Targets of xtables: the `sk_buff`.
    target_skb,
    /// The `xt_action_param`.
    target_par,
    /// Their result.
    target_result,
    /// `xt_action_param.targinfo`.
    par_targinfo,
    /// The function that confirms flows: the `sk_buff`.
    confirm_skb,
    /// The `nf_hook_state`.
    confirm_state,
    /// `nf_ct_delete`: the `nf_conn`.
    delete_ct,
    /// `nf_ct_destroy`: the `nf_conntrack`, which an `nf_conn` begins with.
    destroy_ct,
    /// Evaluators of expressions: the `nft_expr`.
    eval_expr,
    /// The `nft_regs`.
    eval_regs,
    /// The `nft_pktinfo`.
    eval_pkt,
}
