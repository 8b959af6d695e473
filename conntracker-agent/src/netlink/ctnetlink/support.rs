//! Which filters of dumps the running kernel has, found by sending them.

use nix::errno::Errno;

use super::filter::FilterSupport;
use super::uapi::{
    CTA_FILTER, CTA_FILTER_ORIG_FLAGS, CTA_MARK, CTA_MARK_MASK, CTA_STATUS_MASK, CTA_ZONE,
    IPCTNL_MSG_CT_GET, NFNL_SUBSYS_CTNETLINK,
};
use crate::netlink::request::{DUMP, Request};
use crate::netlink::socket::{Error, RECEIVE_BYTES, Socket};

/// NLM_F_DUMP_FILTERED: the kernel has a filter for the dump (Linux 5.8+).
const NLM_F_DUMP_FILTERED: u16 = 0x20;

/// Sends one request for each filter. A kernel ignores an attribute that it does not know and begins a dump. Each
/// request has a socket of its own, opened in the network namespace of the calling thread, so that only the first
/// datagram of that dump is made.
pub fn probe() -> Result<FilterSupport, Error> {
    // The kernel checks the mark first: EOPNOTSUPP if it has no marks. A kernel with status filters then answers
    // EINVAL to a status mask without a status.
    let (refused, _) = first_message(|r| {
        r.attribute(CTA_MARK, &[0; 4])
            .attribute(CTA_MARK_MASK, &[0; 4])
            .attribute(CTA_STATUS_MASK, &[0; 4])
    })?;
    let mark = refused != Some(Errno::EOPNOTSUPP);
    let status = if mark {
        refused == Some(Errno::EINVAL)
    } else {
        first_message(|r| r.attribute(CTA_STATUS_MASK, &[0; 4]))?.0 == Some(Errno::EINVAL)
    };
    // A kernel with tuple filters refuses an unknown field: EOPNOTSUPP, or EINVAL since the attribute's policy checks
    // it.
    let flags = (1u32 << 31).to_ne_bytes();
    let (refused, _) =
        first_message(|r| r.nested(CTA_FILTER, |r| r.attribute(CTA_FILTER_ORIG_FLAGS, &flags)))?;
    let tuple = refused.is_some();
    // No value of a zone is invalid, but messages of a filtered dump have a flag. Zone 0 has the most entries.
    let (refused, flags) = first_message(|r| r.attribute(CTA_ZONE, &[0; 2]))?;
    let zone = match (refused, flags) {
        (Some(_), _) => Some(false),
        (None, Some(flags)) => Some(flags & NLM_F_DUMP_FILTERED != 0),
        (None, None) => None,
    };
    Ok(FilterSupport { mark, status, zone, tuple })
}

/// Begins a dump: why it was refused, or the flags of the first message if there is one.
fn first_message(
    filter: impl FnOnce(Request) -> Request,
) -> Result<(Option<Errno>, Option<u16>), Error> {
    let mut socket = Socket::netfilter()?;
    let mut buffer = vec![0; RECEIVE_BYTES];
    let request = Request::netfilter(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET, DUMP, 0);
    let mut answer = socket.begin("conntrack filters", filter(request))?;
    match answer.advance(&socket, &mut buffer) {
        Ok(found) => Ok((None, found.map(|found| found.message(&buffer).flags))),
        Err(Error::Refused { errno: errno @ (Errno::EINVAL | Errno::EOPNOTSUPP), .. }) => {
            Ok((Some(errno), None))
        }
        Err(error) => Err(error),
    }
}
