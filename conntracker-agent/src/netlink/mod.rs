//! Netlink: sockets (neli), the ctnetlink codec, interface names.
//!
//! Reading order: [`wire`] cuts bytes into messages and attributes, [`request`] makes them,
//! [`socket`] moves them, [`exchange`] pairs a request with its answer. On top of these stand
//! [`ctnetlink`] (conntrack entries), [`link`] (interface names), [`nftables`] (rules and their changes)
//! and `routing` (interfaces, addresses and routes).

pub mod ctnetlink;
pub mod exchange;
pub mod link;
pub mod nftables;
pub mod request;
#[cfg(feature = "cli")]
pub mod routing;
pub mod socket;
pub mod wire;

pub use socket::{Error, Socket};
pub use wire::DecodeError;

/// Makes the kernel load the modules of conntrack and nf_tables by sending each a request. Errors are ignored: the
/// modules may be built in, or missing.
pub fn load_modules() {
    let ask = || -> Result<(), Error> {
        ctnetlink::stats::global(&mut Socket::netfilter()?)?;
        nftables::request_generation(&mut Socket::netfilter()?)
    };
    if let Err(error) = ask() {
        log::debug!("asking for the modules of netfilter: {error}");
    }
}
