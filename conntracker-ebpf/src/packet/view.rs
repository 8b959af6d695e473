//! A packet at a hook, as a program finds it: through pointers whose types the verifier knows, or by
//! addresses alone.

use conntracker_common::record::HOOK_UNKNOWN;

use crate::{
    base::{
        globals::offset,
        memory::{load, read},
    },
    packet::conntrack::Nfct,
};

/// What programs ask of a packet. `None`: it could not be read.
pub trait View: Copy {
    /// Address of the `sk_buff`.
    fn skb(self) -> u64;
    /// `sk_buff._nfct`.
    fn nfct(self) -> Option<Nfct>;
    /// Packet mark.
    fn mark(self) -> Option<u32>;
    /// Hook and address family (`NFPROTO_`).
    fn hook(self) -> Option<(u8, u8)>;
    /// Cookie of the namespace.
    fn netns_cookie(self) -> Option<u64>;
    /// Indices of the interfaces of input and output, 0 for none.
    fn interfaces(self) -> Option<(u32, u32)>;
    /// Addresses of the `net_device`s of input and output, 0 for none.
    fn devices(self) -> Option<(u64, u64)>;
}

/// The context of a netfilter program.
#[derive(Clone, Copy)]
pub struct Typed {
    /// `const struct nf_hook_state *`.
    pub state: *const u8,
    /// `struct sk_buff *`.
    pub skb: *const u8,
}

impl View for Typed {
    #[inline(always)]
    fn skb(self) -> u64 {
        // The verifier lets a pointer be stored as a number, but not be computed with.
        self.skb as u64
    }

    #[inline(always)]
    fn nfct(self) -> Option<Nfct> {
        // SAFETY: skb is the context's trusted pointer.
        Some(Nfct::new(unsafe { load(self.skb, offset!(skb_nfct)) }))
    }

    #[inline(always)]
    fn mark(self) -> Option<u32> {
        // SAFETY: skb is the context's trusted pointer.
        Some(unsafe { load(self.skb, offset!(skb_mark)) })
    }

    #[inline(always)]
    fn hook(self) -> Option<(u8, u8)> {
        // SAFETY: state is the context's trusted pointer.
        Some(unsafe {
            (load(self.state, offset!(state_hook)), load(self.state, offset!(state_pf)))
        })
    }

    #[inline(always)]
    fn netns_cookie(self) -> Option<u64> {
        // SAFETY: state is the context's trusted pointer, net one that the verifier follows.
        Some(unsafe {
            let net: *const u8 = load(self.state, offset!(state_net));
            load(net, offset!(net_cookie))
        })
    }

    #[inline(always)]
    fn interfaces(self) -> Option<(u32, u32)> {
        Some((
            typed_index(self.state, offset!(state_in)),
            typed_index(self.state, offset!(state_out)),
        ))
    }

    #[inline(always)]
    fn devices(self) -> Option<(u64, u64)> {
        // Read without types: what is reached through these addresses is, too.
        let state = self.state as u64;
        Some((read(state + offset!(state_in) as u64)?, read(state + offset!(state_out) as u64)?))
    }
}

/// Index of the interface that the hook state points to, 0 for none.
#[inline(always)]
fn typed_index(state: *const u8, member: usize) -> u32 {
    // SAFETY: state is the context's trusted pointer.
    let dev: *const u8 = unsafe { load(state, member) };
    if dev.is_null() {
        return 0;
    }
    // SAFETY: dev was read through the trusted state.
    unsafe { load(dev, offset!(dev_ifindex)) }
}

/// The arguments of a function of the kernel.
#[derive(Clone, Copy)]
pub struct Probed {
    /// Address of the `nf_hook_state`; 0 where the function is not told: hook and interfaces are not
    /// known then, the namespace is that of the conntrack entry.
    pub state: u64,
    /// Address of the `sk_buff`.
    pub skb: u64,
}

impl View for Probed {
    #[inline(always)]
    fn skb(self) -> u64 {
        self.skb
    }

    #[inline(always)]
    fn nfct(self) -> Option<Nfct> {
        Some(Nfct::new(read(self.skb + offset!(skb_nfct) as u64)?))
    }

    #[inline(always)]
    fn mark(self) -> Option<u32> {
        read(self.skb + offset!(skb_mark) as u64)
    }

    #[inline(always)]
    fn hook(self) -> Option<(u8, u8)> {
        if self.state == 0 {
            return Some((HOOK_UNKNOWN, 0));
        }
        let hook = read(self.state + offset!(state_hook) as u64)?;
        Some((hook, read(self.state + offset!(state_pf) as u64)?))
    }

    #[inline(always)]
    fn netns_cookie(self) -> Option<u64> {
        let net: u64 = if self.state == 0 {
            self.nfct()?.entry()?.net()?
        } else {
            read(self.state + offset!(state_net) as u64)?
        };
        read(net + offset!(net_cookie) as u64)
    }

    #[inline(always)]
    fn interfaces(self) -> Option<(u32, u32)> {
        if self.state == 0 {
            return Some((0, 0));
        }
        Some((
            probed_index(read(self.state + offset!(state_in) as u64)?),
            probed_index(read(self.state + offset!(state_out) as u64)?),
        ))
    }

    #[inline(always)]
    fn devices(self) -> Option<(u64, u64)> {
        if self.state == 0 {
            return Some((0, 0));
        }
        Some((
            read(self.state + offset!(state_in) as u64)?,
            read(self.state + offset!(state_out) as u64)?,
        ))
    }
}

/// Index of the interface at an address, 0 for none.
#[inline(always)]
pub fn probed_index(dev: u64) -> u32 {
    if dev == 0 { 0 } else { read(dev + offset!(dev_ifindex) as u64).unwrap_or(0) }
}
